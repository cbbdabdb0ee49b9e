"""Knows the brokers of a cluster, for all clients of one queue together.

A client asks the brokers that it knows for the metadata. If none of them answers, it asks the
configured servers, whose names are resolved anew: all brokers may have moved to other addresses.
The brokers are asked one after another, without waiting for a silent one. What one client learns
is told to the others, and connections to addresses that are no broker's any more are closed.

A cluster has an id. An answer with another id is not believed as long as any other server may still
answer for the known cluster. After that the configured servers lead to another cluster: nothing
that is remembered of the first one holds, neither offsets nor the numbers of producers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import aiokafka.errors as ke

from ._access import BrokerAccess
from ._throttling import Throttling
from ._topic_ids import Topics, TopicsRequest, topics_of

T = TypeVar("T")

_STAGGER_SECONDS = 1.0
_ASKED_FIRST = 3
"""How many known brokers are asked before the configured servers."""

_logger = logging.getLogger("streamq")


class Member(Protocol):
    """A client that is told about the brokers."""

    def moved(self, brokers: dict[int, Any]) -> None:
        """Note that brokers have other addresses; request the metadata again."""
        ...

    def replaced(self) -> None:
        """Note that there is another cluster."""
        ...


class Brokers:
    """The brokers of a cluster, and who has to be told when they change.

    Args:
        access: How to connect.
        connect_seconds: Longest time until a configured server has answered.
        operation_seconds: Longest time for a call; to ask for the metadata takes less.

    Attributes:
        access: How to connect.
        throttling: How long brokers delay our requests.
        stagger: How long a broker may be silent before others are asked, in seconds.
        on_created_anew: Called with a topic that turns out to be another one than before.
    """

    def __init__(
        self, access: BrokerAccess, connect_seconds: float, operation_seconds: float
    ) -> None:
        self.access = access
        self.throttling = Throttling(operation_seconds)
        self._connect_seconds = connect_seconds
        self._operation_seconds = operation_seconds
        self.stagger = min(_STAGGER_SECONDS, operation_seconds / 10)
        self._cluster_id: str | None = None
        self._ids: dict[str, bytes] = {}
        self._members: list[Member] = []
        self.on_created_anew: Callable[[str], None] = _do_nothing
        self._addresses: dict[int, tuple[str, int]] = {}

    def join(self, member: Member) -> None:
        """Tell a client about changes from now on."""
        self._members.append(member)

    def leave(self, member: Member) -> None:
        """Tell a client nothing more."""
        if member in self._members:
            self._members.remove(member)

    @property
    def topic_ids(self) -> Mapping[str, bytes]:
        """The id of each topic that was requested, from brokers that have ids."""
        return self._ids

    async def bootstrap(self, topics: Iterable[str]) -> Any:
        """Return the metadata from any configured server.

        Raises:
            aiokafka.errors.KafkaError: No configured server answers, or a broker refuses us.
            OSError: The network failed.
        """
        answer, errors = await self._ask(self._of_servers(topics), self._connect_seconds)
        if answer is None:
            raise _best_reason(errors)
        return answer

    async def ask(
        self, nodes: Iterable[int], connect: Callable[[int], Coroutine[Any, Any, Any]], topics: Any
    ) -> Any:
        """Return the metadata from any known broker or any configured server.

        Args:
            nodes: The known brokers.
            connect: Returns a connection to one of them.
            topics: The topics.

        Raises:
            aiokafka.errors.KafkaError: None of them answers, or one refuses us.
            OSError: The network failed.
        """

        def of_node(node: int) -> Callable[[], Coroutine[Any, Any, Any]]:
            async def call() -> Any:
                connection = await connect(node)
                return self._checked(await _request(connection, topics), is_server=False)

            return call

        shuffled = list(nodes)
        random.shuffle(shuffled)
        known = [of_node(node) for node in shuffled]
        calls = [*known[:_ASKED_FIRST], *self._of_servers(topics), *known[_ASKED_FIRST:]]
        answer, errors = await self._ask(calls, self._operation_seconds * 0.75)
        if answer is None:
            raise _best_reason(errors)
        return answer

    def learn(self, answer: Topics, learner: Member) -> None:
        """Take an answer, and tell the other clients what has changed."""
        cluster_id = answer.cluster_id
        known, self._cluster_id = self._cluster_id, cluster_id or self._cluster_id
        addresses = {node: (host, port) for node, host, port, *_ in answer.brokers}
        is_replaced = bool(known and cluster_id and known != cluster_id)
        has_moved = any(
            node in self._addresses and self._addresses[node] != address
            for node, address in addresses.items()
        )
        self._addresses = addresses
        if is_replaced:
            _logger.warning(
                "STREAMQ_KAFKA_BOOTSTRAP_SERVERS leads to another cluster than before (id %s, "
                "before %s): streams of the earlier one cannot be read there",
                *(cluster_id, known),
            )
            for member in tuple(self._members):
                member.replaced()
        elif has_moved:
            _logger.info("brokers of Kafka have moved to other addresses")
            for member in tuple(self._members):
                if member is not learner:
                    member.moved(addresses)
        if is_replaced:
            self._ids = {}
        anew = [topic for topic, key in answer.ids.items() if self._ids.get(topic, key) != key]
        self._ids.update(answer.ids)
        for topic in anew:
            _logger.warning("topic %s was deleted and created anew", topic)
            self.on_created_anew(topic)

    # -- inside --------------------------------------------------------------------------------

    def _of_servers(self, topics: Iterable[str]) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        def of_server(host: str, port: int) -> Callable[[], Coroutine[Any, Any, Any]]:
            async def call() -> Any:
                connection = await self.access.connect(
                    host, port, request_timeout_ms=int(self._operation_seconds * 1_000)
                )
                try:
                    return self._checked(await _request(connection, topics), is_server=True)
                finally:
                    connection.close()

            return call

        servers = list(self.access.servers)
        random.shuffle(servers)
        return [of_server(*server) for server in servers]

    def _checked(self, answer: Any, *, is_server: bool) -> Topics:
        found = topics_of(answer)
        if not found.brokers:
            raise ke.MetadataEmptyBrokerList("it knows no brokers")
        if self._cluster_id and found.cluster_id and found.cluster_id != self._cluster_id:
            raise _OtherCluster(found if is_server else None)
        return found

    async def _ask(
        self, calls: Iterable[Callable[[], Coroutine[Any, Any, Any]]], seconds: float
    ) -> tuple[Any, list[Exception]]:
        errors: list[Exception] = []
        try:
            async with asyncio.timeout(seconds):
                answer = await first_answer(calls, self.stagger, errors)
        except TimeoutError:
            answer = None
            errors.append(ke.KafkaConnectionError(f"no answer within {seconds:g} s"))
        if answer is None:
            others = [exc.answer for exc in errors if isinstance(exc, _OtherCluster) and exc.answer]
            answer = others[0] if others else None
        return answer, errors


def _do_nothing(_: str) -> None:
    return None


class _OtherCluster(ke.KafkaError):  # type: ignore[misc]
    """An answer is about another cluster than the one that is known."""

    def __init__(self, answer: Any) -> None:
        super().__init__("another cluster answers at this address")
        self.answer = answer


async def first_answer(
    calls: Iterable[Callable[[], Coroutine[Any, Any, T]]], stagger: float, errors: list[Exception]
) -> T | None:
    """Return the first result of several calls; ``None`` if all of them fail.

    A call is begun when the one before it has failed, or has not returned for a moment. The calls
    that are still under way at the end are cancelled.

    Args:
        calls: The calls, in the order to begin them.
        stagger: How long a call has to return before the next one is begun, in seconds.
        errors: Gets the errors.
    """
    waiting, pending = deque(calls), set[asyncio.Task[T]]()
    try:
        while waiting or pending:
            if waiting:
                pending.add(asyncio.ensure_future(waiting.popleft()()))
            done, pending = await asyncio.wait(
                pending,
                timeout=stagger if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, Exception):
                    raise error
                errors.append(error)
        return None
    finally:
        for task in pending:
            task.add_done_callback(_retrieve)
            task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _request(connection: Any, topics: Iterable[str]) -> Any:
    return await connection.send(TopicsRequest(sorted(topics)))


_UNREACHABLE = (ke.KafkaConnectionError, ke.NodeNotReadyError, ConnectionError, TimeoutError)


def _best_reason(errors: list[Exception]) -> Exception:
    """Return a broker's refusal rather than the failure of another broker, which is down."""
    known = [each for each in errors if not isinstance(each, _UNREACHABLE)]
    return (known or errors or [ke.NoBrokersAvailable()])[-1 if not known else 0]
