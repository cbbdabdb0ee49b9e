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
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import aiokafka.errors as ke
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from ._client import AT_ONCE, adapt, hang_up
from ._errors import TopicMissing
from ._fetched import Fetched, error_of
from ._settings import KafkaSettings, connection_options

_LATEST, _EARLIEST = -1, -2
_MISSING_AGAIN_SECONDS = 0.5
_UNCOMMITTED = 0
_BEHIND_SECONDS = 2.0
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
        self._behind: dict[TopicPartition, float] = {}
        self._is_stale = False
        self._loop = asyncio.get_running_loop()

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
        """Hang up. Whatever is under way fails; idempotent."""
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
            await asyncio.sleep(pause)
            await self._refresh()
            found = metadata.partitions_for_topic(topic)
        if not found:
            if topic in metadata.unauthorized_topics:
                raise ke.TopicAuthorizationFailedError(topic)
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
            raise ke.LeaderNotAvailableError(
                f"{partition.topic}, partition {partition.partition} has no leader"
            )
        return node

    def known_leader(self, partition: TopicPartition) -> int | None:
        """Return the leader by what is known now."""
        node: int | None = self._client.cluster.leader_for_partition(partition)
        return None if node == -1 else node

    def suspect(self) -> None:
        """Ask again who leads what before the next request: somebody was not the leader."""
        self._is_stale = True

    async def confirm(self, error: ke.KafkaError, topic: str) -> ke.KafkaError:
        """Return what is behind an error: an unknown topic may be gone, or be moving."""
        self._is_stale = True
        if isinstance(error, ke.UnknownTopicOrPartitionError):
            try:
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
        for each in by_topic.values():
            random.shuffle(each)  # a broker fills the answer from the front: all have their turn
        # Tansu says nothing at all with a wait of 0; without a minimum, Kafka never waits.
        request = FetchRequest(
            max(1, wait_ms), int(wait_ms > 0), max_bytes, _UNCOMMITTED, list(by_topic.items())
        )
        answer = await self._client.send(node, request, group=lane)
        found = []
        for topic, partitions in answer.topics:
            for number, code, high, *rest in partitions:
                partition = TopicPartition(topic, number)
                offset = offsets[partition]
                error = error_of(code, partition) if code else self._check(partition, offset, high)
                if isinstance(error, _MOVED):
                    self._is_stale = True
                low = max(0, rest[1]) if answer.API_VERSION >= 5 else 0
                found.append(Fetched(partition, offset, error, high, low, rest[-1] or b""))
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

        Returns:
            An answer or an error for each partition.
        """
        offsets = dict(wanted)

        async def ask(partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
            each = {partition: offsets[partition] for partition in partitions}
            return await self._fetch_from_leaders(each, partition_bytes, max_bytes)

        return await _from_leaders(ask, offsets)

    async def _fetch_from_leaders(
        self, wanted: Mapping[TopicPartition, int], partition_bytes: int, max_bytes: int
    ) -> dict[TopicPartition, Fetched | Exception]:
        results: dict[TopicPartition, Fetched | Exception] = {}
        by_node: dict[int, list[tuple[TopicPartition, int]]] = {}
        for partition, offset in wanted.items():
            try:
                node = await self.leader(partition)
            except (ke.KafkaError, TimeoutError) as exc:
                results[partition] = exc
            else:
                by_node.setdefault(node, []).append((partition, offset))

        async def ask(node: int, each: list[tuple[TopicPartition, int]]) -> None:
            try:
                answers = await self.fetch(
                    node, each, partition_bytes=partition_bytes, max_bytes=max_bytes
                )
            except ke.KafkaError as exc:
                self._is_stale = True
                results.update({partition: exc for partition, _ in each})
                return
            silent = ke.LeaderNotAvailableError("it has not answered for every partition")
            results.update({partition: silent for partition, _ in each})
            for fetched in answers:
                error = fetched.error
                if error is None:
                    results[fetched.partition] = fetched
                else:
                    topic = fetched.partition.topic
                    results[fetched.partition] = await self.confirm(error, topic)

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
            return await self._client.send(node, request)

    # -- inside --------------------------------------------------------------------------------

    def _check(self, partition: TopicPartition, offset: int, high: int) -> ke.KafkaError | None:
        """Judge an answer without an error: does the broker know what others have told us of?"""
        if high >= offset:
            if self._behind:
                self._behind.pop(partition, None)
            return None
        # A new leader needs a moment to learn how much has been replicated. After that the log is
        # shorter than it was: one kept in memory, say, by a broker that was restarted.
        now = self._loop.time()
        where = f"{partition.topic}, partition {partition.partition}"
        if now - self._behind.setdefault(partition, now) < _BEHIND_SECONDS:
            return ke.LeaderNotAvailableError(f"{where} is not known up to offset {offset} yet")
        return ke.OffsetOutOfRangeError(f"{where} ends at {high}, before offset {offset}")

    async def _refresh(self) -> None:
        async with asyncio.timeout(self._patience):
            if not await self._client.force_metadata_update():
                raise ke.NodeNotReadyError("no broker tells who leads what")
        self._is_stale = False

    async def _offsets(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, Any]:
        return await _from_leaders(functools.partial(self._ask_offsets, when), list(partitions))

    async def _ask_offsets(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        found: dict[TopicPartition, int | Exception] = {}
        by_node: dict[int, list[TopicPartition]] = {}
        async with asyncio.timeout(self._patience):
            for partition in partitions:
                try:
                    by_node.setdefault(await self.leader(partition), []).append(partition)
                except ke.KafkaError as exc:
                    found[partition] = exc
            asked = [self._ask_node(when, node, each, found) for node, each in by_node.items()]
            await asyncio.gather(*asked)
        return found

    async def _ask_node(
        self,
        when: int,
        node: int,
        partitions: list[TopicPartition],
        found: dict[TopicPartition, int | Exception],
    ) -> None:
        by_topic: dict[str, list[tuple[int, int]]] = {}
        for topic, number in partitions:
            by_topic.setdefault(topic, []).append((number, when))
        request = OffsetRequest(-1, _UNCOMMITTED, list(by_topic.items()))
        try:
            answer = await self._client.send(node, request)
        except ke.KafkaError as exc:
            found.update(dict.fromkeys(partitions, exc))
            return
        for topic, told in answer.topics:
            for number, code, *rest in told:
                partition = TopicPartition(topic, number)
                if code:
                    found[partition] = await self.confirm(error_of(code, partition), topic)
                else:
                    last = rest[-1]
                    found[partition] = last[0] if isinstance(last, list) else last


_MOVED = (
    ke.NotLeaderForPartitionError,
    ke.LeaderNotAvailableError,
    ke.UnknownTopicOrPartitionError,
    ke.KafkaStorageError,
    ke.ReplicaNotAvailableError,
)


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
