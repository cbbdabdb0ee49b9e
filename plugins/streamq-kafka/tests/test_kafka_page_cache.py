"""The cache of older records, without a broker."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.structs import TopicPartition

from streamq_kafka.reading._page_cache import Page, PageCache


@dataclass(frozen=True, slots=True)
class _Record:
    key: bytes
    value: bytes | None
    offset: int


def _page(start: int, following: int, size: int = 10) -> Page:
    return Page(
        start, following, [_Record(b"k", b"x" * size, offset) for offset in range(start, following)]
    )


def test_pages_are_found_by_any_offset_in_them() -> None:
    """Readers at different offsets of one page need one fetch."""
    pages, partition = PageCache(10**6), TopicPartition("t", 0)
    first, second = _page(0, 10), _page(20, 30)
    pages.add(partition, first)
    pages.add(partition, second)
    assert [pages.find(partition, at) for at in (0, 9, 10, 19, 20, 29, 30)] == [
        *(first, first, None, None),
        *(second, second, None),
    ]
    assert pages.find(TopicPartition("t", 1), 0) is None
    pages.forget(partition)
    assert pages.find(partition, 0) is None


def test_least_recently_used_pages_are_dropped_first() -> None:
    """History may be larger than memory."""
    pages, partition = PageCache(10_000), TopicPartition("t", 0)
    for start in range(0, 100, 10):
        pages.add(partition, _page(start, start + 10, 100))
        assert pages.find(partition, 0) is not None, "used all the time"
    assert pages.find(partition, 10) is None
    assert pages.find(partition, 90) is not None
