"""Reading segments: the next number, then more of them at once, and a listing when one is missing.

A reader that has caught up asks for one number again and again. One that is behind fetches several
at a time, twice as many each time, as far as it takes to fill what it was asked for and as far as
they are small; behind one that was packed it goes on with the first that was not in it. What is
left of a segment is kept for the next page, so that a large one is not fetched again for each.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from streamq.driver import Stored, StreamqError
from streamq_aws import together

from ._flows import Flow
from ._segment import Place, Segment, Tail, stored
from ._store import Store, TooLarge

_AT_ONCE = 16
_AT_ONCE_BYTES = 16 * 2**20
_KEPT_BYTES = 16 * 2**20
_LOOK_SECONDS = 30.0


@dataclass(slots=True)
class _Page:
    """What a read returns, within its bounds."""

    max_records: int
    max_bytes: int
    records: list[Stored] = field(default_factory=list)
    size: int = 0
    is_full: bool = False

    @property
    def has_room(self) -> bool:
        """Whether another record might fit."""
        return (
            not self.is_full and self.size < self.max_bytes and len(self.records) < self.max_records
        )

    def take(self, segment: Segment, after: tuple[int, int]) -> None:
        """Add what fits of a segment."""
        for record in stored(segment, after):
            self.size += len(record.data)
            if self.records and (
                self.size > self.max_bytes or len(self.records) >= self.max_records
            ):
                self.is_full = True
                return
            self.records.append(record)


class _Leftovers:
    """Segments of which a page took a part, by directory and number; the newest few."""

    def __init__(self) -> None:
        self._segments: OrderedDict[tuple[str, int], Segment] = OrderedDict()
        self._bytes = 0

    def keep(self, directory: str, segment: Segment) -> None:
        """Keep a segment until somebody takes it, or until newer ones need the room."""
        self.take(directory, segment.tail.number)
        self._segments[directory, segment.tail.number] = segment
        self._bytes += segment.bytes
        while self._bytes > _KEPT_BYTES:
            self._bytes -= self._segments.popitem(last=False)[1].bytes

    def take(self, directory: str, number: int) -> Segment | None:
        """Return a segment if it has been kept, and keep it no longer."""
        segment = self._segments.pop((directory, number), None)
        if segment is not None:
            self._bytes -= segment.bytes
        return segment


class Reading:
    """Reads for all streams of one queue."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leftovers = _Leftovers()
        self._clock = asyncio.get_running_loop().time

    async def fetch(
        self,
        directory: str,
        flow: Flow,
        place: Place,
        max_records: int,
        max_bytes: int,
        *,
        is_final: bool,
        was_empty: bool,
    ) -> tuple[list[Stored], Place]:
        """Return records after a place, and the place to ask for if there are none.

        Args:
            directory: Which stream.
            flow: What is known of it.
            place: Where to begin.
            max_records: Most records to return.
            max_bytes: Most bytes to return, beyond one record.
            is_final: Nobody looks again soon: find out for sure.
            was_empty: The place was looked at in the same call, and nothing was there.
        """
        page = _Page(max_records, max_bytes)
        segment: Segment | None = None
        if place.number:
            segment = await self._get(directory, place)
            if segment is None and not self._has_to_look(flow, place, is_final=is_final):
                return [], place
        if segment is None or segment.tail.expires <= self._store.clock.now_ms():
            # From the beginning; or what was expected is missing, or may be of a stream that has
            # expired: only the newest segment tells.
            tail = await self._look(directory, flow)
            if tail is None:
                # Whatever comes begins right after what has expired, or with the first number.
                return [], place if place.number else Place(flow.known + 1)
            begin = await self._begin(directory, place, tail, is_there=segment is not None)
            if begin is None:
                return [], place
            if segment is None or begin != place:
                place, segment = begin, await self._store.get(directory, begin.number)
                if segment is None:
                    return [], place
        after = _after(place, segment)
        page.take(segment, after)
        if page.is_full:
            self._leftovers.keep(directory, segment)
        number = segment.through + 1
        flow.known = max(flow.known, segment.through)
        if not (was_empty and page.records and flow.known < number):
            # Whoever has just waited for this segment was here before it came: what follows it
            # came later still, and may be left to the next call.
            number = await self._go_on(directory, flow, number, page, segment, after)
        return page.records, Place(number, place.key)

    async def _go_on(
        self,
        directory: str,
        flow: Flow,
        number: int,
        page: _Page,
        last: Segment,
        after: tuple[int, int],
    ) -> int:
        """Add the segments that follow; return the number of the first one that was not used."""
        typical, pace, is_known = last.bytes, 1, True
        while page.has_room:
            known = flow.known + 1 - number
            if is_known and known < 1:
                # Whatever comes now is a guess, and one that finds nothing is paid for.
                is_known, pace = False, 1
            wanted = (page.max_bytes - page.size) // max(1, typical) + 1
            room = max(1, _AT_ONCE_BYTES // max(1, typical))
            count = min(pace, wanted, room, known if is_known else _AT_ONCE)
            pace = min(2 * pace, _AT_ONCE)
            # The first one is taken whatever its size is, so that there is progress.
            sizes = [None] + [_AT_ONCE_BYTES // count] * (count - 1)
            found = await together(
                self._try(directory, number + i, size) for i, size in enumerate(sizes)
            )
            for asked, segment in enumerate(found, number):
                if asked < number:
                    continue  # one before it has its entries, whether it is there or not
                if segment is None:
                    return number
                if isinstance(segment, StreamqError):
                    if page.records:
                        # Of many requests one fails now and then; what came before it is progress,
                        # and the next call begins with it.
                        return number
                    raise segment
                typical = max(typical, segment.bytes)
                if isinstance(segment, TooLarge):
                    break
                # Of a pack that has gone, some may have been read that is still there by itself.
                is_same = segment.tail.begin == last.tail.begin
                page.take(segment, after if is_same else (0, -1))
                if page.is_full:
                    self._leftovers.keep(directory, segment)
                    return number
                number = segment.through + 1
                if segment.through > segment.tail.number:
                    pace = 1  # the next one may be packed, too
            flow.known = max(flow.known, number - 1)
        return number

    async def _get(self, directory: str, place: Place) -> Segment | None:
        kept = self._leftovers.take(directory, place.number)
        # If nothing of it comes after the place, more has been packed into it since.
        if kept is not None and not any(stored(kept, place.key)):
            kept = None
        if kept is not None and await self._store.head(directory, place.number) == kept.tail:
            return kept
        return await self._store.get(directory, place.number)

    async def _try(
        self, directory: str, number: int, at_most: int | None
    ) -> Segment | TooLarge | StreamqError | None:
        try:
            return await self._store.get_small(directory, number, at_most=at_most)
        except StreamqError as exc:
            return exc

    def _has_to_look(self, flow: Flow, place: Place, *, is_final: bool) -> bool:
        """Whether a missing segment is more than one that has not come yet."""
        overdue = self._clock() >= flow.looked_at + _LOOK_SECONDS
        return is_final or overdue or flow.known >= place.number

    async def _look(self, directory: str, flow: Flow) -> Tail | None:
        """Return where the stream stands, unless it has expired."""
        tail = await self._store.newest(directory)
        flow.looked_at = self._clock()
        flow.known = tail.number if tail else 0
        if tail is None or tail.expires <= self._store.clock.now_ms():
            return None
        return tail

    async def _begin(
        self, directory: str, place: Place, tail: Tail, *, is_there: bool
    ) -> Place | None:
        """Return the place of the oldest segment to read; ``None`` if all have been."""
        if place.number < tail.begin:
            # What was read was of an earlier stream of this name, or nothing.
            start = Place(tail.begin)
        elif is_there:
            return place
        elif place.number <= tail.number:
            start = place
        elif tail.newest > place.key or tail.number < place.number - 1:
            # Deleted and written anew; what it says is newer than what was read.
            start = Place(tail.begin, place.key)
        else:
            return None
        if await self._store.head(directory, start.number) is not None:
            return start
        oldest = await self._store.oldest_number(directory, start.number)
        return None if oldest is None else Place(oldest, start.key)


def _after(place: Place, segment: Segment) -> tuple[int, int]:
    """Return the entry of a segment to read on after.

    In the first segment of a stream an entry that is not there is of an earlier stream of the same
    name: whatever its epoch was, all that is here comes after it.
    """
    if segment.tail.begin < segment.tail.number:
        return place.key
    is_here = any((entry.epoch, entry.index) == place.key for entry in segment.entries)
    return place.key if is_here else (0, -1)
