"""One long fetch to each broker, over all partitions that the process follows there.

A task per broker asks, hands on what came, and asks again. Following one more partition begins a
new fetch on the broker's other lane; the old one is left alone, and its answer ignored, until its
lane is needed. A broker that fails ends what was followed there, and nothing else: whoever waits is
told, and begins again when streamq says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from ._cluster import Cluster
from ._fetched import Fetched

_PARTITION_BYTES = 262_144
_ANSWER_BYTES = 1_048_576  # as much as is unpacked in one go, holding up everything else
_LANES = (1, 2)
_HASTY_SHARE = 0.25


class Sink(Protocol):
    """Takes the records of one partition."""

    def take(self, fetched: Fetched) -> int:
        """Take what came; return the offset to go on from."""
        ...

    def anew(self) -> None:
        """Learn that the log is another one now; :meth:`lost` comes next, if it has not come."""
        ...

    def lost(self, error: Exception | None) -> None:
        """Learn that nothing more will come, and why; ``None`` means: find your place again."""
        ...

    def is_wanted(self, now: float) -> bool:
        """Whether to go on."""
        ...


@dataclass(slots=True)
class _Followed:
    node: int
    offset: int
    sink: Sink


@dataclass(slots=True, eq=False)
class _Poll:
    node: int
    lane: int
    task: asyncio.Task[None] | None = field(default=None)


class Tail:
    """Follows partitions at their end.

    Args:
        cluster: Where they are.
        wait_ms: How long a broker holds a fetch.
    """

    def __init__(self, cluster: Cluster, wait_ms: int) -> None:
        self._cluster = cluster
        self._wait_ms = wait_ms
        self._followed: dict[TopicPartition, _Followed] = {}
        self._polls: dict[int, _Poll] = {}
        self._left: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._confirming: dict[asyncio.Task[None], list[Sink]] = {}
        self._due: set[int] = set()
        self._closed: Exception | None = None
        self._loop = asyncio.get_running_loop()

    def offset(self, partition: TopicPartition) -> int | None:
        """Return up to where a partition has been read; ``None`` if it is not followed."""
        followed = self._followed.get(partition)
        return None if followed is None else followed.offset

    def follow(self, partition: TopicPartition, node: int, offset: int, sink: Sink) -> None:
        """Follow a partition from an offset that is not beyond its end.

        Args:
            partition: Which one; not followed yet.
            node: Its leader.
            offset: Where to begin.
            sink: Who takes the records.
        """
        if self._closed is not None:
            raise self._closed
        self._followed[partition] = _Followed(node, offset, sink)
        # Many begin in the same turn of the loop: one fetch for all of them.
        if node not in self._due:
            self._due.add(node)
            self._loop.call_soon(self._poll_anew, node)

    def leave(self, partition: TopicPartition) -> None:
        """Stop following a partition; its sink is told."""
        self._lose(partition, None)

    async def close(self, reason: Exception) -> None:
        """End everything; whoever waits fails with ``reason``."""
        self._closed = reason
        tasks = [poll.task for poll in self._polls.values() if poll.task is not None]
        tasks += [*self._left.values(), *self._confirming]
        self._polls.clear()
        for partition in tuple(self._followed):
            self._lose(partition, reason)
        for sinks in self._confirming.values():
            _tell(sinks, reason)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- inside --------------------------------------------------------------------------------

    def _poll_anew(self, node: int) -> None:
        self._due.discard(node)
        if self._closed is not None:
            return
        lane = _LANES[0]
        old = self._polls.get(node)
        if old is not None and old.task is not None:
            lane = _LANES[1] if old.lane == _LANES[0] else _LANES[0]
            self._left[node, old.lane] = old.task
        left = self._left.pop((node, lane), None)
        if left is not None and not left.done():
            left.cancel()
            self._cluster.hang_up(node, lane)
        poll = self._polls[node] = _Poll(node, lane)
        poll.task = self._loop.create_task(self._run(poll))

    def _is_current(self, poll: _Poll) -> bool:
        return self._polls.get(poll.node) is poll

    async def _run(self, poll: _Poll) -> None:
        node = poll.node
        try:
            while self._is_current(poll):
                wanted = [
                    (partition, followed.offset)
                    for partition, followed in self._followed.items()
                    if followed.node == node
                ]
                if not wanted:
                    del self._polls[node]
                    return
                asked = self._loop.time()
                answers = await self._cluster.fetch(
                    node,
                    wanted,
                    lane=poll.lane,
                    wait_ms=self._wait_ms,
                    partition_bytes=_PARTITION_BYTES,
                    max_bytes=_ANSWER_BYTES,
                )
                if not self._is_current(poll):
                    return
                is_empty = self._hand_on(answers)
                now = self._loop.time()
                self._drop_unwanted(node, now)
                wait = self._wait_ms / 1000
                if is_empty and now - asked < _HASTY_SHARE * wait:
                    # A broker that does not wait must not be asked without a pause.
                    await asyncio.sleep(_HASTY_SHARE * wait)
        except Exception as exc:  # noqa: BLE001 - whatever it is, no reader may wait on in silence
            if self._is_current(poll):
                del self._polls[node]
                self._cluster.suspect()
                for partition, followed in tuple(self._followed.items()):
                    if followed.node == node:
                        self._lose(partition, exc)

    def _hand_on(self, answers: list[Fetched]) -> bool:
        is_empty = True
        unknown: dict[str, list[Sink]] = {}
        for fetched in answers:
            partition = fetched.partition
            followed = self._followed.get(partition)
            if followed is None or followed.offset != fetched.offset:
                continue
            if fetched.error is not None:
                if isinstance(fetched.error, ke.OffsetOutOfRangeError):
                    followed.sink.anew()
                    self._lose(partition, None)
                elif isinstance(fetched.error, ke.UnknownTopicOrPartitionError):
                    # Why, takes a moment to find out: the other partitions go on meanwhile.
                    del self._followed[partition]
                    unknown.setdefault(partition.topic, []).append(followed.sink)
                else:
                    self._cluster.suspect()
                    self._lose(partition, fetched.error)
            elif fetched.data:
                is_empty = False
                try:
                    followed.offset = followed.sink.take(fetched)
                except Exception as exc:  # noqa: BLE001 - one bad partition, not all of them
                    self._lose(partition, exc)
        for topic, sinks in unknown.items():
            task = self._loop.create_task(self._confirm_unknown(topic, sinks))
            self._confirming[task] = sinks
            task.add_done_callback(self._confirming.pop)
        return is_empty

    async def _confirm_unknown(self, topic: str, sinks: list[Sink]) -> None:
        error: Exception
        try:
            error = await self._cluster.confirm(ke.UnknownTopicOrPartitionError(topic), topic)
        except Exception as exc:  # noqa: BLE001 - as for a fetch that fails
            error = exc
        _tell(sinks, error)

    def _drop_unwanted(self, node: int, now: float) -> None:
        for partition, followed in tuple(self._followed.items()):
            if followed.node == node and not followed.sink.is_wanted(now):
                self._lose(partition, None)

    def _lose(self, partition: TopicPartition, error: Exception | None) -> None:
        followed = self._followed.pop(partition, None)
        if followed is not None:
            followed.sink.lost(error)


def _tell(sinks: list[Sink], error: Exception) -> None:
    while sinks:  # each once, whoever comes first
        sinks.pop().lost(error)
