"""Catching up: what is fetched, how much of it at once, and how often."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from s3sns_bucket import BUCKET, PLENTY, segments
from streamq import StreamId
from streamq.driver import ChunkQueue, Entry
from streamq.testing import OpenQueue
from streamq_s3sns import S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue


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
    """Sixteen at once are quick while they are small; sixteen times 8 MiB end a small container."""
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
    """A fast stream has segments of many records: fetched for each page they cost their square."""
    writing, reading = await open_queue(), await open_queue()
    records = [Entry(1, i, bytes(2**16)) for i in range(64)]
    await writing.append(stream, records)
    fetched = count_fetched(reading)
    position, count = "", 0
    while count < 64:
        found = await reading.read(stream, position, max_records=256, max_bytes=2**19, max_wait=0)
        position, count = found[-1].position, count + len(found)
    assert fetched["bytes"] < 2 * 64 * 2**16
    # What is kept is not believed when the stream has gone, or is another one.
    await reading.read(stream, "", max_records=3, max_bytes=2**20, max_wait=0)
    await writing.delete(stream)
    await writing.append(stream, [Entry(2, 0, b"new"), Entry(2, 1, b"newer")])
    found = await reading.read(stream, "1-1-2", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [b"new", b"newer"]


async def test_cursor_far_behind_is_followed_with_several_requests_at_once(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Whoever resumes knows of no end, and one request after the other takes minutes."""
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
    """What a lifecycle rule has left there would look like an end to whoever does not wait."""
    queue, reading = await open_queue(), await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await queue.append(stream, [Entry(1, 0, b"a")], ttl=timedelta(hours=1))
    await queue.append(stream, [Entry(1, 1, b"b")])
    await queue.append(stream, [Entry(1, 2, b"c")])
    s3.delete_object(Bucket=BUCKET, Key=segments(s3, settings)[1])
    found = await reading.read(stream, "2-1-0", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [b"c"]
