"""Reading what is stored: pages that fit the records, and keys that hold something else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from redis_streams import Bare
from streamq import BackendError, StreamId
from streamq.driver import Entry, Stored
from streamq.testing import OpenQueue
from streamq_redis import _reading
from streamq_redis._naming import KeySpace
from streamq_redis._reading import PageSizes


async def test_no_more_than_the_requested_large_records_are_fetched(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """A first read of 16 records of any size never ends on a slow link."""
    queue = await open_queue()
    for i in range(16):
        await queue.append(stream, [Entry(1, i, bytes(500_000))])
    before = (await bare.info("stats"))["total_net_output_bytes"]
    found = await queue.read(stream, "", max_records=100, max_bytes=1000, max_wait=0)
    after = (await bare.info("stats"))["total_net_output_bytes"]
    assert len(found) == 1
    assert after - before < 2 * 500_000 + 100_000


async def test_small_records_are_read_in_one_call_from_the_first(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Careful with large records, yet a replay of small ones stays quick."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(300)])
    found = await queue.read(stream, "", max_records=200, max_bytes=10**6, max_wait=0)
    assert [b"%d" % i for i in range(200)] == [record.data for record in found]


async def test_wrong_type_of_key_is_reported_with_the_next_step(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Another application uses the same prefix: the message has to say what to change."""
    queue = await open_queue()
    await bare.set(key, "not a stream")
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: queue.append(stream, [Entry(1, 0, b"x")]),
        lambda: queue.read(stream, "", max_records=1, max_bytes=10, max_wait=5),
        lambda: queue.describe(stream, last=1),
    ]
    for operation in operations:
        with pytest.raises(BackendError, match="STREAMQ_REDIS_KEY_PREFIX"):
            await operation()
    assert [info async for info in queue.streams(stream.tenant)] == []


async def test_listing_skips_keys_that_are_not_ours(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Another application may keep Redis Streams under a similar key."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await bare.xadd(KeySpace("streamq").key(stream) + b"}", {"a": "b"})
    assert [stream] == [info.stream async for info in queue.streams(stream.tenant)]


def records_of(size: int, count: int = 3) -> list[Stored]:
    """Return records with so many bytes of data."""
    return [Stored(f"1-{i}", bytes(size)) for i in range(count)]


def test_page_follows_the_size_of_the_records() -> None:
    """One request for all that may be returned costs the least."""
    sizes = PageSizes()
    assert [sizes.count(b"a", 10**6, 300, before) for before in (0, 2, 4)] == [2, 2, 2]
    sizes.learn(b"a", records_of(99))
    assert [sizes.count(b"a", 1_000, 300, before) for before in (0, 4, 8)] == [10, 8, 10]
    assert sizes.count(b"a", 1_000, 7, 0) == 7
    assert sizes.count(b"a", 0, 300, 0) == 1
    assert sizes.count(b"a", 10**9, 10**9, 0) == 512
    assert sizes.count(b"b", 1_000, 300, 0) == 2
    sizes.learn(b"a", records_of(0))
    assert sizes.count(b"a", 100, 300, 0) == 100
    sizes.forget(b"a")
    sizes.forget(b"unknown")
    assert sizes.count(b"a", 100, 300, 0) == 2


def test_page_that_did_not_come_in_time_is_halved() -> None:
    """On a slow link the same request would run into the same deadline again and again."""
    sizes = PageSizes()
    sizes.learn(b"a", records_of(9_999))
    assert sizes.count(b"a", 10**6, 300, 0) == 100
    sizes.shrink(b"a", 100, 10**6)
    assert sizes.count(b"a", 10**6, 300, 0) == 49
    sizes.shrink(b"a", 1, 10**6)
    assert sizes.count(b"a", 10**6, 300, 0) == 1


def test_sizes_of_some_thousand_streams_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway runs for weeks, and reads a million streams."""
    monkeypatch.setattr(_reading, "_REMEMBERED_SIZES", 2)
    sizes = PageSizes()
    for key in (b"a", b"b", b"a", b"c"):
        sizes.learn(key, records_of(9))
    assert [sizes.count(key, 100, 300, 0) for key in (b"a", b"b", b"c")] == [10, 2, 10]
