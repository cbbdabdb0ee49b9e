"""Reads from the brokers of a cluster: fetches records and lists offsets.

aiokafka connects, logs in, encodes requests, decodes answers, and knows the leaders. Its consumer
is not used: it has one long fetch under way to each broker, and every other read from that broker
waits for it. Here a fetch is a request like any other.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import aiokafka.errors as ke
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from streamq_kafka._naming import partition_label
from streamq_kafka._settings import KafkaSettings

from ._client import REQUEST_LANE
from ._connections import Connections
from ._error_codes import error_of
from ._fetch_waits import FetchWaits
from ._fetched import Fetched
from ._leader_checks import LeaderChecks
from ._metadata import Metadata
from ._topic_ids import FetchByIdRequest

_LATEST, _EARLIEST = -1, -2
_UNCOMMITTED = 0
_MOVING_SECONDS = (0.0, 0.05, 0.2)
_LEADER_CHANGED = (
    ke.NotLeaderForPartitionError,
    ke.LeaderNotAvailableError,
    ke.UnknownTopicOrPartitionError,
    ke.KafkaStorageError,
    ke.ReplicaNotAvailableError,
)


class Cluster:
    """A cluster to read from.

    Args:
        settings: How to reach it.

    Attributes:
        connections: The connections to its brokers.
        metadata: Its topics, leaders and brokers.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._timeout_seconds = settings.operation_timeout_seconds
        self._clock = asyncio.get_running_loop().time
        self.connections = Connections(settings)
        self.metadata = Metadata(self.connections, self._timeout_seconds)
        self._leader_checks = LeaderChecks(self._clock)
        self._fetch_waits = FetchWaits(self._timeout_seconds)

    async def start(self) -> None:
        """Connect to any broker; see :meth:`Connections.open`."""
        await self.connections.open()

    async def close(self) -> None:
        """Close all connections; see :meth:`Connections.close`."""
        await self.connections.close()

    # -- fetches -------------------------------------------------------------------------------

    async def fetch(
        self,
        node: int,
        wanted: Iterable[tuple[TopicPartition, int]],
        *,
        lane: int = REQUEST_LANE,
        wait_ms: int = 0,
        partition_bytes: int,
        max_bytes: int,
        ids: Mapping[str, bytes] | None = None,
    ) -> list[Fetched]:
        """Fetch records from one broker.

        Args:
            node: The broker.
            wanted: Partitions, each with the offset to read from.
            lane: The connection to use.
            wait_ms: How long the broker may wait for records; 0 to answer at once.
            partition_bytes: Most bytes of each partition, but always one batch.
            max_bytes: Most bytes of all.
            ids: The ids of the topics that the offsets are of; by default the present ones.

        Raises:
            aiokafka.errors.KafkaError: The broker cannot be reached, or did not answer in time.
        """
        offsets = dict(wanted)
        by_topic: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, number), offset in offsets.items():
            by_topic.setdefault(topic, []).append((number, offset, partition_bytes))
        topics = list(by_topic.items())
        # A broker fills the answer from the front; a random order gives every topic its turn.
        random.shuffle(topics)
        for _, each in topics:
            random.shuffle(each)
        # Without a minimum of bytes, Kafka never waits.
        asked_ms = max(self._fetch_waits.wait_ms(offsets), wait_ms)
        plain = FetchRequest(asked_ms, int(wait_ms > 0), max_bytes, _UNCOMMITTED, topics)
        request = FetchByIdRequest(plain, ids or self.topic_ids())
        asked_at = self._clock()
        answer = await self.connections.send(node, request, lane)
        seconds = self._clock() - asked_at
        found = []
        for topic, (number, code, high_watermark, *rest) in request.partitions_of(answer):
            partition = TopicPartition(topic, number)
            offset = offsets[partition]
            error = (
                error_of(code, partition)
                if code
                else self._leader_checks.check(partition, offset, high_watermark)
            )
            if error is not None:
                self._leader_checks.revoke(partition)
            if isinstance(error, _LEADER_CHANGED):
                self.metadata.invalidate()
            log_start = max(0, rest[1]) if answer.API_VERSION >= 5 else 0
            data = rest[-1] or b""
            found.append(Fetched(partition, offset, error, high_watermark, log_start, data))
        self._fetch_waits.learn(found, asked_ms, seconds, partition_bytes)
        return found

    async def fetch_now(self, partition: TopicPartition, offset: int, *, max_bytes: int) -> Fetched:
        """Fetch what one partition has at an offset, without waiting for more.

        Raises:
            aiokafka.errors.KafkaError: The broker cannot be reached, or returned an error.
        """
        async with asyncio.timeout(self._timeout_seconds):
            answers = await self.fetch_from_leaders(
                [(partition, offset)], partition_bytes=max_bytes, max_bytes=max_bytes
            )
        answer = answers[partition]
        if isinstance(answer, ke.KafkaError):
            raise await self.metadata.explain(answer, partition.topic)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def fetch_from_leaders(
        self,
        wanted: Iterable[tuple[TopicPartition, int]],
        *,
        partition_bytes: int,
        max_bytes: int,
    ) -> dict[TopicPartition, Fetched | Exception]:
        """Fetch from the leader of each partition, without waiting for more; see :meth:`fetch`.

        The answers include everything that was acknowledged before the call, also what an earlier
        leader acknowledged.

        Returns:
            An answer or an error for each partition; :meth:`Metadata.explain` finds the cause of
            some errors.
        """
        offsets, ids = dict(wanted), dict(self.topic_ids())

        async def ask(partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
            each = {partition: offsets[partition] for partition in partitions}
            found = await self._fetch_from_leaders(each, partition_bytes, max_bytes, ids)
            present = self.topic_ids()
            for partition in each:
                before, now = (known.get(partition.topic) for known in (ids, present))
                if before is not None and before != now:
                    # The offset is of the topic of that name that was deleted.
                    label = f"{partition_label(partition)} was created anew"
                    found[partition] = ke.OffsetOutOfRangeError(label)
            return found

        return await _from_leaders(ask, offsets)

    async def _fetch_from_leaders(
        self,
        wanted: Mapping[TopicPartition, int],
        partition_bytes: int,
        max_bytes: int,
        ids: Mapping[str, bytes],
    ) -> dict[TopicPartition, Fetched | Exception]:
        by_node, failed = await self.metadata.by_leader(wanted)
        results: dict[TopicPartition, Fetched | Exception] = {**failed}
        checks, current = self._leader_checks, self.connections.current

        async def ask(node: int, partitions: list[TopicPartition]) -> None:
            connection = current(node)
            unverified = [each for each in partitions if not checks.is_verified(each, connection)]
            offsets = await self._list_offsets_of_node(_LATEST, node, unverified)
            errors = {
                partition: found
                for partition, found in offsets.items()
                if isinstance(found, Exception)
            }
            results.update(errors)
            asked = [(each, wanted[each]) for each in partitions if each not in errors]
            if not asked:
                return
            try:
                answers = await self.fetch(
                    node, asked, partition_bytes=partition_bytes, max_bytes=max_bytes, ids=ids
                )
            except ke.KafkaError as exc:
                self.metadata.invalidate()
                for partition, _ in asked:
                    checks.revoke(partition)
                    results[partition] = exc
                return
            results.update({partition: _unanswered() for partition, _ in asked})
            for fetched in answers:
                partition = fetched.partition
                if fetched.error is not None:
                    results[partition] = fetched.error
                elif checks.is_verified(partition, current(node)):
                    results[partition] = fetched  # otherwise the broker was restarted meanwhile

        await asyncio.gather(*(ask(node, each) for node, each in by_node.items()))
        return results

    def topic_ids(self) -> Mapping[str, bytes]:
        """Return the id of each topic, from brokers that have ids."""
        return self.connections.brokers.topic_ids

    # -- offsets -------------------------------------------------------------------------------

    async def end_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | Exception]:
        """Return the end of each partition, or an offset shortly before it; or an error."""
        return await self._list_offsets(_LATEST, partitions)

    async def beginning_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | Exception]:
        """Return the offset of the oldest record that each partition still has; or an error."""
        return await self._list_offsets(_EARLIEST, partitions)

    async def _list_offsets(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, Any]:
        ask = functools.partial(self._list_offsets_of_leaders, when)
        return await _from_leaders(ask, list(partitions))

    async def _list_offsets_of_leaders(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        async with asyncio.timeout(self._timeout_seconds):
            by_node, failed = await self.metadata.by_leader(partitions)
            found: dict[TopicPartition, int | Exception] = {**failed}
            asked = [self._list_offsets_of_node(when, node, each) for node, each in by_node.items()]
            for answer in await asyncio.gather(*asked):
                found.update(answer)
        return found

    async def _list_offsets_of_node(
        self, when: int, node: int, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        if not partitions:
            return {}
        by_topic: dict[str, list[tuple[int, int]]] = {}
        for topic, number in partitions:
            by_topic.setdefault(topic, []).append((number, when))
        request = OffsetRequest(-1, _UNCOMMITTED, list(by_topic.items()))
        found: dict[TopicPartition, int | Exception] = {each: _unanswered() for each in partitions}
        try:
            answer = await self.connections.send(node, request)
        except ke.KafkaError as exc:
            self.metadata.invalidate()
            return dict.fromkeys(partitions, exc)
        for topic, answers in answer.topics:
            for number, code, *rest in answers:
                partition = TopicPartition(topic, number)
                if code:
                    error = error_of(code, partition)
                    if isinstance(error, _LEADER_CHANGED):
                        self.metadata.invalidate()
                    found[partition] = error
                else:
                    last = rest[-1]
                    found[partition] = last[0] if isinstance(last, list) else last
                    if when == _LATEST:
                        connection = self.connections.current(node)
                        self._leader_checks.mark_verified(partition, connection)
        return found

    # -- administration ------------------------------------------------------------------------

    async def ask_controller(self, request: Any) -> Any:
        """Return the answer to a request that concerns the whole cluster.

        Raises:
            aiokafka.errors.KafkaError: No broker can be reached, or it does not know the request.
        """
        async with asyncio.timeout(self._timeout_seconds):
            try:
                return await self.connections.send(self.metadata.controller(), request)
            except (ke.KafkaConnectionError, ke.NodeNotReadyError) as exc:
                error = exc
            await self.metadata.refresh()  # it may be another broker, or have moved
            for node in self.metadata.controller_and_others():
                try:
                    return await self.connections.send(node, request)
                except (ke.KafkaConnectionError, ke.NodeNotReadyError) as exc:
                    error = exc
            raise error


def _unanswered() -> ke.KafkaError:
    return ke.LeaderNotAvailableError("the broker did not answer for every partition")


async def _from_leaders(
    ask: Callable[[Iterable[TopicPartition]], Awaitable[dict[TopicPartition, Any]]],
    partitions: Collection[TopicPartition],
) -> dict[TopicPartition, Any]:
    """Ask the leaders, and ask again for partitions whose leader has changed."""
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
