"""The connections to read with: metadata, fetches and offsets, one request at a time.

aiokafka connects, logs in, packs requests, parses answers and knows who leads which partition. Its
consumer is not used: it has one long fetch out to a broker, and whatever else should be read from
that broker waits for it. Here a fetch is a request like any other.

A broker answers the requests of a connection one after the other, so that a long fetch holds up
what is behind it. Each broker therefore has a connection for everything that is answered at once,
and two *lanes* for long fetches: who wants to change what is waited for asks on the other lane, and
the first one is hung up.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import aiokafka.errors as ke
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from ._client import AT_ONCE, adapt, hang_up
from ._errors import TopicMissing, closed_error
from ._fetched import Fetched, error_of
from ._looking import Looking
from ._settings import KafkaSettings, connection_options
from ._trust import Trust

T = TypeVar("T")

_LATEST, _EARLIEST = -1, -2
_MISSING_AGAIN_SECONDS = 0.5
_UNCOMMITTED = 0
_MOVING_SECONDS = (0.0, 0.05, 0.2)


class Cluster:
    """One client of aiokafka, used for reading only.

    Args:
        settings: How to reach the cluster.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._options = connection_options(settings)
        self._connect_seconds = settings.connect_timeout_seconds
        self._patience = settings.operation_timeout_seconds
        self._client = AIOKafkaClient(**self._options)
        adapt(self._client, self._options)
        self._topics: set[str] = set()
        self._clock = asyncio.get_running_loop().time
        self._trust = Trust(self._clock)
        self._looking = Looking(self._patience)
        self._is_stale = False
        self._is_closed = False
        self._calls: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Connect to some broker.

        Raises:
            aiokafka.errors.KafkaError: Nobody answers, or what the broker says against us.
            OSError: The network's reason.
        """
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._client.bootstrap()
        except TimeoutError:
            raise ke.KafkaConnectionError(f"no answer within {self._connect_seconds:g} s") from None

    async def close(self) -> None:
        """Hang up. Whatever is under way fails with ``ClosedError``; idempotent."""
        self._is_closed = True
        for call in self._calls:
            call.cancel()
        await hang_up(self._client)

    # -- metadata ------------------------------------------------------------------------------

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has.

        Raises:
            TopicMissing: It does not exist.
            aiokafka.errors.KafkaError: It is not for us, or nobody answers.
        """
        metadata = self._client.cluster
        if topic not in self._topics:
            self._topics.add(topic)
            self._is_stale = True
            self._client.add_topic(topic)
        found = metadata.partitions_for_topic(topic)
        for pause in (0.0, _MISSING_AGAIN_SECONDS):
            if found:
                break
            # Twice: a broker that has just begun may not know all of its topics yet.
            await self._unless_closed(asyncio.sleep(pause))
            await self._refresh()
            found = metadata.partitions_for_topic(topic)
        if not found:
            if topic in metadata.unauthorized_topics:
                raise ke.TopicAuthorizationFailedError(topic)
            # Not asked for with every other topic from now on.
            self._topics.discard(topic)
            self._client._topics.discard(topic)
            raise TopicMissing(topic)
        return len(found)

    async def leader(self, partition: TopicPartition) -> int:
        """Return the broker that leads a partition.

        Raises:
            TopicMissing: The topic has gone.
            aiokafka.errors.LeaderNotAvailableError: It has none now.
        """
        if self._is_stale or self.known_leader(partition) is None:
            await self._refresh()
        node = self.known_leader(partition)
        if node is None:
            await self.partitions(partition.topic)
            raise _leaderless(partition)
        return node

    def known_leader(self, partition: TopicPartition) -> int | None:
        """Return the leader by what is known now."""
        node: int | None = self._client.cluster.leader_for_partition(partition)
        return None if node == -1 else node

    def suspect(self) -> None:
        """Ask again who leads what before the next request: somebody was not the leader."""
        self._is_stale = True

    async def confirm(self, error: ke.KafkaError, topic: str) -> ke.KafkaError:
        """Return what is behind an error: an unknown topic may be gone, or be moving.

        That takes a moment, so that no question of others should wait for it.
        """
        self._is_stale = True
        if isinstance(error, ke.UnknownTopicOrPartitionError):
            try:
                async with asyncio.timeout(self._patience):
                    await self._refresh()
                    await self.partitions(topic)
            except ke.KafkaError as exc:
                return exc
            except TimeoutError:
                return error
        return error

    # -- requests ------------------------------------------------------------------------------

    async def fetch(
        self,
        node: int,
        wanted: Iterable[tuple[TopicPartition, int]],
        *,
        lane: int = AT_ONCE,
        wait_ms: int = 0,
        partition_bytes: int,
        max_bytes: int,
    ) -> list[Fetched]:
        """Ask one broker for records.

        Args:
            node: Which broker.
            wanted: Partitions, each with the offset to read from.
            lane: On which connection.
            wait_ms: How long the broker may wait if there is nothing; 0 for not at all.
            partition_bytes: Most bytes of each partition, but always one batch.
            max_bytes: Most bytes of all.

        Raises:
            aiokafka.errors.KafkaError: The broker cannot be reached, or did not answer in time.
        """
        offsets = dict(wanted)
        by_topic: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, number), offset in offsets.items():
            by_topic.setdefault(topic, []).append((number, offset, partition_bytes))
        topics = list(by_topic.items())
        random.shuffle(topics)  # a broker fills the answer from the front: all have their turn
        for _, each in topics:
            random.shuffle(each)
        # Without a minimum, Kafka never waits.
        asked_ms = max(self._looking.wait_ms(offsets), wait_ms)
        request = FetchRequest(asked_ms, int(wait_ms > 0), max_bytes, _UNCOMMITTED, topics)
        asked_at = self._clock()
        answer = await self._send(node, request, lane)
        seconds = self._clock() - asked_at
        found = []
        for topic, partitions in answer.topics:
            for number, code, high, *rest in partitions:
                partition = TopicPartition(topic, number)
                offset = offsets[partition]
                error = (
                    error_of(code, partition)
                    if code
                    else self._trust.judge(partition, offset, high)
                )
                if error is not None:
                    self._trust.withdraw(partition)
                if isinstance(error, _MOVED):
                    self._is_stale = True
                low = max(0, rest[1]) if answer.API_VERSION >= 5 else 0
                found.append(Fetched(partition, offset, error, high, low, rest[-1] or b""))
        self._looking.learn(found, asked_ms, seconds, partition_bytes)
        return found

    async def fetch_now(self, partition: TopicPartition, offset: int, *, max_bytes: int) -> Fetched:
        """Return what one partition has at an offset, without waiting.

        Raises:
            aiokafka.errors.KafkaError: The broker cannot be reached, or answers with an error.
        """
        async with asyncio.timeout(self._patience):
            answers = await self.fetch_from_leaders(
                [(partition, offset)], partition_bytes=max_bytes, max_bytes=max_bytes
            )
        answer = answers[partition]
        if isinstance(answer, ke.KafkaError):
            raise await self.confirm(answer, partition.topic)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hang_up(self, node: int, lane: int) -> None:
        """Close the connection of a lane, so that its next request need not wait."""
        connection = self._client._conns.pop((node, lane), None)
        if connection is not None:
            connection.close()

    async def fetch_from_leaders(
        self,
        wanted: Iterable[tuple[TopicPartition, int]],
        *,
        partition_bytes: int,
        max_bytes: int,
    ) -> dict[TopicPartition, Fetched | Exception]:
        """Ask whoever leads each partition for records, without waiting; see :meth:`fetch`.

        The answers reflect whatever has been acknowledged before, also by the leaders before.

        Returns:
            An answer or an error for each partition; :meth:`confirm` knows what is behind some.
        """
        offsets = dict(wanted)

        async def ask(partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
            each = {partition: offsets[partition] for partition in partitions}
            return await self._fetch_from_leaders(each, partition_bytes, max_bytes)

        return await _from_leaders(ask, offsets)

    async def _fetch_from_leaders(
        self, wanted: Mapping[TopicPartition, int], partition_bytes: int, max_bytes: int
    ) -> dict[TopicPartition, Fetched | Exception]:
        by_node, failed = await self._by_leader(wanted)
        results: dict[TopicPartition, Fetched | Exception] = {**failed}

        async def ask(node: int, partitions: list[TopicPartition]) -> None:
            connection = self._connection(node)
            doubtful = [each for each in partitions if not self._trust.has(each, connection)]
            errors = {
                partition: found
                for partition, found in (await self._ask_node(_LATEST, node, doubtful)).items()
                if isinstance(found, Exception)
            }
            results.update(errors)
            asked = [(each, wanted[each]) for each in partitions if each not in errors]
            if not asked:
                return
            try:
                answers = await self.fetch(
                    node, asked, partition_bytes=partition_bytes, max_bytes=max_bytes
                )
            except ke.KafkaError as exc:
                self._is_stale = True
                for partition, _ in asked:
                    self._trust.withdraw(partition)
                    results[partition] = exc
                return
            results.update({partition: _silent() for partition, _ in asked})
            for fetched in answers:
                partition = fetched.partition
                if fetched.error is not None:
                    results[partition] = fetched.error
                elif self._trust.has(partition, self._connection(node)):
                    results[partition] = fetched  # otherwise it has begun anew in between

        await asyncio.gather(*(ask(node, each) for node, each in by_node.items()))
        return results

    async def latest(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | Exception]:
        """Return about where partitions end, not beyond it; an offset or an error for each."""
        return await self._offsets(_LATEST, partitions)

    async def beginnings(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | Exception]:
        """Return the offsets of the oldest records still there; an offset or an error for each."""
        return await self._offsets(_EARLIEST, partitions)

    # -- administration ------------------------------------------------------------------------

    @property
    def brokers(self) -> int:
        """How many brokers there are."""
        return len(self._client.cluster.brokers())

    def replicas(self, topic: str) -> int:
        """Return how many replicas the partitions of a topic have, at least."""
        partitions = self._client.cluster._partitions.get(topic, {}).values()
        return min((len(partition.replicas) for partition in partitions), default=0)

    async def ask_any(self, request: Any) -> Any:
        """Return the answer to a request that is for no broker in particular.

        Raises:
            aiokafka.errors.KafkaError: It cannot be reached, or does not know such a request.
        """
        async with asyncio.timeout(self._patience):
            controller = self._client.cluster.controller
            node = self._client.get_random_node() if controller is None else controller.nodeId
            return await self._send(node, request)

    # -- inside --------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        async with asyncio.timeout(self._patience):
            if not await self._unless_closed(_wait_for(self._client.force_metadata_update)):
                raise ke.NodeNotReadyError("no broker tells who leads what")
        self._is_stale = False

    def _connection(self, node: int) -> object:
        return self._client._conns.get((node, AT_ONCE))

    async def _send(self, node: int, request: Any, lane: int = AT_ONCE) -> Any:
        return await self._unless_closed(self._client.send(node, request, group=lane))

    async def _unless_closed(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for aiokafka, which would wait on or connect anew after it has been closed."""
        if self._is_closed:
            call.close()
            raise closed_error()
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._is_closed and current is not None and not current.cancelling():
                raise closed_error() from None
            raise

    async def _by_leader(
        self, partitions: Iterable[TopicPartition]
    ) -> tuple[dict[int, list[TopicPartition]], dict[TopicPartition, Exception]]:
        """Return who leads which partitions, and what is wrong with the others."""
        partitions = list(partitions)
        if self._is_stale or any(self.known_leader(each) is None for each in partitions):
            try:
                await self._refresh()
            except (ke.KafkaError, TimeoutError) as exc:
                return {}, dict.fromkeys(partitions, exc)
        by_node: dict[int, list[TopicPartition]] = {}
        failed: dict[TopicPartition, Exception] = {}
        for partition in partitions:
            node = self.known_leader(partition)
            if node is not None:
                by_node.setdefault(node, []).append(partition)
            elif self._client.cluster.partitions_for_topic(partition.topic):
                failed[partition] = _leaderless(partition)
            else:
                failed[partition] = ke.UnknownTopicOrPartitionError(partition.topic)
        return by_node, failed

    async def _offsets(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, Any]:
        return await _from_leaders(functools.partial(self._ask_offsets, when), list(partitions))

    async def _ask_offsets(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        async with asyncio.timeout(self._patience):
            by_node, failed = await self._by_leader(partitions)
            found: dict[TopicPartition, int | Exception] = {**failed}
            asked = [self._ask_node(when, node, each) for node, each in by_node.items()]
            for answer in await asyncio.gather(*asked):
                found.update(answer)
        return found

    async def _ask_node(
        self, when: int, node: int, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        if not partitions:
            return {}
        by_topic: dict[str, list[tuple[int, int]]] = {}
        for topic, number in partitions:
            by_topic.setdefault(topic, []).append((number, when))
        request = OffsetRequest(-1, _UNCOMMITTED, list(by_topic.items()))
        found: dict[TopicPartition, int | Exception] = {each: _silent() for each in partitions}
        try:
            answer = await self._send(node, request)
        except ke.KafkaError as exc:
            self._is_stale = True
            return dict.fromkeys(partitions, exc)
        for topic, told in answer.topics:
            for number, code, *rest in told:
                partition = TopicPartition(topic, number)
                if code:
                    error = error_of(code, partition)
                    if isinstance(error, _MOVED):
                        self._is_stale = True
                    found[partition] = error
                else:
                    last = rest[-1]
                    found[partition] = last[0] if isinstance(last, list) else last
                    if when == _LATEST:
                        self._trust.give(partition, self._connection(node))
        return found


def _silent() -> ke.KafkaError:
    return ke.LeaderNotAvailableError("it has not answered for every partition")


_MOVED = (
    ke.NotLeaderForPartitionError,
    ke.LeaderNotAvailableError,
    ke.UnknownTopicOrPartitionError,
    ke.KafkaStorageError,
    ke.ReplicaNotAvailableError,
)


def _leaderless(partition: TopicPartition) -> ke.KafkaError:
    where = f"{partition.topic}, partition {partition.partition}"
    return ke.LeaderNotAvailableError(f"{where} has no leader")


async def _wait_for(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()


async def _from_leaders(
    ask: Callable[[Iterable[TopicPartition]], Awaitable[dict[TopicPartition, Any]]],
    partitions: Collection[TopicPartition],
) -> dict[TopicPartition, Any]:
    """Ask leaders, and those again that turn out not to be: who leads changes all the time."""
    results = await ask(partitions)
    for pause in _MOVING_SECONDS:
        moving = [
            partition
            for partition in partitions
            if isinstance(
                results[partition], (ke.NotLeaderForPartitionError, ke.LeaderNotAvailableError)
            )
        ]
        if not moving:
            break
        await asyncio.sleep(pause)
        results |= await ask(moving)
    return results
