"""Finds the records of one stream in a partition that many streams share."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from operator import itemgetter

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq.driver import Stored
from streamq_kafka._errors import PositionBeyondEnd
from streamq_kafka._naming import LogPosition, partition_label
from streamq_kafka.live_tail._partition_taps import PartitionTaps
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._end_offsets import EndOffsets

from ._page_cache import Page, PageCache

_PAGE_BYTES = 262_144
_REMEMBERED_GAPS = 4_096
_AGAIN_SECONDS, _NOT_SHOWN_SECONDS = 0.005, 2.0


class PartitionReader:
    """Reads the records of the streams that share a partition.

    Args:
        partition: The partition.
        cluster: The cluster of the partition.
        ends: The ends of all partitions.
        pages: Older records, shared with other partitions.
        taps: The newest records of the streams in this partition.
        on_log_replaced: Called when the partition turns out to have a new log; should call
            :meth:`forget` for every partition of the topic.
    """

    def __init__(
        self,
        partition: TopicPartition,
        cluster: Cluster,
        ends: EndOffsets,
        pages: PageCache,
        taps: PartitionTaps,
        on_log_replaced: Callable[[], None],
    ) -> None:
        self.partition = partition
        self.taps = taps
        self._cluster = cluster
        self._ends = ends
        self._pages = pages
        self._on_log_replaced = on_log_replaced
        ends.watch(partition, on_log_replaced)
        # For each stream, the last range of offsets without its records. A scan that timed out
        # continues there when it is repeated.
        self._gaps: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._paging = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def end(self) -> int:
        """Return the offset after the newest record."""
        return await self._ends.get(self.partition)

    async def reach(self, offset: int) -> int | None:
        """Return the end of the partition; ``None`` if that is before the given offset."""
        try:
            fetched = await self._cluster.fetch_now(self.partition, offset, max_bytes=1)
        except ke.OffsetOutOfRangeError:
            return None
        return fetched.high_watermark

    def forget(self) -> None:
        """Forget the log: the partition has a new one. Readers look up their positions again."""
        self._gaps = OrderedDict()  # a scan under way still has the old one
        self._ends.forget(self.partition)
        self._pages.forget(self.partition)
        self.taps.leave()

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
        # Records that only our cache still has are not returned.
        next_offset = max(start, self._ends.log_start(self.partition))
        gaps = self._gaps
        gap = gaps.get(key, (0, 0))
        if gap[0] <= next_offset <= gap[1]:
            next_offset = gap[1]
        else:
            gap = (next_offset, next_offset)
        try:
            while next_offset < end:
                page = await self._page(next_offset)
                for offset, value in _records_from(page, key, next_offset):
                    size += len(value)
                    if len(found) >= max_records or (found and size > max_bytes):
                        return found
                    found.append(Stored(LogPosition(number, offset + 1).encode(), value))
                    gap = (offset + 1, offset + 1)
                next_offset = page.following
                gap = (gap[0], next_offset)
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
        first = max(first, self._ends.log_start(self.partition))
        upper, width = end, 64
        while upper > first and len(found) < count:
            lower = max(first, upper - width)
            older: list[Stored] = []
            next_offset = lower
            while next_offset < upper:
                page = await self._page(next_offset)
                older += [
                    Stored(LogPosition(number, offset + 1).encode(), value)
                    for offset, value in _records_from(page, key, next_offset)
                    if offset < upper
                ]
                next_offset = page.following
            found += reversed(older)
            upper, width = lower, width * 4
        return found[:count]

    async def _page(self, offset: int) -> Page:
        """Return the page with this offset, or an empty one up to the oldest existing record."""
        page = self._pages.find(self.partition, offset)
        if page is not None:
            return page
        async with self._paging:  # a reader that waited here often finds the page
            page = self._pages.find(self.partition, offset)
            if page is not None:
                return page
            gaps = self._gaps
            page = self._latest_page(offset)
            until = self._loop.time() + _NOT_SHOWN_SECONDS
            while page is None:
                page = await self._fetch_page(offset)
                if page is None:
                    # The end that is known is beyond what the broker returns: an earlier leader
                    # stated it, or Tansu, which counts a batch before it returns it and may need
                    # longer to search for it.
                    if self._loop.time() > until:
                        raise PositionBeyondEnd(_nothing_at(self.partition, offset))
                    await asyncio.sleep(_AGAIN_SECONDS)
            if gaps is self._gaps:  # otherwise the page may be of the earlier log
                self._pages.add(self.partition, page)
            return page

    async def _fetch_page(self, offset: int) -> Page | None:
        try:
            fetched = await self._cluster.fetch_now(self.partition, offset, max_bytes=_PAGE_BYTES)
        except ke.OffsetOutOfRangeError:
            self._pages.forget(self.partition)
            oldest = (await self._cluster.beginning_offsets([self.partition]))[self.partition]
            if isinstance(oldest, Exception):
                raise oldest from None
            if oldest > offset:
                return Page(offset, oldest, [])
            self._on_log_replaced()
            raise PositionBeyondEnd(_nothing_at(self.partition, offset)) from None
        records, following = fetched.unpack()
        return Page(offset, following, records) if following > offset else None

    def _latest_page(self, offset: int) -> Page | None:
        """Return the page that came with the end of the partition, if it begins at this offset."""
        fetched = self._ends.fetched(self.partition, offset)
        if fetched is None:
            return None
        records, following = fetched.unpack()
        return Page(offset, following, records) if following > offset else None


def _records_from(page: Page, key: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    records = page.records(key)
    at = bisect_left(records, offset, key=itemgetter(0)) if page.start < offset else 0
    for index in range(at, len(records)):
        yield records[index]


def _nothing_at(partition: TopicPartition, offset: int) -> str:
    return f"{partition_label(partition)} has nothing at offset {offset} yet"
