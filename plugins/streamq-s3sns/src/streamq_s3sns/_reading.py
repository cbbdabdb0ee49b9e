"""Reads stored segments: the next number, then several at once, and a listing if one is missing.

A reader that has caught up requests one number again and again. A reader that is behind fetches
several segments at a time, twice as many each time, as long as the page has room and the segments
are small. After a packed segment it continues with the first number that is not packed into it. A
page may end in the middle of a segment. The rest of that segment is kept in memory for the next
page, so that a large segment is not fetched again for every page.

Segments of a stream that has expired stay in the bucket until a sweep, also when a new stream of
the same name has begun behind them. A page has records of one stream only, and of none that is
known to have expired: every segment states where its stream begins and when it expires, and the
newest one that anything in this queue has seen decides.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from streamq.driver import Stored, StreamqError, together

from ._known_streams import KnownStream
from ._position import SegmentPosition
from ._segment import Checkpoint, Segment, stored
from .requests._segments import OversizedSegment, SegmentStore

_AT_ONCE = 16
_AT_ONCE_BYTES = 16 * 2**20
_KEPT_BYTES = 16 * 2**20
_LISTING_SECONDS = 30.0
_ATTEMPTS = 3


@dataclass(slots=True)
class _Page:
    """The records that a read returns, of one stream and within its limits.

    ``begin`` is the number of the stream's first segment; ``None`` if no segment has been taken.
    """

    max_records: int
    max_bytes: int
    records: list[Stored] = field(default_factory=list)
    size: int = 0
    is_full: bool = False
    begin: int | None = None

    @property
    def has_room(self) -> bool:
        """Whether another record may fit."""
        return (
            not self.is_full and self.size < self.max_bytes and len(self.records) < self.max_records
        )

    def take(self, segment: Segment, after: tuple[int, int]) -> None:
        """Add the entries of a segment that come after one of them, as far as they fit.

        If the segment begins a new stream, what was taken before has expired.
        """
        if segment.checkpoint.begin != self.begin:
            self.begin, self.size = segment.checkpoint.begin, 0
            self.records.clear()
        for record in stored(segment, after):
            self.size += len(record.data)
            if self.records and (
                self.size > self.max_bytes or len(self.records) >= self.max_records
            ):
                self.is_full = True
                return
            self.records.append(record)


class _Leftovers:
    """The newest segments that a page has taken in part, by directory and number."""

    def __init__(self) -> None:
        self._segments: OrderedDict[tuple[str, int], Segment] = OrderedDict()
        self._bytes = 0

    def keep(self, directory: str, segment: Segment) -> None:
        """Keep a segment until it is taken, or until newer ones need the memory."""
        self.take(directory, segment.checkpoint.number)
        self._segments[directory, segment.checkpoint.number] = segment
        self._bytes += segment.bytes
        while self._bytes > _KEPT_BYTES:
            self._bytes -= self._segments.popitem(last=False)[1].bytes

    def take(self, directory: str, number: int) -> Segment | None:
        """Return a segment if it is kept, and keep it no longer."""
        segment = self._segments.pop((directory, number), None)
        if segment is not None:
            self._bytes -= segment.bytes
        return segment


class SegmentReader:
    """Reads for all streams of one queue."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._leftovers = _Leftovers()
        self._clock = asyncio.get_running_loop().time

    async def fetch(
        self,
        directory: str,
        known: KnownStream,
        position: SegmentPosition,
        max_records: int,
        max_bytes: int,
        *,
        is_final: bool,
        was_empty: bool,
    ) -> tuple[list[Stored], SegmentPosition]:
        """Return records after a position, and the position to continue from.

        Args:
            directory: Directory of the stream.
            known: What is known of the stream.
            position: Position to begin at.
            max_records: Largest number of records to return.
            max_bytes: Largest number of bytes to return, except that one record is always returned.
            is_final: No further request follows soon, so a missing segment has to be investigated.
            was_empty: The same call has requested this position before, and found nothing.
        """
        for _ in range(_ATTEMPTS):
            page = _Page(max_records, max_bytes)
            reached = await self._fill(
                page, directory, known, position, is_final=is_final, was_empty=was_empty
            )
            # What was seen meanwhile, also by others, may show that the stream of the page is gone.
            # The next attempt then begins with a listing.
            if page.begin is None or not self._is_gone(known, page.begin):
                break
        return page.records, reached

    async def _fill(
        self,
        page: _Page,
        directory: str,
        known: KnownStream,
        position: SegmentPosition,
        *,
        is_final: bool,
        was_empty: bool,
    ) -> SegmentPosition:
        """Fill a page, as :meth:`fetch`; return the position to continue from."""
        segment: Segment | None = None
        if position.number:
            segment = await self._get(directory, position)
            if segment is None and not self._has_to_list(known, position, is_final=is_final):
                return position
        if segment is None or self._may_have_expired(known, segment):
            # Reading begins, or the expected segment is missing, or it may belong to a stream that
            # has expired: only the newest segment shows which.
            newest = await self._list(directory, known)
            if newest is None:
                # The next stream begins right after the expired one, or with the first number.
                return position if position.number else SegmentPosition(known.newest + 1)
            begin = await self._begin(directory, position, newest, is_there=segment is not None)
            if begin is None:
                return position
            if segment is None or begin != position:
                position, segment = begin, await self._store.get(directory, begin.number)
                if segment is None:
                    return position
        after = _after(position, segment)
        page.take(segment, after)
        if page.is_full:
            self._leftovers.keep(directory, segment)
        number = segment.through + 1
        known.read(segment)
        if not (was_empty and page.records and known.newest < number):
            # A reader that has waited for this segment was here before it came. The segments that
            # follow it came later still, and may be left to the next call.
            number = await self._continue(directory, known, number, page, segment, after)
        return SegmentPosition(number, position.key)

    async def _continue(
        self,
        directory: str,
        known: KnownStream,
        number: int,
        page: _Page,
        last: Segment,
        after: tuple[int, int],
    ) -> int:
        """Add the segments that follow; return the number of the first one that was not added."""
        typical, pace, is_known = last.bytes, 1, True
        while page.has_room:
            certain = known.newest + 1 - number
            if is_known and certain < 1:
                # From here on requests are guesses, and one that finds nothing costs money.
                is_known, pace = False, 1
            wanted = (page.max_bytes - page.size) // max(1, typical) + 1
            room = max(1, _AT_ONCE_BYTES // max(1, typical))
            count = min(pace, wanted, room, certain if is_known else _AT_ONCE)
            pace = min(2 * pace, _AT_ONCE)
            # The first segment may have any size, so that there is progress.
            sizes = [None] + [_AT_ONCE_BYTES // count] * (count - 1)
            found = await together(
                self._try(directory, number + i, size) for i, size in enumerate(sizes)
            )
            for requested, segment in enumerate(found, number):
                if requested < number:
                    continue  # a pack before it has its entries, whether it exists or not
                if segment is None:
                    return number
                if isinstance(segment, StreamqError):
                    if page.records:
                        # Of many requests one fails now and then. The segments before it are
                        # progress, and the next call begins with the one that failed.
                        return number
                    raise segment
                typical = max(typical, segment.bytes)
                if isinstance(segment, OversizedSegment):
                    break
                # Entries of a pack that is gone may have been read, and their own segments may
                # still exist.
                is_same = segment.checkpoint.begin == last.checkpoint.begin
                page.take(segment, after if is_same else (0, -1))
                known.read(segment)
                if page.is_full:
                    self._leftovers.keep(directory, segment)
                    return number
                number = segment.through + 1
                if segment.through > segment.checkpoint.number:
                    pace = 1  # the next one may be packed as well
            known.newest = max(known.newest, number - 1)
        return number

    async def _get(self, directory: str, position: SegmentPosition) -> Segment | None:
        kept = self._leftovers.take(directory, position.number)
        # If none of its entries comes after the position, more has been packed into it since.
        if kept is not None and not any(stored(kept, position.key)):
            kept = None
        if kept is not None:
            checkpoint = await self._store.checkpoint(directory, position.number)
            if checkpoint == kept.checkpoint:
                return kept
        return await self._store.get(directory, position.number)

    async def _try(
        self, directory: str, number: int, at_most: int | None
    ) -> Segment | OversizedSegment | StreamqError | None:
        try:
            return await self._store.get_small(directory, number, at_most=at_most)
        except StreamqError as exc:
            return exc

    def _has_to_list(
        self, known: KnownStream, position: SegmentPosition, *, is_final: bool
    ) -> bool:
        """Whether a segment may be missing for another reason than that it has not come yet."""
        return is_final or self._is_overdue(known) or known.newest >= position.number

    def _may_have_expired(self, known: KnownStream, segment: Segment) -> bool:
        """Whether the stream of a segment may have expired, as its newest segment shows.

        A later append may have shortened its time to live, in another process.
        """
        return (
            segment.checkpoint.expires <= self._store.clock.now_ms()
            or self._is_gone(known, segment.checkpoint.begin)
            or self._is_overdue(known)
        )

    def _is_gone(self, known: KnownStream, begin: int) -> bool:
        """Whether a stream has expired, or another one has begun, by what has been seen last.

        That may be out of date: a listing shows whether it is true.
        """
        seen = known.seen
        is_over = seen.begin != begin or seen.expires <= self._store.clock.now_ms()
        return seen.number > 0 and is_over

    def _is_overdue(self, known: KnownStream) -> bool:
        return self._clock() >= known.listed_at + _LISTING_SECONDS

    async def _list(self, directory: str, known: KnownStream) -> Checkpoint | None:
        """Return the newest checkpoint, unless the stream has expired."""
        before = known.seen
        newest = await self._store.newest(directory)
        known.listed(newest, self._clock(), before=before)
        if newest is None or newest.expires <= self._store.clock.now_ms():
            return None
        return newest

    async def _begin(
        self, directory: str, position: SegmentPosition, newest: Checkpoint, *, is_there: bool
    ) -> SegmentPosition | None:
        """Return the position of the oldest segment to read; ``None`` if all have been read."""
        if position.number < newest.begin:
            # What was read belongs to an earlier stream of this name, or nothing was read.
            start = SegmentPosition(newest.begin)
        elif is_there:
            return position
        elif position.number <= newest.number:
            start = position
        elif newest.newest > position.key or newest.number < position.number - 1:
            # The stream was deleted and written anew; its entries are newer than what was read.
            start = SegmentPosition(newest.begin, position.key)
        else:
            return None
        if await self._store.checkpoint(directory, start.number) is not None:
            return start
        oldest = await self._store.oldest_number(directory, start.number)
        return None if oldest is None else SegmentPosition(oldest, start.key)


def _after(position: SegmentPosition, segment: Segment) -> tuple[int, int]:
    """Return the entry of a segment after which reading continues.

    An entry that is missing in the first segment of a stream belongs to an earlier stream of the
    same name. Whatever its epoch was, the whole segment comes after it.
    """
    if segment.checkpoint.begin < segment.checkpoint.number:
        return position.key
    is_here = any((entry.epoch, entry.index) == position.key for entry in segment.entries)
    return position.key if is_here else (0, -1)
