"""Follows partitions with one long fetch to each broker, over all partitions followed there.

A task for each broker fetches, delivers what came, and fetches again. Each broker has two
connections for long fetches, called lanes. A fetch cannot be changed once it is sent. To follow one
more partition, a new fetch over all partitions begins on the other lane. The old fetch is left to
end by itself and its answer is ignored; it is cancelled only if its lane is needed before that. If
a broker fails, only its partitions are no longer followed. Their readers get the error, and follow
again when streamq retries.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._connections import LONG_FETCH_LANES
from streamq_kafka.requests._fetched import Fetched

_PARTITION_BYTES = 262_144
_ANSWER_BYTES = 1_048_576  # the most that is unpacked at once, since that blocks everything else
_PROMPT_SHARE = 0.25


class Sink(Protocol):
    """Receives the records of one partition."""

    def take(self, fetched: Fetched) -> int:
        """Take the records; return the offset to continue from."""
        ...

    def log_replaced(self) -> None:
        """Note that the partition has a new log; :meth:`stopped` follows, unless it has come."""
        ...

    def stopped(self, error: Exception | None) -> None:
        """Note that no more records will come. Without an error, readers have to look again."""
        ...

    def is_wanted(self, now: float) -> bool:
        """Whether to continue."""
        ...


@dataclass(slots=True)
class _FollowedPartition:
    node: int
    offset: int
    sink: Sink


@dataclass(slots=True, eq=False)
class _LongFetch:
    node: int
    lane: int
    task: asyncio.Task[None] | None = field(default=None)


class LiveTail:
    """Follows partitions at their end, for all readers of the process.

    Args:
        cluster: The cluster of the partitions.
        wait_ms: How long a broker holds a fetch.
    """

    def __init__(self, cluster: Cluster, wait_ms: int) -> None:
        self._cluster = cluster
        self._wait_ms = wait_ms
        self._followed: dict[TopicPartition, _FollowedPartition] = {}
        self._fetches: dict[int, _LongFetch] = {}
        self._abandoned: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._explaining: dict[asyncio.Task[None], list[Sink]] = {}
        self._due: set[int] = set()
        self._closed: Exception | None = None
        self._loop = asyncio.get_running_loop()

    def offset(self, partition: TopicPartition) -> int | None:
        """Return how far a partition has been read; ``None`` if it is not followed."""
        followed = self._followed.get(partition)
        return None if followed is None else followed.offset

    def follow(self, partition: TopicPartition, node: int, offset: int, sink: Sink) -> None:
        """Follow a partition from an offset that is not beyond its end.

        Args:
            partition: The partition; not followed yet.
            node: Its leader.
            offset: The offset to begin at.
            sink: Receives the records.
        """
        if self._closed is not None:
            raise self._closed
        self._followed[partition] = _FollowedPartition(node, offset, sink)
        # Many partitions are added in the same turn of the loop: one fetch for all of them.
        if node not in self._due:
            self._due.add(node)
            self._loop.call_soon(self._restart_fetch, node)

    def leave(self, partition: TopicPartition) -> None:
        """Stop following a partition; its sink is notified."""
        self._stop(partition, None)

    async def close(self, reason: Exception) -> None:
        """End everything; calls that wait fail with ``reason``."""
        self._closed = reason
        tasks = [fetch.task for fetch in self._fetches.values() if fetch.task is not None]
        tasks += [*self._abandoned.values(), *self._explaining]
        self._fetches.clear()
        for partition in tuple(self._followed):
            self._stop(partition, reason)
        for sinks in self._explaining.values():
            _stop_all(sinks, reason)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- inside --------------------------------------------------------------------------------

    def _restart_fetch(self, node: int) -> None:
        self._due.discard(node)
        if self._closed is not None:
            return
        lane = LONG_FETCH_LANES[0]
        old = self._fetches.get(node)
        if old is not None and old.task is not None:
            lane = LONG_FETCH_LANES[1] if old.lane == LONG_FETCH_LANES[0] else LONG_FETCH_LANES[0]
            self._abandoned[node, old.lane] = old.task
        abandoned = self._abandoned.pop((node, lane), None)
        if abandoned is not None and not abandoned.done():
            abandoned.cancel()
            self._cluster.connections.hang_up(node, lane)
        fetch = self._fetches[node] = _LongFetch(node, lane)
        fetch.task = self._loop.create_task(self._run(fetch))

    def _is_current(self, fetch: _LongFetch) -> bool:
        return self._fetches.get(fetch.node) is fetch

    async def _run(self, fetch: _LongFetch) -> None:
        node = fetch.node
        try:
            while self._is_current(fetch):
                wanted = [
                    (partition, followed.offset)
                    for partition, followed in self._followed.items()
                    if followed.node == node
                ]
                if not wanted:
                    del self._fetches[node]
                    return
                asked = self._loop.time()
                answers = await self._cluster.fetch(
                    node,
                    wanted,
                    lane=fetch.lane,
                    wait_ms=self._wait_ms,
                    partition_bytes=_PARTITION_BYTES,
                    max_bytes=_ANSWER_BYTES,
                )
                if not self._is_current(fetch):
                    return
                is_empty = self._deliver(answers)
                now = self._loop.time()
                self._drop_unwanted(node, now)
                wait = self._wait_ms / 1000
                if is_empty and now - asked < _PROMPT_SHARE * wait:
                    # A broker that does not wait must not be asked again without a pause.
                    await asyncio.sleep(_PROMPT_SHARE * wait)
        except Exception as exc:  # noqa: BLE001 - no reader may wait for ever, whatever was raised
            if self._is_current(fetch):
                del self._fetches[node]
                self._cluster.metadata.invalidate()
                for partition, followed in tuple(self._followed.items()):
                    if followed.node == node:
                        self._stop(partition, exc)

    def _deliver(self, answers: list[Fetched]) -> bool:
        is_empty = True
        unknown: dict[str, list[Sink]] = {}
        for fetched in answers:
            partition = fetched.partition
            followed = self._followed.get(partition)
            if followed is None or followed.offset != fetched.offset:
                continue
            if fetched.error is not None:
                if isinstance(fetched.error, ke.OffsetOutOfRangeError):
                    followed.sink.log_replaced()
                    self._stop(partition, None)
                elif isinstance(fetched.error, ke.UnknownTopicOrPartitionError):
                    # Finding the cause takes a moment; the other partitions continue meanwhile.
                    del self._followed[partition]
                    unknown.setdefault(partition.topic, []).append(followed.sink)
                else:
                    self._cluster.metadata.invalidate()
                    self._stop(partition, fetched.error)
            elif fetched.data:
                is_empty = False
                try:
                    followed.offset = followed.sink.take(fetched)
                except Exception as exc:  # noqa: BLE001 - one bad partition must not stop the others
                    self._stop(partition, exc)
        for topic, sinks in unknown.items():
            task = self._loop.create_task(self._explain_unknown(topic, sinks))
            self._explaining[task] = sinks
            task.add_done_callback(self._explaining.pop)
        return is_empty

    async def _explain_unknown(self, topic: str, sinks: list[Sink]) -> None:
        error: Exception
        try:
            error = await self._cluster.metadata.explain(
                ke.UnknownTopicOrPartitionError(topic), topic
            )
        except Exception as exc:  # noqa: BLE001 - as for a fetch that fails
            error = exc
        _stop_all(sinks, error)

    def _drop_unwanted(self, node: int, now: float) -> None:
        for partition, followed in tuple(self._followed.items()):
            if followed.node == node and not followed.sink.is_wanted(now):
                self._stop(partition, None)

    def _stop(self, partition: TopicPartition, error: Exception | None) -> None:
        followed = self._followed.pop(partition, None)
        if followed is not None:
            followed.sink.stopped(error)


def _stop_all(sinks: list[Sink], error: Exception) -> None:
    while sinks:  # each sink once, whichever caller comes first
        sinks.pop().stopped(error)
