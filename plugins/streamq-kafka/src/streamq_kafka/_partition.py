"""A partition of records: its live end, divided among the streams, and what came before."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from operator import itemgetter

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq.driver import Stored

from ._cluster import Cluster
from ._ends import Ends
from ._errors import PositionBeyondEnd
from ._fetched import Fetched
from ._pages import Page, Pages
from ._positions import Place
from ._tail import Tail
from ._taps import Budget, Tap

_PAGE_BYTES = 262_144
_REMEMBERED_GAPS = 4_096
_LINGER_SECONDS = 3.0
_SWEEP_SECONDS = 1.0
_AGAIN_SECONDS, _NOT_SHOWN_SECONDS = 0.005, 2.0


class DataPartition:
    """Reads the records of many streams that share a partition.

    Args:
        partition: Which one.
        cluster: Where it is.
        ends: Of all partitions.
        tail: Follows it while somebody waits.
        pages: Shared with other partitions.
        budget: Of all taps.
        tail_bytes: Of one tap.
        on_anew: Called when the log turns out to be another one than before; should make every
            partition of the topic :meth:`forget`.
    """

    def __init__(
        self,
        partition: TopicPartition,
        cluster: Cluster,
        ends: Ends,
        tail: Tail,
        pages: Pages,
        budget: Budget,
        tail_bytes: int,
        on_anew: Callable[[], None],
    ) -> None:
        self.partition = partition
        self._cluster = cluster
        self._ends = ends
        self._tail = tail
        self._pages = pages
        self._budget = budget
        self._tail_bytes = tail_bytes
        self._on_anew = on_anew
        ends.watch(partition, on_anew)
        self._taps: dict[bytes, Tap] = {}
        # From where to where a scan has found nothing of a stream. A scan that took too long goes
        # on there when it is repeated.
        self._gaps: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._paging = asyncio.Lock()
        self._next_sweep = 0.0
        self._loop = asyncio.get_running_loop()

    async def end(self) -> int:
        """Return the offset after the newest record."""
        return await self._ends.get(self.partition)

    async def reach(self, offset: int) -> int | None:
        """Return the offset after the newest record; ``None`` if it is before the given one."""
        try:
            fetched = await self._cluster.fetch_now(self.partition, offset, max_bytes=1)
        except ke.OffsetOutOfRangeError:
            return None
        return fetched.high

    # -- the live end --------------------------------------------------------------------------

    def tap(self, key: bytes) -> Tap | None:
        """Return the tap of a stream that is being followed."""
        return self._taps.get(key)

    def tap_at(self, key: bytes, offset: int) -> Tap | None:
        """Return it if a reader at this offset misses nothing by going on from it."""
        tap = self._taps.get(key)
        if tap is None or not tap.covers(offset):
            return None
        # Ahead of the tail, or in a log that is no more: that has to be asked.
        end = self._tail.offset(self.partition)
        return tap if end is not None and offset <= end else None

    async def attach(self, key: bytes) -> Tap:
        """Follow a stream from now on: whatever is appended after this call comes."""
        while True:
            tap = self._taps.get(key)
            if tap is not None:
                tap.used = self._loop.time()
                return tap
            floor = self._tail.offset(self.partition)
            if floor is not None:
                now = self._loop.time()
                tap = self._taps[key] = Tap(floor, self._tail_bytes, self._budget, now)
                return tap
            node = await self._cluster.leader(self.partition)
            end = await self._ends.get(self.partition)
            if self._tail.offset(self.partition) is None:
                self._tail.follow(self.partition, node, end, self)

    def detach(self, key: bytes) -> None:
        """Have the readers of a stream find their place again."""
        tap = self._taps.pop(key, None)
        if tap is not None:
            tap.retire()

    def forget(self) -> None:
        """Begin anew: the log is another one now. Readers find their place again."""
        self._gaps = OrderedDict()  # whoever is scanning still has the old one
        self._ends.forget(self.partition)
        self._pages.forget(self.partition)
        self._tail.leave(self.partition)

    def take(self, fetched: Fetched) -> int:
        """Give the records to the taps of their streams."""
        records, following = fetched.unpack()
        taps = self._taps
        number = self.partition.partition
        touched: dict[bytes, Tap] = {}
        for record in records:
            key = record.key
            tap = taps.get(key)
            if tap is not None:
                value = record.value
                if value is not None:
                    offset = record.offset
                    tap.push(offset, Stored(f"{number}-{offset + 1}", value))
                    touched[key] = tap
        for tap in touched.values():
            tap.wake()
        return following

    def anew(self) -> None:
        """Learn that the log is another one now."""
        self._on_anew()

    def lost(self, error: Exception | None) -> None:
        """End all taps: the partition is not followed any more."""
        taps, self._taps = self._taps, {}
        for tap in taps.values():
            tap.retire(error)

    def is_wanted(self, now: float) -> bool:
        """Whether any stream is followed; forgets those that nobody has asked for lately."""
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_SECONDS
            for key in [
                key
                for key, tap in self._taps.items()
                if not tap.is_waited_for and now - tap.used > _LINGER_SECONDS
            ]:
                self._taps.pop(key).retire()
        return bool(self._taps)

    # -- what came before ----------------------------------------------------------------------

    async def scan(
        self, key: bytes, start: int, end: int, max_records: int, max_bytes: int
    ) -> list[Stored]:
        """Return the first records of a stream between two offsets, within the bounds.

        Raises:
            aiokafka.errors.KafkaError: The partition cannot be read.
        """
        number = self.partition.partition
        found: list[Stored] = []
        size = 0
        place = max(start, self._ends.oldest(self.partition))  # not what only we still have
        gaps = self._gaps
        gap = gaps.get(key, (0, 0))
        if gap[0] <= place <= gap[1]:
            place = gap[1]
        else:
            gap = (place, place)
        try:
            while place < end:
                page = await self._page(place)
                for offset, value in _from(page, key, place):
                    size += len(value)
                    if len(found) >= max_records or (found and size > max_bytes):
                        return found
                    found.append(Stored(Place(number, offset + 1).encode(), value))
                    gap = (offset + 1, offset + 1)
                place = page.following
                gap = (gap[0], place)
        finally:
            gaps[key] = gap
            gaps.move_to_end(key)
            if len(gaps) > _REMEMBERED_GAPS:
                gaps.popitem(last=False)
        return found

    async def newest(self, key: bytes, first: int, end: int, count: int) -> list[Stored]:
        """Return the last records of a stream between two offsets, newest first."""
        number = self.partition.partition
        found: list[Stored] = []
        first = max(first, self._ends.oldest(self.partition))
        upper, width = end, 64
        while upper > first and len(found) < count:
            lower = max(first, upper - width)
            older: list[Stored] = []
            place = lower
            while place < upper:
                page = await self._page(place)
                older += [
                    Stored(Place(number, offset + 1).encode(), value)
                    for offset, value in _from(page, key, place)
                    if offset < upper
                ]
                place = page.following
            found += reversed(older)
            upper, width = lower, width * 4
        return found[:count]

    async def _page(self, offset: int) -> Page:
        """Return a page with this offset, or the oldest one that is still there after it."""
        page = self._pages.find(self.partition, offset)
        if page is not None:
            return page
        async with self._paging:  # whoever waited here often finds what the other has fetched
            page = self._pages.find(self.partition, offset)
            if page is not None:
                return page
            gaps = self._gaps
            page = self._latest_page(offset)
            until = self._loop.time() + _NOT_SHOWN_SECONDS
            while page is None:
                page = await self._fetch_page(offset)
                if page is None:
                    # Told of more than there is to see: by the leader before this one, or by Tansu,
                    # which counts a batch before it shows it, and may need longer to look for it.
                    if self._loop.time() > until:
                        raise PositionBeyondEnd(_where(self.partition, offset))
                    await asyncio.sleep(_AGAIN_SECONDS)
            if gaps is self._gaps:  # otherwise it may be one of the log before
                self._pages.add(self.partition, page)
            return page

    async def _fetch_page(self, offset: int) -> Page | None:
        try:
            fetched = await self._cluster.fetch_now(self.partition, offset, max_bytes=_PAGE_BYTES)
        except ke.OffsetOutOfRangeError:
            self._pages.forget(self.partition)
            oldest = (await self._cluster.beginnings([self.partition]))[self.partition]
            if isinstance(oldest, Exception):
                raise oldest from None
            if oldest > offset:
                return Page(offset, oldest, [])
            self._on_anew()
            raise PositionBeyondEnd(_where(self.partition, offset)) from None
        records, following = fetched.unpack()
        return Page(offset, following, records) if following > offset else None

    def _latest_page(self, offset: int) -> Page | None:
        """Return what has come together with the end of the partition, if it is what is wanted."""
        fetched = self._ends.fetched(self.partition, offset)
        if fetched is None:
            return None
        records, following = fetched.unpack()
        return Page(offset, following, records) if following > offset else None


def _from(page: Page, key: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    records = page.records(key)
    at = bisect_left(records, offset, key=itemgetter(0)) if page.start < offset else 0
    for index in range(at, len(records)):
        yield records[index]


def _where(partition: TopicPartition, offset: int) -> str:
    return f"{partition.topic}, partition {partition.partition} has nothing at offset {offset} yet"
