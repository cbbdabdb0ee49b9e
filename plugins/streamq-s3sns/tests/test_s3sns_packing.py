"""What was written in many small segments is read later with few requests, and not otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from s3sns_bucket import BUCKET, PLENTY, count_calls, segments
from streamq import Chunk, FencedError, StreamId, load_settings, open_reader, open_writer
from streamq.driver import ChunkQueue, Entry, Stored, StreamNotFoundError
from streamq.testing import OpenQueue, queue_factory
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns._packing import GROUP_SEGMENTS, LARGEST_SEGMENT_BYTES
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns._segment import PACK_METADATA

TTL = timedelta(minutes=5)


async def write(
    queue: ChunkQueue,
    stream: StreamId,
    indexes: Iterable[int],
    *,
    epoch: int = 1,
    ends: bool = False,
) -> list[bytes]:
    """Append entries one by one, each in a segment of its own; return their data."""
    texts = []
    for i in indexes:
        texts.append(b"%d of %d" % (i, epoch))
        await queue.append(stream, [Entry(epoch, i, texts[-1])])
    if ends:
        texts.append(b"end of %d" % epoch)
        await queue.append(stream, [Entry(epoch, max(indexes) + 1, texts[-1])], ttl=TTL)
    return texts


async def packed(queue: ChunkQueue) -> None:
    """Wait for what is being packed."""
    assert isinstance(queue, S3SnsQueue)
    while queue._packer._tasks:
        await asyncio.wait(queue._packer._tasks)


async def read(queue: ChunkQueue, stream: StreamId, after: str = "") -> list[Stored]:
    """Read all that there is after a position."""
    found: list[Stored] = []
    while more := await queue.read(stream, after, max_wait=0, **PLENTY):
        found += more
        after = more[-1].position
    return found


def texts(found: Iterable[Stored]) -> list[bytes]:
    """Return what was read."""
    return [each.data for each in found]


def packs(s3: Any, settings: S3SnsSettings) -> dict[str, str]:
    """Return the last parts of the keys that are packed, and what their metadata says."""
    found = {}
    for key in segments(s3, settings):
        metadata = s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]
        if PACK_METADATA in metadata:
            found[key[-3:]] = metadata[PACK_METADATA]
    return found


async def test_finished_stream_is_read_with_few_requests(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A thousand slow chunks would cost a thousand requests for each reader that comes later."""
    writing, reading = await open_queue(), await open_queue()
    told = await write(writing, stream, range(1_000), ends=True)
    await packed(writing)
    calls = count_calls(reading)
    found = await reading.read(stream, "", max_wait=0, **PLENTY)
    assert texts(found) == told
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


async def test_few_segments_are_not_worth_a_pack(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A PUT costs as much as twelve GETs."""
    queue = await open_queue()
    await write(queue, stream, range(6), ends=True)
    await packed(queue)
    assert packs(s3, settings) == {}


async def test_every_place_reads_the_same_before_and_after(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A reader may hold a place in the middle of a group when it is packed."""
    writing, reading = await open_queue(), await open_queue()
    told = await write(writing, stream, range(20))
    before = await read(reading, stream)
    told += await write(writing, stream, range(20, 30), ends=True)
    await packed(writing)
    assert packs(s3, settings) == {"998": "1 31 1"}
    after = await read(reading, stream)
    assert texts(after) == told
    for i, each in enumerate(before):
        assert texts(await read(reading, stream, each.position)) == told[i + 1 :]
    for i, each in enumerate(after):
        assert texts(await read(reading, stream, each.position)) == told[i + 1 :]


async def test_packed_group_is_read_in_pages(open_queue: OpenQueue, stream: StreamId) -> None:
    """Small pages must neither repeat nor fetch the whole group for each of them."""
    writing, reading = await open_queue(), await open_queue()
    told = await write(writing, stream, range(150), ends=True)
    await packed(writing)
    calls = count_calls(reading)
    found: list[Stored] = []
    after = ""
    while more := await reading.read(stream, after, max_records=7, max_bytes=2**20, max_wait=0):
        found += more
        after = more[-1].position
    assert texts(found) == told
    assert calls["get_object"] <= 2 + 22  # two packs, and a look for what follows each page


async def test_newest_records_are_told_once(open_queue: OpenQueue, stream: StreamId) -> None:
    """Going backwards, a pack must not bring again what has been seen."""
    queue = await open_queue()
    told = await write(queue, stream, range(30), ends=True)
    await packed(queue)
    for last in (1, 5, 30, 31, 50):
        info = await queue.describe(stream, last=last)
        assert texts(info.last) == told[::-1][:last]
        assert info.records == 31
        for i, each in enumerate(info.last):
            assert texts(await read(queue, stream, each.position)) == told[len(told) - i :]


async def test_reader_follows_while_groups_are_packed(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Live, nothing may be missed, repeated or reordered by what is packed behind the reader."""
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
    told = await write(writing, stream, range(350), ends=True)
    assert await following == told


async def test_stream_that_was_deleted_does_not_come_back(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """What packs knows nothing of who deletes."""
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
    told = await write(other, stream, range(3), epoch=2)
    assert isinstance(writing, S3SnsQueue)
    writing._packer.finish(writing._keys.directory(stream))
    await packed(writing)
    assert texts(await read(other, stream)) == told
    assert packs(s3, settings) == {}


async def test_place_in_a_pack_is_not_looked_for_in_what_was_there_before(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A process keeps what a page left of the segment, and gets a position from elsewhere."""
    writing, late = await open_queue(), await open_queue()
    early = [await open_queue() for _ in range(3)]
    await writing.append(stream, [Entry(1, i, b"%d of 1" % i) for i in range(3)])
    for each in early:
        await each.read(stream, "", max_records=1, max_bytes=2**20, max_wait=0)
    told = await write(writing, stream, range(3, 20), ends=True)
    await packed(writing)
    found = await read(late, stream)
    for each, i in zip(early, (2, 3, 10), strict=True):
        assert texts(await read(each, stream, found[i].position)) == told[i - 2 :]


async def test_place_in_a_pack_that_has_gone_repeats_nothing(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A lifecycle rule removes segments in any order: what was packed may stay longer."""
    first, second, reading = await open_queue(), await open_queue(), await open_queue()
    await write(first, stream, range(5))
    told = await write(second, stream, range(20), epoch=2, ends=True)
    await packed(second)
    assert packs(s3, settings) == {"993": "1 26 1"}
    found = (await read(reading, stream))[5:]
    s3.delete_object(Bucket=BUCKET, Key=segments(s3, settings)[-6])
    for i, each in enumerate(found):
        assert texts(await read(reading, stream, each.position)) == told[i + 1 :]


async def test_page_goes_on_where_only_the_pack_is_left(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """It is younger than what is packed into it; a short page says that there is no more."""
    first, second, reading = await open_queue(), await open_queue(), await open_queue()
    told = await write(first, stream, range(5))
    told += await write(second, stream, range(20), epoch=2, ends=True)
    await packed(second)
    told += await write(second, stream, range(21, 24), epoch=2)
    for key in segments(s3, settings)[3:-6]:
        s3.delete_object(Bucket=BUCKET, Key=key)
    assert texts(await reading.read(stream, "", max_wait=0, **PLENTY)) == told


async def test_stream_that_began_again_with_the_same_text_keeps_its_own_segments(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """S3 gives the same tag to the same bytes: that alone does not tell one stream from another."""
    writing, other = await open_queue(), await open_queue()
    await write(writing, stream, range(20))
    await other.delete(stream)
    told = await write(other, stream, range(3))
    assert isinstance(writing, S3SnsQueue)
    writing._packer.finish(writing._keys.directory(stream))
    await packed(writing)
    assert packs(s3, settings) == {}
    assert texts(await read(other, stream)) == told


async def test_server_without_tags_is_written_to_and_not_packed(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """What only packing needs must not make an append fail."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    client = queue._store.bucket.client

    class Untagged:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        async def put_object(self, **arguments: Any) -> Any:
            answer = await client.put_object(**arguments)
            del answer["ETag"]
            return answer

    queue._store.bucket.client = Untagged()
    told = await write(queue, stream, range(20), ends=True)
    await packed(queue)
    assert packs(s3, settings) == {}
    assert texts(await read(queue, stream)) == told


async def test_unexpected_error_of_a_pack_is_told(
    open_queue: OpenQueue,
    stream: StreamId,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody waits for the task: what it ends with would be found by the garbage collector."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)

    async def fail(*_: object, **__: object) -> bool:
        raise LookupError("out of the blue")

    monkeypatch.setattr(queue._store, "pack", fail)
    await write(queue, stream, range(20), ends=True)
    tasks = tuple(queue._packer._tasks)
    await asyncio.gather(*tasks)
    assert len(tasks) == 1
    assert "out of the blue" in caplog.text
    assert queue._packer._packing == 0


async def test_attempts_pack_what_each_of_them_wrote(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A group ends where somebody else's segment begins; the stale one packs only what it won."""
    first, second, reading = await open_queue(), await open_queue(), await open_queue()
    told = await write(first, stream, range(20))
    told += await write(second, stream, range(20), epoch=2)
    with pytest.raises(FencedError):
        await write(first, stream, range(20, 22))
    assert isinstance(first, S3SnsQueue)
    first._packer.finish(first._keys.directory(stream))
    told += await write(second, stream, range(20, 30), epoch=2, ends=True)
    await packed(first)
    await packed(second)
    assert packs(s3, settings) == {"998": "1 20 1", "978": "1 51 1"}
    assert texts(await read(reading, stream)) == told


async def test_large_segments_are_left_alone(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """They are worth a request each, and writing them twice costs time and storage."""
    queue = await open_queue()
    told = await write(queue, stream, range(10))
    told.append(bytes(LARGEST_SEGMENT_BYTES))
    await queue.append(stream, [Entry(1, 10, told[-1])])
    told += await write(queue, stream, range(11, 20), ends=True)
    await packed(queue)
    assert packs(s3, settings) == {"998": "1 10 1", "987": "1 21 1"}
    assert texts(await read(queue, stream)) == told


async def test_pack_of_segments_with_several_entries_or_none(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """The first segment's own entries are told from what was packed into it."""
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
    """Streams that never end must not fill a worker; those that grow are packed later."""
    monkeypatch.setattr("streamq_s3sns._packing._HELD_BYTES", 20_000)
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    told = {}
    for i in range(12):
        each = StreamId(stream.tenant, f"{stream.name}-{i}")
        told[each] = await write(queue, each, range(8))
        assert queue._packer._held <= 20_000
    await packed(queue)
    assert queue._packer._packing == 0
    for each, expected in told.items():
        assert texts(await read(queue, each)) == expected
    calls = count_calls(queue)
    await read(queue, next(iter(told)))
    assert calls["get_object"] <= 3  # it had to give way, and was packed as it was


def refused(code: str, status: int) -> Exception:
    """Return an error as S3 sends it."""
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = ClientError(answer, "PutObject")
    return error


def unreachable() -> Exception:
    """Return an error as the client makes it."""
    error: Exception = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    return error


def refuse_packs(queue: ChunkQueue, error: Callable[[], Exception]) -> list[str]:
    """Let every pack fail from now on; return the keys of those that were tried, as they come."""
    assert isinstance(queue, S3SnsQueue)
    client = queue._store.bucket.client
    tried: list[str] = []

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        async def put_object(self, **arguments: Any) -> Any:
            if "IfMatch" in arguments:
                tried.append(arguments["Key"])
                raise error()
            return await client.put_object(**arguments)

    queue._store.bucket.client = Refusing()
    return tried


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (lambda: refused("AccessDenied", 403), False),
        (lambda: refused("NotImplemented", 501), False),
        (lambda: refused("SlowDown", 503), True),
        (unreachable, True),
    ],
)
async def test_refused_pack_harms_nobody(
    open_queue: OpenQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    caplog: pytest.LogCaptureFixture,
    error: Callable[[], Exception],
    goes_on: bool,
) -> None:
    """Everything is stored already: what is not permitted is tried once, and told once."""
    queue = await open_queue()
    tried = refuse_packs(queue, error)
    with caplog.at_level(logging.WARNING, logger="streamq"):
        told = await write(queue, stream, range(10), ends=True)
        await packed(queue)
        other = StreamId(stream.tenant, f"{stream.name}-other")
        await write(queue, other, range(10), ends=True)
        await packed(queue)
    assert len(tried) == (2 if goes_on else 1)
    assert len(caplog.records) == (0 if goes_on else 1)
    assert packs(s3, settings) == {}
    assert texts(await read(queue, stream)) == told


async def test_who_was_refused_tries_again_later(
    open_queue: OpenQueue, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that has expired is renewed: a worker must not go without packs until it ends."""
    monkeypatch.setattr("streamq_s3sns._packing._REFUSED_SECONDS", 0.0)
    queue = await open_queue()
    tried = refuse_packs(queue, lambda: refused("ExpiredToken", 400))
    for name in ("first", "second"):
        each = StreamId(stream.tenant, f"{stream.name}-{name}")
        await write(queue, each, range(10), ends=True)
        await packed(queue)
    assert len(tried) == 2


async def test_server_without_the_condition_is_not_trusted_to_pack(
    open_queue: OpenQueue, stream: StreamId, caplog: pytest.LogCaptureFixture
) -> None:
    """It could bring a deleted stream back; the one that it was proved with is as it should be."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)

    def forget_condition(request: Any, **_: object) -> None:
        del request.headers["If-Match"]

    queue._store.bucket.client.meta.events.register("before-sign.s3.PutObject", forget_condition)
    told = await write(queue, stream, range(10), ends=True)
    await packed(queue)
    other = StreamId(stream.tenant, f"{stream.name}-other")
    await write(queue, other, range(10), ends=True)
    await packed(queue)
    assert "If-Match" in caplog.text
    assert texts(await read(queue, stream)) == told
    calls = count_calls(queue)
    assert len(await read(queue, other)) == 11
    assert calls["get_object"] >= 11


async def test_packing_can_be_switched_off(
    stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Where objects are under lock, for example."""
    without = settings.model_copy(update={"pack": False})
    async with queue_factory(S3SnsDriver, without) as open_without:
        queue = await open_without()
        await write(queue, stream, range(20), ends=True)
        await packed(queue)
    assert packs(s3, settings) == {}


async def test_packs_leave_connections_to_appends(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few of them, large packs on a slow line would make every append wait for one."""
    few = settings.model_copy(update={"max_connections": 2})
    async with queue_factory(S3SnsDriver, few) as open_few:
        queue = await open_few()
        assert isinstance(queue, S3SnsQueue)
        began = asyncio.Event()
        packing = []

        async def hold(directory: str, *_: object, **__: object) -> bool:
            packing.append(directory)
            began.set()
            await asyncio.Event().wait()
            return True

        monkeypatch.setattr(queue._store, "pack", hold)
        for i in range(4):
            await write(queue, StreamId(stream.tenant, f"{stream.name}-{i}"), range(10), ends=True)
        async with asyncio.timeout(5):
            await began.wait()
        await write(queue, stream, range(10))
        assert len(packing) == 1
        tasks = tuple(queue._packer._tasks)
        await queue._packer.aclose(0.1)
        assert all(task.done() for task in tasks)
        assert queue._packer._packing == 0


async def test_queue_that_is_closed_ends_its_packs(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A program that ends right after its stream leaves it packed all the same."""
    queue = await open_queue()
    await write(queue, stream, range(20), ends=True)
    await queue.aclose()
    assert packs(s3, settings) == {"998": "1 21 1"}


async def test_chunks_of_a_packed_stream(
    monkeypatch: pytest.MonkeyPatch, settings: S3SnsSettings
) -> None:
    """All the way: a writer that flushes each chunk, and a reader that comes later."""
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
