"""Keeps the newest encoded events of a stream, within a byte bound, addressed by offset."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ._frames import Frame

_SLICE_BYTES = 65_536


class Ring:
    """Holds frames in order and drops the oldest when they exceed ``max_bytes``.

    Args:
        max_bytes: Bound; one frame is always kept, however large.
        offset: Offset of the event before the first one that will be added.
    """

    def __init__(self, max_bytes: int, offset: int = 0) -> None:
        self.offset = offset
        """Offset of the newest event."""
        self.size_bytes = 0
        """Bytes held."""
        self._max_bytes = max_bytes
        self._frames: list[Frame] = []
        self._shared: tuple[tuple[int, int], bytes] | None = None

    def extend(self, frames: Sequence[Frame]) -> None:
        """Add the frames that follow."""
        if not frames:
            return
        self._frames += frames
        self.offset = frames[-1].offset
        self.size_bytes += sum(len(frame.data) for frame in frames)
        drop = 0
        while self.size_bytes > self._max_bytes and drop < len(self._frames) - 1:
            self.size_bytes -= len(self._frames[drop].data)
            drop += 1
        del self._frames[:drop]

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
