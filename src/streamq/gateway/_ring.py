"""Keeps the newest encoded events of a stream, within a byte bound, addressed by offset.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ._frames import Frame

_SLICE_BYTES = 65_536

_FRAME_COST = 200
"""Bytes that a frame takes in memory beside its data, for the bound of all rings."""


class RingBudget:
    """Bounds the memory of all rings together.

    When they exceed it, each of them shrinks to an equal part.

    Args:
        max_bytes: Bound of the data and the objects around it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.used = 0
        """Bytes that the rings take."""
        self._max_bytes = max_bytes
        self._rings: set[Ring] = set()

    def add(self, ring: Ring) -> None:
        """Count a ring, which is empty."""
        self._rings.add(ring)

    def remove(self, ring: Ring) -> None:
        """Count a ring no longer. Idempotent."""
        if ring in self._rings:
            self._rings.remove(ring)
            self.used -= ring.cost_bytes

    def change(self, ring: Ring, by: int) -> None:
        """Note that a ring has grown or shrunk."""
        if ring in self._rings:
            self.used += by

    def settle(self, newest: Ring) -> None:
        """Make room if the bound is exceeded, first in the ring that has grown."""
        if self.used <= self._max_bytes:
            return
        part = self._max_bytes // max(len(self._rings), 1)
        newest.shrink(part)
        if self.used > self._max_bytes:  # there are more rings than when the others were filled
            for ring in self._rings:
                ring.shrink(part)


class Ring:
    """Holds frames in order and drops the oldest when they exceed ``max_bytes``.

    Args:
        max_bytes: Bound; one frame is always kept, however large, unless the budget is exceeded.
        offset: Offset of the event before the first one that will be added.
        budget: Counts the memory of all rings, once the ring was added to it.
    """

    def __init__(self, max_bytes: int, offset: int = 0, budget: RingBudget | None = None) -> None:
        self.offset = offset
        """Offset of the newest event."""
        self.size_bytes = 0
        """Bytes of data held."""
        self._max_bytes = max_bytes
        self._budget = budget
        self._frames: list[Frame] = []
        self._shared: tuple[tuple[int, int], bytes] | None = None

    @property
    def cost_bytes(self) -> int:
        """Bytes of memory, about."""
        return self.size_bytes + _FRAME_COST * len(self._frames)

    def extend(self, frames: Sequence[Frame]) -> None:
        """Add the frames that follow."""
        if not frames:
            return
        before = self.cost_bytes
        self._frames += frames
        self.offset = frames[-1].offset
        self.size_bytes += sum(len(frame.data) for frame in frames)
        drop = 0
        while self.size_bytes > self._max_bytes and drop < len(self._frames) - 1:
            self.size_bytes -= len(self._frames[drop].data)
            drop += 1
        del self._frames[:drop]
        if self._budget is not None:
            self._budget.change(self, self.cost_bytes - before)
            self._budget.settle(self)

    def shrink(self, max_cost: int) -> None:
        """Drop the oldest frames until the memory is at most ``max_cost``, even all of them."""
        before = cost = self.cost_bytes
        drop = 0
        while cost > max_cost and drop < len(self._frames):
            cost -= len(self._frames[drop].data) + _FRAME_COST
            self.size_bytes -= len(self._frames[drop].data)
            drop += 1
        del self._frames[:drop]
        self._shared = None
        if self._budget is not None:
            self._budget.change(self, self.cost_bytes - before)

    def after(self, offset: int) -> tuple[bytes, int] | None:
        """Return the bytes that follow an event, and the offset of their last event.

        Returns:
            Whole frames of about 64 KiB, at least one; equal requests get the same object. ``b""``
            if there is nothing newer. ``None`` if the next event has been dropped, or the offset
            is inside a gap.
        """
        if offset >= self.offset:
            return b"", offset
        frames = self._frames
        start = bisect_right(frames, offset, key=lambda frame: frame.offset)
        if start == len(frames) or frames[start].first != offset + 1:
            return None
        end, size = start + 1, len(frames[start].data)
        while end < len(frames) and size + len(frames[end].data) <= _SLICE_BYTES:
            size += len(frames[end].data)
            end += 1
        if end == start + 1:
            return frames[start].data, frames[start].offset
        # Clients that keep up request the same slice, so it is joined once.
        key = (offset, frames[end - 1].offset)
        if self._shared is None or self._shared[0] != key:
            self._shared = key, b"".join(frame.data for frame in frames[start:end])
        return self._shared[1], key[1]
