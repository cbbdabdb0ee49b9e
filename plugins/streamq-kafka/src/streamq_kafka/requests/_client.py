"""Replaces behaviour of aiokafka's client that would hurt streamq.

* Its metadata requests let brokers create topics. A topic that an operator has just deleted would
  come back with the broker's defaults, which suit neither the records nor the directory.
* It connects to one broker at a time. A task that needs a connection would wait until a frozen
  broker has timed out, once for each task that wanted that broker.
* At the start it logs the reason why a broker cannot be used and raises another error. It leaves
  its connection open when it is cancelled.
* At level DEBUG it logs every request, including the password. It logs every broken connection as
  an error, several times a second, on the terminal of programs that do not configure logging. The
  calls raise these errors anyway.
* Its task for metadata ends with the first unexpected error, without any report.
* If there was no token to log in with, it reports that the broker is not ready. It does not notice
  that a broker refuses a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiokafka.errors as ke
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from streamq_kafka._errors import TokenUnavailable

from ._tokens import TokenProvider

REQUEST_LANE = 0
"""The connection for requests that a broker answers at once; other lanes have other numbers."""

_logger = logging.getLogger("streamq")
_DISCARD = logging.NullHandler()
_CLOSE_SECONDS = 1.0
_CONNECTION_OPTIONS = (
    *("client_id", "request_timeout_ms", "ssl_context", "security_protocol", "sasl_mechanism"),
    *("sasl_plain_username", "sasl_plain_password", "sasl_oauth_token_provider"),
)


def adapt(client: AIOKafkaClient, options: dict[str, Any]) -> None:
    """Replace this behaviour of a client that has not been started.

    Args:
        client: The client, or the client of a producer.
        options: The options that it was created with.
    """
    # The same objects each time: a logger keeps each of them once.
    logging.getLogger(create_conn.__module__).addFilter(hide_credentials)
    logging.getLogger("aiokafka").addHandler(_DISCARD)
    client._get_conn_lock_value = contextlib.nullcontext()
    client._get_conn = functools.partial(_connect, client._get_conn, {})
    client.bootstrap = functools.partial(_bootstrap, client, options)
    client._metadata_update = functools.partial(_update_metadata, client)
    client.ready = functools.partial(_ready, client, options["sasl_oauth_token_provider"])


def hide_credentials(record: logging.LogRecord) -> bool:
    """Remove the credentials from a log record; a filter that keeps every record."""
    if isinstance(record.args, tuple):
        names = [type(each).__name__ for each in record.args]
        record.args = tuple(
            f"{name}(...)" if name.startswith("SaslAuthenticate") else each
            for name, each in zip(names, record.args, strict=True)
        )
    return True


async def hang_up(client: AIOKafkaClient) -> None:
    """Close all connections of a client within a second, even if a broker does not react."""
    writers = [each._writer for each in client._conns.values() if each._writer is not None]
    closing = asyncio.ensure_future(client.close())
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
    finally:
        # TLS sends a last message, and a full socket is emptied first; a frozen broker takes
        # neither.
        for writer in writers:
            writer.transport.abort()
        await asyncio.wait({closing})


async def _connect(
    connect: Callable[..., Awaitable[Any]],
    locks: dict[tuple[int, int], asyncio.Lock],
    node: int,
    *,
    group: int = REQUEST_LANE,
    no_hint: bool = False,
) -> Any:
    """Return a connection, or ``None``; one attempt at a time for each connection."""
    async with locks.setdefault((node, group), asyncio.Lock()):
        return await connect(node, group=group, no_hint=no_hint)


async def _bootstrap(client: AIOKafkaClient, options: dict[str, Any]) -> None:
    """Ask any of the configured brokers for all brokers.

    Raises:
        aiokafka.errors.KafkaError: No configured broker answers, or a broker refuses us.
        OSError: The network failed.
    """
    servers = list(options["bootstrap_servers"])
    random.shuffle(servers)
    reasons: list[Exception] = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            connection = await create_conn(
                host.strip("[]"),
                int(port),
                **{name: options[name] for name in _CONNECTION_OPTIONS},
            )
            try:
                answer = await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
            finally:
                connection.close()
        except (ke.KafkaError, OSError) as exc:
            reasons.append(exc)
            continue
        if not answer.brokers:
            reasons.append(_no_brokers(options))
            continue
        client.cluster.update_metadata(answer)
        if client._sync_task is None:
            client._sync_task = asyncio.ensure_future(client._md_synchronizer())
        return
    # A broker's refusal is a better reason than another broker that is down.
    raise next((exc for exc in reasons if not isinstance(exc, _UNREACHABLE)), reasons[-1])


def _no_brokers(options: dict[str, Any]) -> ke.KafkaError:
    """Return the reason why an answer names no brokers."""
    if options["sasl_mechanism"] == "OAUTHBEARER":
        # aiokafka does not notice that the token was refused, and the broker then answers nothing.
        return ke.SaslAuthenticationFailed("it does not take the token; has that expired?")
    return ke.MetadataEmptyBrokerList("it knows no brokers")


_UNREACHABLE = (ke.KafkaConnectionError, ConnectionError, TimeoutError)


async def _ready(
    client: AIOKafkaClient, tokens: TokenProvider | None, node: int, *, group: int = REQUEST_LANE
) -> bool:
    """Connect to a broker unless there is a connection; return whether there is one.

    Raises:
        TokenUnavailable: There is no token to log in with.
    """
    if await client._get_conn(node, group=group) is not None:
        return True
    if tokens is not None and tokens.failure is not None:
        raise TokenUnavailable(*tokens.failure.args)
    return False


async def _update_metadata(client: AIOKafkaClient, metadata: Any, topics: Iterable[str]) -> bool:
    """Ask any broker for the metadata of topics; return whether a broker answered."""
    request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    for node in nodes:
        try:
            # A broker that does not answer must leave time to ask the others.
            async with asyncio.timeout(client._request_timeout_ms / 4_000):
                connection = await client._get_conn(node)
                if connection is None:
                    continue
                answer = await connection.send(request)
        except Exception as exc:  # noqa: BLE001 - otherwise metadata would never be updated again
            _logger.info("broker %d did not return the metadata: %r", node, exc)
            continue
        if answer.brokers:
            metadata.update_metadata(answer)
            return True
    return False
