"""Keeps encoded pages of streams, for all clients that catch up, within a byte bound.

A page has the events of one read from the backend. It is addressed by the place where the read
began, so that clients which have read the same page before it share the next one.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from streamq._events import Gap

from ._frames import Frame, clip, encode_event
from ._places import Epochs

_SLICE_BYTES = 65_536
_FRAME_COST = 80
_PAGE_COST = 600
_MAX_PLACES = 128


@dataclass(frozen=True, slots=True, order=True)
class ReadPlace:
    """Where a read of the log can begin.

    Attributes:
        offset: Offset of the last event before it.
        cursor: The cursor of a reader there, or ``"beginning"``.
    """

    offset: int
    cursor: str


START_PLACE = ReadPlace(0, "beginning")


class EventPage:
    """The encoded events after a place, in order.

    Args:
        frames: The events, at least one.
        gaps: The events among them that are gaps, by their last offset.
        end: The place after them.
        is_end: Whether the last one is the seal.
    """

    __slots__ = ("_data", "_ends", "_gaps", "_offsets", "end", "epochs", "is_end", "last")

    def __init__(
        self, frames: list[Frame], gaps: dict[int, Gap], end: ReadPlace, *, is_end: bool
    ) -> None:
        self.last = frames[-1].offset
        self.end = end
        self.is_end = is_end
        self.epochs = Epochs()
        self.epochs.extend(frames)
        self._data = b"".join(frame.data for frame in frames)
        self._offsets = [frame.offset for frame in frames]
        self._ends: list[int] = []
        self._gaps = gaps
        size = 0
        for frame in frames:
            size += len(frame.data)
            self._ends.append(size)

    @property
    def cost_bytes(self) -> int:
        """Bytes of memory, about."""
        return _PAGE_COST + len(self._data) + _FRAME_COST * len(self._offsets)

    def after(self, offset: int) -> tuple[bytes, int]:
        """Return the bytes that follow an event before the last one, and their last offset.

        Returns:
            Whole frames of about 64 KiB, at least one.
        """
        at = bisect_right(self._offsets, offset)
        gap = self._gaps.get(self._offsets[at])
        if gap is not None and gap.first <= offset:
            rest = clip(gap, offset)
            assert rest is not None
            return encode_event(rest).data, gap.offset
        start = self._ends[at - 1] if at else 0
        stop = max(bisect_right(self._ends, start + _SLICE_BYTES), at + 1)
        return self._data[start : self._ends[stop - 1]], self._offsets[stop - 1]


class EventPageCache:
    """Keeps the pages that were used last.

    Args:
        max_bytes: Bound of all pages; the newest one is always kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size_bytes = 0
        """Bytes that the pages take."""
        self._max_bytes = max_bytes
        self._pages: OrderedDict[tuple[Hashable, int], EventPage] = OrderedDict()
        self._offsets: dict[Hashable, set[int]] = {}

    def get(self, owner: Hashable, offset: int) -> EventPage | None:
        """Return the page of an owner that begins after ``offset``."""
        page = self._pages.get((owner, offset))
        if page is not None:
            self._pages.move_to_end((owner, offset))
        return page

    def put(self, owner: Hashable, offset: int, page: EventPage) -> None:
        """Keep a page, and drop those that were not used for longest."""
        self._drop((owner, offset))
        self._pages[owner, offset] = page
        self._offsets.setdefault(owner, set()).add(offset)
        self.size_bytes += page.cost_bytes
        while self.size_bytes > self._max_bytes and len(self._pages) > 1:
            self._drop(next(iter(self._pages)))

    def forget(self, owner: Hashable) -> None:
        """Drop all pages of an owner."""
        for offset in list(self._offsets.get(owner, ())):
            self._drop((owner, offset))

    def _drop(self, key: tuple[Hashable, int]) -> None:
        page = self._pages.pop(key, None)
        if page is None:
            return
        self.size_bytes -= page.cost_bytes
        owner, offset = key
        offsets = self._offsets[owner]
        offsets.remove(offset)
        if not offsets:
            del self._offsets[owner]


class ReadPlaces:
    """Remembers places of a stream, spread over it, so that a read need not begin at the top."""

    def __init__(self) -> None:
        self._places: list[ReadPlace] = []
        self._spacing = 1

    def add(self, place: ReadPlace) -> None:
        """Remember a place, unless another one is close to it."""
        places = self._places
        at = bisect_left(places, place)
        near = places[max(at - 1, 0) : at + 1]
        if any(abs(each.offset - place.offset) < self._spacing for each in near):
            return
        insort(places, place)
        if len(places) > _MAX_PLACES:
            self._spacing = max(places[-1].offset - places[0].offset, 1) * 2 // _MAX_PLACES + 1
            kept = [places[0]]
            for each in places[1:]:
                if each.offset - kept[-1].offset >= self._spacing:
                    kept.append(each)
            self._places = kept

    def before(self, offset: int) -> ReadPlace:
        """Return the last known place at or before an event."""
        at = bisect_right(self._places, offset, key=lambda place: place.offset)
        return self._places[at - 1] if at else START_PLACE
