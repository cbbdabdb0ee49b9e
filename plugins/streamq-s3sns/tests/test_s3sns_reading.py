"""Reading: number and size of requests, gaps, and foreign objects."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from s3sns_bucket import BUCKET, PLENTY, count_calls, segments
from streamq import CursorError
from streamq.driver import (
    BackendError,
    ChunkQueue,
    Entry,
    StreamId,
    StreamNotFoundError,
)
from streamq.testing import OpenQueue
from streamq_s3sns import S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns._segment import decode_checkpoint, decode_entries


def count_fetched(queue: ChunkQueue) -> Counter[str]:
    """Count the bytes that a queue fetches from now on."""
    assert isinstance(queue, S3SnsQueue)
    fetched: Counter[str] = Counter()
    store = queue._store
    client = store.bucket.client

    class Body:
        def __init__(self, body: Any) -> None:
            self.body = body

        async def read(self) -> bytes:
            data: bytes = await self.body.read()
            fetched["bytes"] += len(data)
            return data

        def close(self) -> None:
            self.body.close()

    class Weighing:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        async def get_object(self, **arguments: Any) -> Any:
            answer = await client.get_object(**arguments)
            return answer | {"Body": Body(answer["Body"])}

    store.bucket.client = Weighing()
    return fetched


async def test_catching_up_holds_few_large_segments_in_memory(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Sixteen small segments at once are quick; sixteen of 8 MiB end a small container."""
    writing, reading = await open_queue(), await open_queue()
    for i in range(40):
        await writing.append(stream, [Entry(1, i, b"%d" % i)])
    for i in range(40, 48):
        await writing.append(stream, [Entry(1, i, bytes(3 * 2**20))])
    fetched = count_fetched(reading)
    found = list(await reading.read(stream, "", max_records=256, max_bytes=2**20, max_wait=0))
    assert len(found) == 40
    assert fetched["bytes"] < 4 * 2**20
    while len(found) < 48:
        more = await reading.read(
            stream, found[-1].position, max_records=256, max_bytes=2**20, max_wait=0
        )
        assert more
        found += more
    assert fetched["bytes"] < 26 * 2**20


async def test_large_segment_is_fetched_once_however_small_the_pages_are(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Segments of a fast stream have many records: one fetch for each page would be slow."""
    writing, reading = await open_queue(), await open_queue()
    records = [Entry(1, i, bytes(2**16)) for i in range(64)]
    await writing.append(stream, records)
    fetched = count_fetched(reading)
    position, count = "", 0
    while count < 64:
        found = await reading.read(stream, position, max_records=256, max_bytes=2**19, max_wait=0)
        position, count = found[-1].position, count + len(found)
    assert fetched["bytes"] < 2 * 64 * 2**16
    # A kept segment is not used when the stream was deleted or replaced.
    await reading.read(stream, "", max_records=3, max_bytes=2**20, max_wait=0)
    await writing.delete(stream)
    await writing.append(stream, [Entry(2, 0, b"new"), Entry(2, 1, b"newer")])
    found = await reading.read(stream, "1-1-2", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [b"new", b"newer"]


async def test_cursor_far_behind_is_followed_with_several_requests_at_once(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A reader that resumes does not know the end, and sequential requests take minutes."""
    writing, reading = await open_queue(), await open_queue()
    for i in range(40):
        await writing.append(stream, [Entry(1, i, b"%d" % i)])
    most = running = 0

    def began(**_: object) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)

    def ended(**_: object) -> None:
        nonlocal running
        running -= 1

    assert isinstance(reading, S3SnsQueue)
    events = reading._store.bucket.client.meta.events
    events.register("before-call.s3.GetObject", began)
    events.register("after-call.s3.GetObject", ended)
    found = await reading.read(stream, "3-1-1", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [b"%d" % i for i in range(2, 40)]
    assert most >= 8


async def test_segment_without_entries_before_a_hole_is_not_the_end(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """To a reader that does not wait, the remains of a lifecycle rule would look like the end."""
    queue, reading = await open_queue(), await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await queue.append(stream, [Entry(1, 0, b"a")], ttl=timedelta(hours=1))
    await queue.append(stream, [Entry(1, 1, b"b")])
    await queue.append(stream, [Entry(1, 2, b"c")])
    s3.delete_object(Bucket=BUCKET, Key=segments(s3, settings)[1])
    found = await reading.read(stream, "2-1-0", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [b"c"]


async def test_reading_a_long_stream_takes_a_request_for_each_segment(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Reading costs money as well: no listing of every key, and no second request for any."""
    writing, reading = await open_queue(), await open_queue()
    for i in range(40):
        await writing.append(stream, [Entry(1, i, b"%d" % i)])
    calls = count_calls(reading)
    found = await reading.read(stream, "", **PLENTY, max_wait=0)
    assert len(found) == 40
    assert calls["get_object"] <= 41
    assert sum(calls.values()) <= 45


async def begun_and_expired(writing: ChunkQueue, reading: ChunkQueue, stream: StreamId) -> str:
    """Let a stream of two segments expire; return a position within the first one.

    The reading connection has read the first segment, and does not list again for a while. The time
    to live in this segment is a day; the second one has shortened it.
    """
    await writing.append(stream, [Entry(3, i, b"old %d" % i) for i in range(3)])
    for queue in (writing, reading):
        first = await queue.read(stream, "", **PLENTY, max_wait=0)
        assert len(first) == 3
    await writing.append(stream, [Entry(3, 3, b"last")], ttl=timedelta(milliseconds=50))
    for queue in (writing, reading):  # each has its own view of the server's clock
        async with asyncio.timeout(20):
            with contextlib.suppress(StreamNotFoundError):
                while True:
                    await queue.describe(stream)
                    await asyncio.sleep(0.02)  # nothing tells that time has passed
    return first[0].position


@pytest.mark.parametrize("waits", [False, True])
async def test_reader_that_finds_a_new_stream_behind_an_expired_one_drops_the_old_text(
    open_queue: OpenQueue, stream: StreamId, waits: bool
) -> None:
    """Segments of both lie in a row until a sweep: a page across the border had expired text."""
    writing, reading = await open_queue(), await open_queue()
    position = await begun_and_expired(writing, reading, stream)
    await writing.append(stream, [Entry(4, 0, b"new"), Entry(4, 1, b"newer")])
    found = await reading.read(stream, position, **PLENTY, max_wait=10.0 * waits)
    assert [each.data for each in found] == [b"new", b"newer"]


async def test_reader_within_an_expired_stream_believes_what_another_reader_has_seen(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Readers of a process share one memory: a listing of the new stream, made for one of them,
    must not make the old one readable for the others, whose pages end before the new one."""
    writing, reading = await open_queue(), await open_queue()
    position = await begun_and_expired(writing, reading, stream)
    await writing.append(stream, [Entry(4, 0, b"new")])
    one: dict[str, Any] = {"max_records": 1, "max_bytes": 2**20, "max_wait": 0}
    # The one has read from the beginning, the other one has written.
    assert [each.data for each in await reading.read(stream, "", **one)] == [b"new"]
    for queue in (reading, writing):
        found = await queue.read(stream, position, **one)
        assert [each.data for each in found] == [b"new"]


async def test_reader_that_reaches_the_segment_by_which_its_stream_has_expired_gets_nothing(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A page holds the proof of expiry in its last segment: it must not be ignored."""
    writing, reading = await open_queue(), await open_queue()
    position = await begun_and_expired(writing, reading, stream)
    assert await reading.read(stream, position, **PLENTY, max_wait=0) == []


async def test_waiting_at_the_end_costs_few_requests(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Idle readers must not dominate the bill."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    position = (await queue.read(stream, "", **PLENTY, max_wait=0))[0].position
    calls = count_calls(queue)
    assert await queue.read(stream, position, **PLENTY, max_wait=1.0) == []
    assert sum(calls.values()) < 12


async def test_foreign_object_is_reported_and_does_not_disturb_listings(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """If others use the same prefix, the operator learns what to change."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    s3.put_object(Bucket=BUCKET, Key=f"{settings.prefix}/notes.txt", Body=b"hello")
    s3.put_object(Bucket=BUCKET, Key=f"{settings.prefix}/a/b/c/{'9' * 12}", Body=b"hello")
    assert [info.stream async for info in queue.streams(stream.tenant)] == [stream]
    (segment,) = [each for each in segments(s3, settings) if stream.tenant in each]
    s3.put_object(Bucket=BUCKET, Key=segment, Body=b"hello")
    with pytest.raises(BackendError, match="STREAMQ_S3SNS_PREFIX"):
        await queue.read(stream, "", **PLENTY, max_wait=0)
    with pytest.raises(BackendError, match="STREAMQ_S3SNS_PREFIX"):
        decode_entries(b"\0" * 30, "s3://b/k")
    with pytest.raises(BackendError, match="STREAMQ_S3SNS_PREFIX"):
        decode_checkpoint(1, "2 what", "s3://b/k")


async def test_foreign_objects_next_to_segments_hide_nothing_and_stay(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A note, or the remains of a tool, must not make a stream disappear."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    directory = queue._keys.directory(stream)  # type: ignore[attr-defined]
    foreign = [directory + name for name in ("0.bak", f"0/{'1' * 12}", "", "notes.txt")]
    for key in foreign:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"hello")
    other = await open_queue()
    assert (await other.describe(stream)).records == 1
    await other.append(stream, [Entry(2, 0, b"b")])
    found = await other.read(stream, "", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [b"a", b"b"]
    assert [info.stream async for info in other.streams(stream.tenant)] == [stream]
    await other.delete(stream)
    with pytest.raises(StreamNotFoundError):
        await other.describe(stream)
    assert sorted(segments(s3, settings)) == sorted(foreign)


@pytest.mark.parametrize("position", ["x", "1-2", "1-2-3-4", "1-2-" + "9" * 20, "-1-2-3"])
async def test_positions_of_other_backends_are_refused(
    open_queue: OpenQueue, stream: StreamId, position: str
) -> None:
    """A cursor of another backend must not be taken for a position."""
    with pytest.raises(CursorError):
        await (await open_queue()).read(stream, position, **PLENTY, max_wait=0)
