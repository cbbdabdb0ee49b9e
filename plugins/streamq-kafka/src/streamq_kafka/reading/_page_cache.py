"""Keeps older records in memory for all readers that need them: pages of partitions, by key.

The log never changes below its end, so a page stays correct for as long as it is kept. Readers that
catch up on many streams of one partition read the same pages, so the partition is fetched and
unpacked once, and not once for each reader.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from typing import Any

from aiokafka.structs import TopicPartition

_RECORD_OVERHEAD_BYTES = 200


class Page:
    """All records of a partition from ``start`` to before ``following``."""

    __slots__ = ("_by_key", "following", "size", "start")

    def __init__(self, start: int, following: int, records: list[Any]) -> None:
        self.start = start
        self.following = following
        self._by_key: dict[bytes, list[tuple[int, bytes]]] = {}
        self.size = _RECORD_OVERHEAD_BYTES
        by_key = self._by_key
        for record in records:
            value = record.value
            if value is None:
                continue  # streamq did not write it
            self.size += len(value) + _RECORD_OVERHEAD_BYTES
            found = by_key.get(record.key)
            if found is None:
                by_key[record.key] = [(record.offset, value)]
            else:
                found.append((record.offset, value))

    def records(self, key: bytes) -> list[tuple[int, bytes]]:
        """Return offsets and values of one stream, oldest first."""
        return self._by_key.get(key, [])


class PageCache:
    """The pages that were used last, within a bound."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._pages: OrderedDict[tuple[TopicPartition, int], Page] = OrderedDict()
        self._starts: dict[TopicPartition, list[int]] = {}

    def find(self, partition: TopicPartition, offset: int) -> Page | None:
        """Return the page that contains this offset."""
        starts = self._starts.get(partition)
        at = bisect_right(starts, offset) if starts else 0
        if not starts or at == 0:
            return None
        key = (partition, starts[at - 1])
        page = self._pages[key]
        if page.following <= offset:
            return None
        self._pages.move_to_end(key)
        return page

    def add(self, partition: TopicPartition, page: Page) -> None:
        """Keep a page, and drop the least recently used ones."""
        key = (partition, page.start)
        old = self._pages.pop(key, None)
        if old is None:
            insort(self._starts.setdefault(partition, []), page.start)
        else:
            self._size -= old.size
        self._pages[key] = page
        self._size += page.size
        while self._size > self._limit and len(self._pages) > 1:
            (owner, start), dropped = self._pages.popitem(last=False)
            self._size -= dropped.size
            starts = self._starts[owner]
            starts.remove(start)
            if not starts:
                del self._starts[owner]

    def forget(self, partition: TopicPartition) -> None:
        """Drop all pages of a partition: it has a new log, or has lost data."""
        for start in self._starts.pop(partition, []):
            self._size -= self._pages.pop((partition, start)).size
