"""Reading what is stored: pages that fit the records, and keys that hold something else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import redis.exceptions as rx

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


async def bring(sizes: PageSizes, key: bytes, records: list[Stored]) -> None:
    """Let a page have these records."""

    async def page() -> list[Stored]:
        return records

    assert await sizes.pages(key, 1, 1).measured(page()) == records


def counts(
    sizes: PageSizes, key: bytes, records: int, room: int, *founds: list[Stored]
) -> list[int]:
    """Return the counts of the pages of one read, at each of which so much has been found."""
    pages = sizes.pages(key, records, room)
    return [pages.count(found) for found in founds]


async def test_page_follows_the_size_of_the_records() -> None:
    """One request for all that may be returned costs the least."""
    sizes, some = PageSizes(), records_of(1)
    assert counts(sizes, b"a", 300, 10**6, [], some, some) == [2, 2, 2]
    await bring(sizes, b"a", records_of(99))
    assert counts(sizes, b"a", 300, 1_000, []) == [10]
    assert counts(sizes, b"a", 7, 1_000, []) == [7]
    assert counts(sizes, b"a", 300, 0, []) == [1]
    assert counts(sizes, b"a", 10**9, 10**9, []) == [512]
    assert counts(sizes, b"b", 300, 1_000, []) == [2]
    await bring(sizes, b"a", records_of(0))
    await bring(sizes, b"a", [])
    assert counts(sizes, b"a", 300, 100, []) == [100]


async def test_further_page_is_for_the_rest_of_the_room() -> None:
    """Whatever is fetched beyond the limits of a read is thrown away."""
    sizes, found = PageSizes(), records_of(100, 4)
    await bring(sizes, b"a", records_of(99))
    assert counts(sizes, b"a", 300, 1_000, found) == [6]
    assert counts(sizes, b"a", 6, 1_000, found) == [2]
    assert counts(sizes, b"a", 5, 401, found) == [1]
    assert counts(sizes, b"a", 4, 1_000, found) == [0]
    assert counts(sizes, b"a", 300, 400, found) == [0]


async def test_further_page_is_twice_as_large_at_most() -> None:
    """Small records may be followed by large ones."""
    sizes = PageSizes()
    pages = sizes.pages(b"a", 300, 10**6)
    assert pages.count([]) == 2
    await bring(sizes, b"a", records_of(99))
    assert [pages.count([]), pages.count([])] == [4, 8]


async def test_page_that_did_not_come_in_time_is_halved() -> None:
    """On a slow link the same request would run into the same deadline again and again."""

    async def late() -> list[Stored]:
        raise rx.TimeoutError

    sizes = PageSizes()
    await bring(sizes, b"a", records_of(9_999))
    for expected in (100, 49, 23):
        pages = sizes.pages(b"a", 300, 10**6)
        assert pages.count([]) == expected
        with pytest.raises(rx.TimeoutError):
            await pages.measured(late())
    await bring(sizes, b"a", records_of(10**6))
    assert counts(sizes, b"a", 300, 10**6, []) == [1]


async def test_sizes_of_some_thousand_streams_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway runs for weeks, and reads a million streams."""
    monkeypatch.setattr(_reading, "_REMEMBERED_SIZES", 2)
    sizes = PageSizes()
    for key in (b"a", b"b", b"a", b"c"):
        await bring(sizes, key, records_of(9))
    assert [counts(sizes, key, 300, 100, []) for key in (b"a", b"b", b"c")] == [[10], [2], [10]]


@pytest.mark.parametrize(
    ("stored", "size", "most", "room", "pages"),
    [
        *((1, 1, 9, 99, 1), (9, 1, 100, 999, 3), (2, 1, 100, 999, 2)),
        *((6, 1, 6, 999, 2), (6, 9, 100, 20, 2), (6, 9, 100, 18, 1)),
    ],
)
async def test_read_takes_no_more_requests_than_it_has_to(
    open_queue: OpenQueue,
    bare: Bare,
    stream: StreamId,
    stored: int,
    size: int,
    most: int,
    room: int,
    pages: int,
) -> None:
    """Each request is a round trip, for which a reader waits."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, i, bytes(size)) for i in range(stored)])
    before = (await bare.info("commandstats")).get("cmdstat_xrange", {}).get("calls", 0)
    await queue.read(stream, "", max_records=most, max_bytes=room, max_wait=0)
    assert (await bare.info("commandstats"))["cmdstat_xrange"]["calls"] - before == pages
