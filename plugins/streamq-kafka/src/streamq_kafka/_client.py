"""Habits of aiokafka's client that would hurt us, replaced.

* It asks for topics in a way that lets brokers create them: one that an operator has just deleted
  would come back with the broker's defaults, which suit neither the records nor the directory.
* It connects to one broker at a time: who needs a connection waits until one that is frozen has had
  all its time to answer, once for each who wanted that one.
* When it begins, it logs why a broker cannot be talked to and raises something else, and leaves its
  connection open when it is cancelled.
* It logs what it sends, at level DEBUG also the password; and every broken connection as an error,
  several times a second, where nobody has set up logging on the terminal. Calls raise it anyway.
* Its task for metadata ends with the first error that it does not know, and nobody learns of that.
* Where there was no token to log in with, it says that the broker is not ready; and it does not
  notice that a broker refuses one.
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

from ._errors import TokenUnavailable
from ._tokens import TokenProvider

AT_ONCE = 0
"""The connection for requests that a broker answers at once; others have other numbers."""

_logger = logging.getLogger("streamq")
_NOWHERE = logging.NullHandler()
_CLOSE_SECONDS = 1.0
_OF_CONNECTIONS = (
    *("client_id", "request_timeout_ms", "ssl_context", "security_protocol", "sasl_mechanism"),
    *("sasl_plain_username", "sasl_plain_password", "sasl_oauth_token_provider"),
)


def adapt(client: AIOKafkaClient, options: dict[str, Any]) -> None:
    """Replace these habits of a client that has not been started.

    Args:
        client: It, or that of a producer.
        options: What it was created with.
    """
    # The same ones each time: a logger keeps them once.
    logging.getLogger(create_conn.__module__).addFilter(hide_credentials)
    logging.getLogger("aiokafka").addHandler(_NOWHERE)
    client._get_conn_lock_value = contextlib.nullcontext()
    client._get_conn = functools.partial(_connect, client._get_conn, {})
    client.bootstrap = functools.partial(_bootstrap, client, options)
    client._metadata_update = functools.partial(_update_metadata, client)
    client.ready = functools.partial(_ready, client, options["sasl_oauth_token_provider"])


def hide_credentials(record: logging.LogRecord) -> bool:
    """Leave out of a log record what was said to log in; a filter that keeps every record."""
    if isinstance(record.args, tuple):
        names = [type(each).__name__ for each in record.args]
        record.args = tuple(
            f"{name}(...)" if name.startswith("SaslAuthenticate") else each
            for name, each in zip(names, record.args, strict=True)
        )
    return True


async def hang_up(client: AIOKafkaClient) -> None:
    """Close all connections of a client, whatever is on the other end of them."""
    writers = [each._writer for each in client._conns.values() if each._writer is not None]
    closing = asyncio.ensure_future(client.close())
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
    finally:
        # TLS says goodbye, and a full socket wants to be emptied: not to a broker that is frozen.
        for writer in writers:
            writer.transport.abort()
        await asyncio.wait({closing})


async def _connect(
    connect: Callable[..., Awaitable[Any]],
    locks: dict[tuple[int, int], asyncio.Lock],
    node: int,
    *,
    group: int = AT_ONCE,
    no_hint: bool = False,
) -> Any:
    """Return a connection, or ``None``; one attempt at a time for each."""
    async with locks.setdefault((node, group), asyncio.Lock()):
        return await connect(node, group=group, no_hint=no_hint)


async def _bootstrap(client: AIOKafkaClient, options: dict[str, Any]) -> None:
    """Learn from some broker which brokers there are.

    Raises:
        aiokafka.errors.KafkaError: None of those configured answers, and why.
        OSError: The network's reason.
    """
    servers = list(options["bootstrap_servers"])
    random.shuffle(servers)
    reasons: list[Exception] = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), **{name: options[name] for name in _OF_CONNECTIONS}
            )
            try:
                answer = await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
            finally:
                connection.close()
        except (ke.KafkaError, OSError) as exc:
            reasons.append(exc)
            continue
        if not answer.brokers:
            reasons.append(_nobody(options))
            continue
        client.cluster.update_metadata(answer)
        if client._sync_task is None:
            client._sync_task = asyncio.ensure_future(client._md_synchronizer())
        return
    # What a broker has against us says more than that another one is down.
    raise next((exc for exc in reasons if not isinstance(exc, _SILENT)), reasons[-1])


def _nobody(options: dict[str, Any]) -> ke.KafkaError:
    """Return why a broker has told of no brokers."""
    if options["sasl_mechanism"] == "OAUTHBEARER":
        # aiokafka takes the refusal of a token for consent, and the broker answers nothing then.
        return ke.SaslAuthenticationFailed("it does not take the token; has that expired?")
    return ke.MetadataEmptyBrokerList("it knows no brokers")


_SILENT = (ke.KafkaConnectionError, ConnectionError, TimeoutError)


async def _ready(
    client: AIOKafkaClient, tokens: TokenProvider | None, node: int, *, group: int = AT_ONCE
) -> bool:
    """Connect to a broker unless that has been done; return whether it could be done.

    Raises:
        TokenUnavailable: There is no token to log in with.
    """
    if await client._get_conn(node, group=group) is not None:
        return True
    if tokens is not None and tokens.failure is not None:
        raise TokenUnavailable(*tokens.failure.args)
    return False


async def _update_metadata(client: AIOKafkaClient, metadata: Any, topics: Iterable[str]) -> bool:
    """Ask some broker who leads what; return whether one has answered."""
    request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    for node in nodes:
        try:
            # A broker that says nothing must not keep us from asking the others.
            async with asyncio.timeout(client._request_timeout_ms / 4_000):
                connection = await client._get_conn(node)
                if connection is None:
                    continue
                answer = await connection.send(request)
        except Exception as exc:  # noqa: BLE001 - with another one, nobody would ask ever again
            _logger.info("broker %d does not tell who leads what: %r", node, exc)
            continue
        if answer.brokers:
            metadata.update_metadata(answer)
            return True
    return False
