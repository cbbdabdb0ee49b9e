"""Divides the new records of a partition among the streams that are followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from aiokafka.structs import TopicPartition

from streamq.driver import Stored, Tap, TapBudget
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._end_offsets import EndOffsets
from streamq_kafka.requests._fetched import Fetched

from ._live_tail import LiveTail

_LINGER_SECONDS = 3.0
_SWEEP_SECONDS = 1.0

StreamTap: TypeAlias = Tap[int, Stored]
"""The newest records of a stream. A place in it is the offset of the next record to read."""


class PartitionTaps:
    """The taps of the streams in one partition, filled by the live tail.

    Args:
        partition: The partition.
        cluster: The cluster of the partition.
        ends: The ends of all partitions.
        live_tail: Follows the partition while readers wait.
        budget: The memory for the taps of all partitions.
        tail_bytes: The most bytes in one tap.
        on_log_replaced: Called when the partition turns out to have a new log.
    """

    def __init__(
        self,
        partition: TopicPartition,
        cluster: Cluster,
        ends: EndOffsets,
        live_tail: LiveTail,
        budget: TapBudget,
        tail_bytes: int,
        on_log_replaced: Callable[[], None],
    ) -> None:
        self._partition = partition
        self._cluster = cluster
        self._ends = ends
        self._live_tail = live_tail
        self._budget = budget
        self._tail_bytes = tail_bytes
        self._on_log_replaced = on_log_replaced
        self._taps: dict[bytes, StreamTap] = {}
        self._next_sweep = 0.0
        self._loop = asyncio.get_running_loop()

    # -- for readers ---------------------------------------------------------------------------

    def get(self, key: bytes) -> StreamTap | None:
        """Return the tap of a stream; ``None`` if it is not followed."""
        return self._taps.get(key)

    def at_end(self, key: bytes, offset: int) -> StreamTap | None:
        """Return the tap of a stream, if a reader at this offset can wait there."""
        tap = self._taps.get(key)
        if tap is None or not tap.is_at_end(offset):
            return None
        # An offset beyond the live tail is ahead of it or of an earlier log; that needs a request.
        end = self._live_tail.offset(self._partition)
        return tap if end is not None and offset <= end else None

    async def attach(self, key: bytes) -> StreamTap:
        """Follow a stream: its tap gets every record that is appended after this call."""
        while True:
            tap = self._taps.get(key)
            if tap is not None:
                tap.used = self._loop.time()
                return tap
            floor = self._live_tail.offset(self._partition)
            if floor is not None:
                tap = self._taps[key] = Tap(
                    floor, max_bytes=self._tail_bytes, budget=self._budget, now=self._loop.time()
                )
                return tap
            node = await self._cluster.metadata.leader(self._partition)
            end = await self._ends.get(self._partition)
            if self._live_tail.offset(self._partition) is None:
                self._live_tail.follow(self._partition, node, end, self)

    def detach(self, key: bytes) -> None:
        """Stop following a stream; its readers look up its position again."""
        tap = self._taps.pop(key, None)
        if tap is not None:
            tap.retire()

    def leave(self) -> None:
        """Stop following the partition; its readers look up their positions again."""
        self._live_tail.leave(self._partition)

    # -- for the live tail ---------------------------------------------------------------------

    def take(self, fetched: Fetched) -> int:
        """Add the records to the taps of their streams; return the offset to continue from."""
        records, following = fetched.unpack()
        taps = self._taps
        number = self._partition.partition
        touched: dict[bytes, StreamTap] = {}
        for record in records:
            key = record.key
            tap = taps.get(key)
            if tap is not None:
                value = record.value
                if value is not None:
                    place = record.offset + 1
                    tap.push(place, Stored(f"{number}-{place}", value))
                    touched[key] = tap
        for tap in touched.values():
            tap.wake()
        return following

    def log_replaced(self) -> None:
        """Note that the partition has a new log."""
        self._on_log_replaced()

    def stopped(self, error: Exception | None) -> None:
        """End all taps: the partition is no longer followed."""
        taps, self._taps = self._taps, {}
        for tap in taps.values():
            tap.retire(error)

    def is_wanted(self, now: float) -> bool:
        """Whether any stream is followed; drops taps that were not used for some seconds."""
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_SECONDS
            idle = [key for key, tap in self._taps.items() if tap.is_idle(now, _LINGER_SECONDS)]
            for key in idle:
                self._taps.pop(key).retire()
        return bool(self._taps)
