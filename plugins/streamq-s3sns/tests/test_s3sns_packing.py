"""Streams of many small segments are packed, and read later with few requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from s3sns_bucket import BUCKET, PLENTY, count_calls, segments
from s3sns_packing import TTL, packed, packs, read, texts, write
from streamq import Chunk, FencedError, StreamId, load_settings, open_reader, open_writer
from streamq.driver import Entry, Stored, StreamNotFoundError
from streamq.testing import OpenQueue
from streamq_s3sns import S3SnsSettings
from streamq_s3sns._packing import GROUP_SEGMENTS, LARGEST_SEGMENT_BYTES
from streamq_s3sns._queue import S3SnsQueue


async def test_finished_stream_is_read_with_few_requests(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A thousand slow chunks would cost a thousand requests for each reader that comes later."""
    writing, reading = await open_queue(), await open_queue()
    written = await write(writing, stream, range(1_000), ends=True)
    await packed(writing)
    calls = count_calls(reading)
    found = await reading.read(stream, "", max_wait=0, **PLENTY)
    assert texts(found) == written
    assert calls["get_object"] <= 1_000 // GROUP_SEGMENTS + 3
    assert calls.total() <= 1_000 // GROUP_SEGMENTS + 6
    assert len(segments(s3, settings)) == 1_000  # a page: nothing has been removed


async def test_packing_costs_a_request_for_a_group(open_queue: OpenQueue, stream: StreamId) -> None:
    """It must not cost the writer what it saves the reader."""
    queue = await open_queue()
    await write(queue, StreamId(stream.tenant, f"{stream.name}-first"), range(GROUP_SEGMENTS))
    await packed(queue)  # where both conditions have been proved
    calls = count_calls(queue)
    await write(queue, stream, range(3 * GROUP_SEGMENTS))
    await packed(queue)
    assert calls["put_object"] == 3 * GROUP_SEGMENTS + 3


async def test_few_segments_are_not_packed(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A PUT costs as much as twelve GETs."""
    queue = await open_queue()
    await write(queue, stream, range(6), ends=True)
    await packed(queue)
    assert packs(s3, settings) == {}


async def test_every_position_reads_the_same_before_and_after_packing(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A reader may be in the middle of a group when it is packed."""
    writing, reading = await open_queue(), await open_queue()
    written = await write(writing, stream, range(20))
    before = await read(reading, stream)
    written += await write(writing, stream, range(20, 30), ends=True)
    await packed(writing)
    assert packs(s3, settings) == {"998": "1 31 1"}
    after = await read(reading, stream)
    assert texts(after) == written
    for i, each in enumerate(before):
        assert texts(await read(reading, stream, each.position)) == written[i + 1 :]
    for i, each in enumerate(after):
        assert texts(await read(reading, stream, each.position)) == written[i + 1 :]


async def test_packed_group_is_read_in_pages(open_queue: OpenQueue, stream: StreamId) -> None:
    """Small pages must neither repeat nor fetch the whole group for each of them."""
    writing, reading = await open_queue(), await open_queue()
    written = await write(writing, stream, range(150), ends=True)
    await packed(writing)
    calls = count_calls(reading)
    found: list[Stored] = []
    after = ""
    while more := await reading.read(stream, after, max_records=7, max_bytes=2**20, max_wait=0):
        found += more
        after = more[-1].position
    assert texts(found) == written
    assert calls["get_object"] <= 2 + 22  # two packs, and a look for what follows each page


async def test_newest_records_are_returned_once(open_queue: OpenQueue, stream: StreamId) -> None:
    """When reading backwards, a pack must not return entries that have been returned."""
    queue = await open_queue()
    written = await write(queue, stream, range(30), ends=True)
    await packed(queue)
    for last in (1, 5, 30, 31, 50):
        info = await queue.describe(stream, last=last)
        assert texts(info.last) == written[::-1][:last]
        assert info.records == 31
        for i, each in enumerate(info.last):
            assert texts(await read(queue, stream, each.position)) == written[len(written) - i :]


@pytest.mark.full
async def test_reader_follows_while_groups_are_packed(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Packing behind a live reader must not drop, repeat or reorder anything."""
    writing, reading = await open_queue(), await open_queue()

    async def follow() -> list[bytes]:
        found: list[bytes] = []
        after = ""
        while not found or not found[-1].startswith(b"end"):
            for each in await reading.read(
                stream, after, max_records=40, max_bytes=2**20, max_wait=5
            ):
                found.append(each.data)
                after = each.position
        return found

    following = asyncio.create_task(follow())
    written = await write(writing, stream, range(350), ends=True)
    assert await following == written


async def test_stream_that_was_deleted_does_not_come_back(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """The packer does not know of deletions in other processes."""
    writing, other = await open_queue(), await open_queue()
    await write(writing, stream, range(20))
    await other.delete(stream)
    assert isinstance(writing, S3SnsQueue)
    writing._packer.finish(writing._keys.directory(stream))
    await packed(writing)
    assert segments(s3, settings) == []
    with pytest.raises(StreamNotFoundError):
        await other.describe(stream)


async def test_stream_that_began_again_keeps_its_own_segments(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Its first segment has the number that the old one's had."""
    writing, other = await open_queue(), await open_queue()
    await write(writing, stream, range(20))
    await other.delete(stream)
    written = await write(other, stream, range(3), epoch=2)
    assert isinstance(writing, S3SnsQueue)
    writing._packer.finish(writing._keys.directory(stream))
    await packed(writing)
    assert texts(await read(other, stream)) == written
    assert packs(s3, settings) == {}


async def test_position_in_a_pack_is_not_searched_in_the_segment_before_packing(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A process may keep the rest of a segment, and get a position from another process."""
    writing, late = await open_queue(), await open_queue()
    early = [await open_queue() for _ in range(3)]
    await writing.append(stream, [Entry(1, i, b"%d of 1" % i) for i in range(3)])
    for each in early:
        await each.read(stream, "", max_records=1, max_bytes=2**20, max_wait=0)
    written = await write(writing, stream, range(3, 20), ends=True)
    await packed(writing)
    found = await read(late, stream)
    for each, i in zip(early, (2, 3, 10), strict=True):
        assert texts(await read(each, stream, found[i].position)) == written[i - 2 :]


async def test_position_in_a_pack_that_is_gone_repeats_nothing(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A lifecycle rule removes segments in any order: packed ones may stay longer than the pack."""
    first, second, reading = await open_queue(), await open_queue(), await open_queue()
    await write(first, stream, range(5))
    written = await write(second, stream, range(20), epoch=2, ends=True)
    await packed(second)
    assert packs(s3, settings) == {"993": "1 26 1"}
    found = (await read(reading, stream))[5:]
    s3.delete_object(Bucket=BUCKET, Key=segments(s3, settings)[-6])
    for i, each in enumerate(found):
        assert texts(await read(reading, stream, each.position)) == written[i + 1 :]


async def test_page_continues_where_only_the_pack_is_left(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A pack is younger than the segments in it; a short page would mean the end of the stream."""
    first, second, reading = await open_queue(), await open_queue(), await open_queue()
    written = await write(first, stream, range(5))
    written += await write(second, stream, range(20), epoch=2, ends=True)
    await packed(second)
    written += await write(second, stream, range(21, 24), epoch=2)
    for key in segments(s3, settings)[3:-6]:
        s3.delete_object(Bucket=BUCKET, Key=key)
    assert texts(await reading.read(stream, "", max_wait=0, **PLENTY)) == written


async def test_stream_that_began_again_with_the_same_text_keeps_its_own_segments(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """S3 gives the same tag to the same bytes, so the tag does not distinguish two streams."""
    writing, other = await open_queue(), await open_queue()
    await write(writing, stream, range(20))
    await other.delete(stream)
    written = await write(other, stream, range(3))
    assert isinstance(writing, S3SnsQueue)
    writing._packer.finish(writing._keys.directory(stream))
    await packed(writing)
    assert packs(s3, settings) == {}
    assert texts(await read(other, stream)) == written


async def test_each_attempt_packs_its_own_segments(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A group ends at another writer's segment; a stale attempt packs only what it won."""
    first, second, reading = await open_queue(), await open_queue(), await open_queue()
    written = await write(first, stream, range(20))
    written += await write(second, stream, range(20), epoch=2)
    with pytest.raises(FencedError):
        await write(first, stream, range(20, 22))
    assert isinstance(first, S3SnsQueue)
    first._packer.finish(first._keys.directory(stream))
    written += await write(second, stream, range(20, 30), epoch=2, ends=True)
    await packed(first)
    await packed(second)
    assert packs(s3, settings) == {"998": "1 20 1", "978": "1 51 1"}
    assert texts(await read(reading, stream)) == written


async def test_large_segments_are_not_packed(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """They are worth a request each, and storing them twice costs time and money."""
    queue = await open_queue()
    written = await write(queue, stream, range(10))
    written.append(bytes(LARGEST_SEGMENT_BYTES))
    await queue.append(stream, [Entry(1, 10, written[-1])])
    written += await write(queue, stream, range(11, 20), ends=True)
    await packed(queue)
    assert packs(s3, settings) == {"998": "1 10 1", "987": "1 21 1"}
    assert texts(await read(queue, stream)) == written


async def test_pack_of_segments_with_several_entries_or_none(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """The first segment's own entries are distinguished from those packed into it."""
    queue = await open_queue()
    for i in range(10):
        await queue.append(stream, [Entry(1, 3 * i + j, b"%d" % (3 * i + j)) for j in range(3)])
    # A repeat with another time to live: an empty segment.
    await queue.append(stream, [Entry(1, 29, b"29")], ttl=TTL / 2)
    await packed(queue)
    assert packs(s3, settings) == {"998": "1 11 3"}
    assert texts(await read(queue, stream)) == [b"%d" % i for i in range(30)]
    assert texts((await queue.describe(stream, last=40)).last) == [
        b"%d" % i for i in reversed(range(30))
    ]


async def test_many_streams_take_bounded_memory(
    open_queue: OpenQueue, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams that never end must not fill a worker's memory."""
    monkeypatch.setattr("streamq_s3sns._packing._HELD_BYTES", 20_000)
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    written = {}
    for i in range(12):
        each = StreamId(stream.tenant, f"{stream.name}-{i}")
        written[each] = await write(queue, each, range(8))
        assert queue._packer._held <= 20_000
    await packed(queue)
    assert queue._packer._packing == 0
    for each, expected in written.items():
        assert texts(await read(queue, each)) == expected
    calls = count_calls(queue)
    await read(queue, next(iter(written)))
    assert calls["get_object"] <= 3  # it had to give way, and was packed as it was


async def test_chunks_of_a_packed_stream(
    monkeypatch: pytest.MonkeyPatch, settings: S3SnsSettings
) -> None:
    """End to end: a writer that flushes each chunk, and a later reader."""
    for name in ("bucket", "prefix", "topic_arn"):
        monkeypatch.setenv(f"STREAMQ_S3SNS_{name.upper()}", getattr(settings, name))
    streamq_settings = load_settings(backend="s3sns")
    stream = StreamId("default", "slow")
    async with open_writer(stream, settings=streamq_settings) as writer:
        for i in range(120):
            await writer.send_chunk(f"chunk {i}")
            await writer.flush()
    async with open_reader(stream, settings=streamq_settings) as reader:
        found = [event.data async for event in reader if isinstance(event, Chunk)]
    assert found == [b"chunk %d" % i for i in range(120)]
