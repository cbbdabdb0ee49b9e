"""Listing by an index: what it has, and what leaves it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from redis_streams import Bare, OpenAt
from streamq import StreamId
from streamq.driver import BackendError, ChunkQueue, Entry
from streamq_redis._naming import KeySpace
from streamq_redis.embedded import EmbeddedRedis

KEYS = KeySpace("streamq", is_indexed=True)


@pytest.fixture
async def queue(open_at: OpenAt, server: EmbeddedRedis) -> ChunkQueue:
    """Return a queue that lists by an index."""
    return await open_at(server.url, listing="index")


async def names(queue: ChunkQueue, tenant: str) -> set[str]:
    """Return the names of the streams that are listed."""
    return {each.stream.name async for each in queue.streams(tenant)}


async def test_stream_that_was_stored_without_index_is_listed_after_its_next_append(
    queue: ChunkQueue, open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """The setting may be changed while streams are there; none is lost."""
    former = await open_at(server.url)
    await former.append(stream, [Entry(1, 0, b"a")])
    (record,) = await queue.read(stream, "", max_records=9, max_bytes=99, max_wait=0)
    assert record.data == b"a"
    assert await names(queue, stream.tenant) == set()
    await queue.append(stream, [Entry(1, 1, b"b")])
    assert await names(queue, stream.tenant) == {stream.name}
    assert await names(former, stream.tenant) == {stream.name}


async def test_stream_that_another_process_has_deleted_without_index_is_not_listed(
    queue: ChunkQueue, open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """For a while some processes have the setting, and others not."""
    await queue.append(stream, [Entry(1, 0, b"a")])
    await (await open_at(server.url)).delete(stream)
    assert await names(queue, stream.tenant) == set()


async def test_delete_leaves_no_name_behind(
    queue: ChunkQueue, bare: Bare, stream: StreamId
) -> None:
    """A name may be as personal as what the stream said."""
    await queue.append(stream, [Entry(1, 0, b"a")])
    await queue.delete(stream)
    assert not await bare.exists(KEYS.index(stream.tenant))


async def test_append_drops_names_whose_time_is_over(
    queue: ChunkQueue, bare: Bare, stream: StreamId
) -> None:
    """Otherwise the index would keep the name of every stream that there ever was."""
    index = KEYS.index(stream.tenant)
    await bare.zadd(index, {"over": time.time() - 10, "not over": time.time() + 100})
    await queue.append(stream, [Entry(1, 0, b"a")])
    assert set(await bare.zrange(index, 0, -1)) == {b"not over", stream.name.encode()}


async def test_name_outlives_its_stream_by_a_day(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId
) -> None:
    """A clock that is wrong by hours must not hide a stream that still exists."""
    queue = await open_at(server.url, listing="index", ttl=timedelta(days=2))
    index, day = KEYS.index(stream.tenant), 86_400
    for ttl, days in ((None, 3), (timedelta(hours=1), 3), (timedelta(days=9), 10)):
        began = time.time()
        await queue.append(stream, [Entry(days, 0, b"a")], ttl=ttl)
        until = await bare.zscore(index, stream.name)
        assert until is not None
        assert days * day <= until - began < days * day + 60


async def test_append_that_cannot_be_indexed_fails(
    queue: ChunkQueue, bare: Bare, stream: StreamId
) -> None:
    """A stream that no listing shows would be found by no sweep."""
    await bare.set(KEYS.index(stream.tenant), "text")
    with pytest.raises(BackendError, match="holds something else"):
        await queue.append(stream, [Entry(1, 0, b"a")])
