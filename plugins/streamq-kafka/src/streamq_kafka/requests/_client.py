"""Replaces behaviour of aiokafka's client that would hurt streamq.

* Its metadata requests let brokers create topics. A topic that an operator has just deleted would
  come back with the broker's defaults, which suit neither the records nor the directory.
* It connects to one broker at a time. A task that needs a connection would wait until a frozen
  broker has timed out, once for each task that wanted that broker.
* It never asks the configured servers again, and logs in with what it was created with.
* It logs the reason why a broker cannot be used and raises another error. It leaves
  its connection open when it is cancelled.
* It does not notice that a broker delays its answers because of a quota, and drops the reason why
  a batch was refused.
* At level DEBUG it logs every request, including the password. It logs every broken connection as
  an error, several times a second, on the terminal of programs that do not configure logging. The
  calls raise these errors anyway.
* Its task for metadata ends with the first unexpected error, without any report.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import aiokafka.errors as ke
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import BrokerMetadata, TopicPartition

from streamq_kafka._errors import CredentialsUnavailable, LoginRefused

from ._brokers import Brokers
from ._error_codes import error_of

REQUEST_LANE = 0
"""The connection for requests that a broker answers at once; other lanes have other numbers."""

_logger = logging.getLogger("streamq")
_DISCARD = logging.NullHandler()
_CLOSE_SECONDS = 1.0
_WITH_WORDS = 8  # the first version of the answer to a batch that has a message
LOGIN_FAILED = (
    CredentialsUnavailable,
    LoginRefused,
    ke.AuthenticationFailedError,
    ke.AuthenticationMethodNotSupported,
    ke.IllegalSaslStateError,
    ke.SaslAuthenticationFailed,
    ke.UnsupportedSaslMechanismError,
)


class AdaptedClient:
    """A client of aiokafka whose behaviour is replaced.

    Args:
        client: The client, or the client of a producer; it has not been started.
        brokers: What is known of the cluster, shared with other clients.
        on_replaced: Called when there is another cluster behind the configured servers.
        is_bound: Whether the client cannot be used with another cluster.

    Attributes:
        client: The client.
        throttling: How long brokers delay our requests.
        topic_errors: The error codes of topics in the last metadata.
        failure: Why the last request for metadata had no answer; ``None`` if it had.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        brokers: Brokers,
        *,
        on_replaced: Callable[[], None],
        is_bound: bool = False,
    ) -> None:
        self.client = client
        self.throttling = brokers.throttling
        self.topic_errors: dict[str, int] = {}
        self.failure: Exception | None = None
        self._brokers = brokers
        self._on_replaced = on_replaced
        self._is_bound = is_bound
        self._has_ended = False
        self._locks: dict[tuple[int, int], asyncio.Lock] = {}
        self._connecting: dict[tuple[int, int], tuple[BrokerMetadata, asyncio.Task[Any]]] = {}
        self._failures: dict[int, Exception] = {}
        self._refusals: dict[TopicPartition, tuple[float, int, ke.KafkaError]] = {}
        self._send = client.send
        # The same objects each time: a logger keeps each of them once.
        logging.getLogger(AIOKafkaConnection.__module__).addFilter(hide_credentials)
        logging.getLogger("aiokafka").addHandler(_DISCARD)
        client.bootstrap = self._bootstrap
        client.ready = self._ready
        client.send = self.send
        client._get_conn = self._connected
        client._metadata_update = self._update_metadata
        brokers.join(self)

    async def send(self, node: int, request: Any, *, group: int = REQUEST_LANE) -> Any:
        """Send a request to a broker and return its answer.

        Raises:
            Throttled: The broker delays our requests for longer than a call may take.
            aiokafka.errors.KafkaError: The broker cannot be reached, or did not answer in time.
        """
        if not self._is_bound:  # a producer cannot go on after a request that was not sent
            self.throttling.check(node)
        await self.throttling.wait(node)
        # A broker that is silent may have moved, which others know before this call ends.
        patience = self._brokers.stagger + getattr(request, "wait_ms", 0) / 1_000
        doubt = asyncio.get_running_loop().call_later(patience, self._doubt)
        try:
            answer = await self._send(node, request, group=group)
        except ke.RequestTimedOutError:
            self.throttling.raise_if_throttled(node)
            raise
        finally:
            doubt.cancel()
        self.throttling.learn(node, answer)
        if request.API_KEY == ProduceRequest.API_KEY:
            self._note_refusals(answer)
        return answer

    def refusal(self, partition: TopicPartition, since: float) -> tuple[int, ke.KafkaError] | None:
        """Return the code and the error of the last answer to a batch, unless that was stored.

        Args:
            partition: The partition of the batch.
            since: The time of the loop after which the answer has come.
        """
        when, code, error = self._refusals.get(partition, (0.0, 0, None))
        return (code, error) if error is not None and when >= since else None

    def moved(self, brokers: dict[int, tuple[str, int]]) -> None:
        """Note that brokers have other addresses; request the metadata again."""
        self.client.cluster._brokers = {
            node: BrokerMetadata(node, host, port, None) for node, (host, port) in brokers.items()
        }
        self._drop_moved()
        self.client.force_metadata_update()

    def replaced(self) -> None:
        """Note that there is another cluster: nothing that is known of brokers and topics holds."""
        self._has_ended = self._is_bound
        self.client.cluster._brokers = {}
        self.client.cluster._partitions = {}
        self._drop_moved()
        self.client.force_metadata_update()
        self._on_replaced()

    async def close(self) -> None:
        """Close all connections within a second, even if a broker does not react."""
        self._has_ended = True
        self._brokers.leave(self)
        for _, attempt in self._connecting.values():
            attempt.cancel()
        client = self.client
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
            client._conns.clear()

    # -- instead of aiokafka's -----------------------------------------------------------------

    async def _bootstrap(self) -> None:
        """Ask any of the configured servers for all brokers; see :meth:`Brokers.bootstrap`."""
        client = self.client
        self._learn(await self._brokers.bootstrap([]))
        if client._sync_task is None:
            client._sync_task = asyncio.ensure_future(client._md_synchronizer())

    async def _connected(
        self, node: int, *, group: int = REQUEST_LANE, no_hint: bool = False
    ) -> Any:
        """Return a connection, or ``None``; one attempt at a time for each connection."""
        key = node, group
        conns = self.client._conns
        async with self._locks.setdefault(key, asyncio.Lock()):
            while not self._has_ended:
                connection = conns.get(key)
                if connection is not None and connection.connected():
                    return connection
                conns.pop(key, None)
                broker = self.client.cluster.broker_metadata(node)
                if broker is None:
                    self._failures[node] = ke.StaleMetadata(f"there is no broker {node}")
                    break
                attempt = asyncio.ensure_future(
                    self._brokers.access.connect(
                        broker.host,
                        broker.port,
                        request_timeout_ms=self.client._request_timeout_ms,
                        on_close=self.client._on_connection_closed,
                    )
                )
                self._connecting[key] = broker, attempt
                try:
                    connection = await attempt
                except asyncio.CancelledError:
                    current = asyncio.current_task()
                    if not attempt.cancelled() or (current and current.cancelling()):
                        attempt.add_done_callback(_close_unused)  # it may have succeeded just now
                        attempt.cancel()
                        raise
                    continue  # the broker has moved
                except (OSError, ke.KafkaError) as exc:
                    self._failures[node] = exc
                    break
                finally:
                    self._connecting.pop(key, None)
                conns[key] = connection
                self._failures.pop(node, None)
                return connection
        if not self._has_ended:
            # The metadata may be out of date.
            self.client.force_metadata_update()
        return None

    async def _ready(self, node: int, *, group: int = REQUEST_LANE) -> bool:
        """Connect to a broker unless there is a connection.

        Raises:
            aiokafka.errors.KafkaError: It cannot be reached, or we cannot log in.
        """
        await self._connection(node, group=group)
        return True

    async def _connection(self, node: int, *, group: int = REQUEST_LANE) -> Any:
        """Return a connection to a broker.

        Raises:
            aiokafka.errors.KafkaError: It cannot be reached, or we cannot log in.
        """
        connection = await self._connected(node, group=group)
        if connection is not None:
            return connection
        failure = self._failures.get(node)
        if isinstance(failure, LOGIN_FAILED):
            raise failure
        broker = self.client.cluster.broker_metadata(node)
        at = f" at {broker.host}:{broker.port}" if broker is not None else ""
        raise ke.NodeNotReadyError(f"broker {node}{at}: {failure}") from failure

    async def _update_metadata(self, metadata: Any, topics: Iterable[str]) -> bool:
        """Ask any broker for the metadata of topics; return whether a broker answered."""
        if self._has_ended:
            return False
        try:
            nodes = [broker.nodeId for broker in self.client.cluster.brokers()]
            self._learn(await self._brokers.ask(nodes, self._connection, topics))
        except Exception as exc:  # noqa: BLE001 - otherwise metadata would never be updated again
            _logger.info("no broker returned the metadata: %r", exc)
            self.failure = exc
            return False
        self.failure = None
        return not self._has_ended

    # -- inside --------------------------------------------------------------------------------

    def _doubt(self) -> None:
        if not self._has_ended:
            self.client.force_metadata_update()

    def _learn(self, answer: Any) -> None:
        self._brokers.learn(answer, self)
        if self._has_ended:
            return  # it is about another cluster
        self.client.cluster.update_metadata(answer)
        self.topic_errors = {topic: code for code, topic, *_ in answer.topics if code}
        self._drop_moved()

    def _note_refusals(self, answer: Any) -> None:
        now = asyncio.get_running_loop().time()
        for topic, partitions in answer.topics:
            for number, code, *rest in partitions:
                partition = TopicPartition(topic, number)
                if code in (ke.NoError.errno, ke.DuplicateSequenceNumber.errno):
                    self._refusals.pop(partition, None)
                else:
                    words = rest[-1] if answer.API_VERSION >= _WITH_WORDS else None
                    self._refusals[partition] = now, code, error_of(code, partition, words)

    def _drop_moved(self) -> None:
        """Close the connections to addresses that are not their broker's any more."""
        conns, known = self.client._conns, self.client.cluster.broker_metadata
        for key, connection in tuple(conns.items()):
            broker = known(key[0])
            if broker is None or (broker.host, broker.port) != (connection.host, connection.port):
                del conns[key]
                connection.close()
        for (node, _), (wanted, attempt) in self._connecting.items():
            broker = known(node)
            if broker is None or (broker.host, broker.port) != (wanted.host, wanted.port):
                attempt.cancel()


def _close_unused(attempt: asyncio.Task[Any]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def hide_credentials(record: logging.LogRecord) -> bool:
    """Remove the credentials from a log record; a filter that keeps every record."""
    if isinstance(record.args, tuple):
        names = [type(each).__name__ for each in record.args]
        record.args = tuple(
            f"{name}(...)" if name.startswith("SaslAuthenticate") else each
            for name, each in zip(names, record.args, strict=True)
        )
    return True
