"""Appends: segments in the bucket, races between writers, the fence, and expiry."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3sns_bucket import BUCKET, PLENTY, count_calls, segments
from streamq import (
    FencedError,
)
from streamq.driver import (
    ChunkQueue,
    ConfigurationError,
    Entry,
    QueueOptions,
    StreamId,
    StreamNotFoundError,
)
from streamq.testing import OpenQueue
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns._segment import decode_entries


async def test_one_append_is_one_segment_and_one_request(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Each request costs money: a writer that knows the end of its stream makes one."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    calls = count_calls(queue)
    for i in range(1, 4):
        await queue.append(stream, [Entry(1, 3 * i + j, b"%d" % j) for j in range(3)])
    assert calls == Counter(put_object=3)
    assert len(segments(s3, settings)) == 4


async def test_server_that_overwrites_segments_is_refused_at_the_first_append(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Without the condition two attempts could silently overwrite each other."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)

    def forget_condition(request: Any, **_: object) -> None:
        del request.headers["If-None-Match"]

    queue._store.bucket.client.meta.events.register("before-sign.s3.PutObject", forget_condition)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="If-None-Match"):
            await queue.append(stream, [Entry(1, 0, b"a"), Entry(1, 1, b"b")])
        stream = StreamId(stream.tenant, f"{stream.name}-other")


async def test_fence_is_checked_once_for_each_queue(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """The check takes requests that cost money."""
    queue = await open_queue()
    calls = count_calls(queue)
    for i in range(3):
        await queue.append(StreamId(stream.tenant, f"{stream.name}-{i}"), [Entry(1, 0, b"a")])
    assert calls["put_object"] == 2 + 3
    assert calls["delete_object"] == 1


async def test_fence_is_checked_without_the_segment(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A segment that is sent twice would come back if its stream had just been deleted."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    sent: list[str] = []

    def note(params: dict[str, Any], **_: object) -> None:
        sent.append(params["Key"])

    queue.store.bucket.client.meta.events.register("provide-client-params.s3.PutObject", note)
    await queue.append(stream, [Entry(1, 0, b"a")])
    (segment,) = segments(s3, settings)
    assert sent.count(segment) == 1
    assert len(sent) == 3


async def test_large_append_is_cut_into_segments(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A failed request is repeated whole: it must fit through a slow connection in time."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, i, bytes(3_000_000)) for i in range(5)])
    assert len(segments(s3, settings)) == 3
    found = await queue.read(stream, "", **PLENTY, max_wait=0)
    assert [len(each.data) for each in found] == [3_000_000] * 5


async def test_two_attempts_at_once_share_no_segment(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Exactly one wins each number; nothing of the older attempt comes after the newer one."""
    queues = [await open_queue() for _ in range(4)]
    acknowledged: dict[int, int] = {}

    async def write(epoch: int, queue: ChunkQueue, count: int) -> None:
        for i in range(count):
            await queue.append(stream, [Entry(epoch, i, b"%d.%d" % (epoch, i))])
            acknowledged[epoch] = i + 1

    old = asyncio.ensure_future(write(1, queues[0], 100_000))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(30):
        await write(2, queues[1], 20)
        with pytest.raises(FencedError):
            await old
    reads = [await each.read(stream, "", **PLENTY, max_wait=0) for each in queues[2:]]
    assert reads[0] == reads[1]
    data = [each.data for each in reads[0]]
    expected = [b"1.%d" % i for i in range(acknowledged[1])] + [b"2.%d" % i for i in range(20)]
    assert data == expected
    epochs = []
    for key in segments(s3, settings)[::-1]:
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        epochs.append({entry.epoch for entry in decode_entries(body, key)})
    assert all(len(each) <= 1 for each in epochs)


async def test_many_writers_of_one_epoch_store_each_entry_once(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Acknowledgements get lost and appends are repeated, perhaps while the first still runs."""
    queues = [await open_queue() for _ in range(5)]
    for i in range(10):
        batch = [Entry(1, 2 * i, b"%d" % i), Entry(1, 2 * i + 1, b"%d+" % i)]
        await asyncio.gather(*(queue.append(stream, batch) for queue in queues))
    found = await queues[0].read(stream, "", **PLENTY, max_wait=0)
    assert [each.data for each in found] == [
        b"%d%s" % (i, s) for i in range(10) for s in (b"", b"+")
    ]


async def test_new_attempt_gets_its_turn_against_a_busy_one(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A stale attempt that never pauses must not keep its successor out."""
    busy, newcomer = await open_queue(), await open_queue()

    async def write() -> None:
        for i in itertools.count():
            await busy.append(stream, [Entry(1, i, b"x")])

    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0.1)
    async with asyncio.timeout(20):
        await newcomer.append(stream, [Entry(2, 0, b"new")])
        with pytest.raises(FencedError):
            await writing
    # The announcement has been deleted.
    assert all(key.rpartition("/")[2].isdigit() for key in segments(s3, settings))


async def test_conflict_without_a_winner_is_tried_again(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """S3 answers 409 when a deletion of the same key is under way."""
    queue = await open_queue()
    turns = itertools.count()

    def conflict(name: str) -> None:
        if name == "put_object" and next(turns) in (0, 3):  # of the proof, and of the segment
            answer = {"Error": {"Code": "ConditionalRequestConflict", "Message": "m"}}
            raise ClientError(answer | {"ResponseMetadata": {"HTTPStatusCode": 409}}, name)

    count_calls(queue, conflict)
    await queue.append(stream, [Entry(1, 0, b"a")])
    assert [each.data for each in await queue.read(stream, "", **PLENTY, max_wait=0)] == [b"a"]


async def test_expired_stream_gives_way_to_a_new_one_and_positions_stay_valid(
    settings: S3SnsSettings, stream: StreamId, open_queue: OpenQueue
) -> None:
    """An expired stream is stored until a sweep, but it must be invisible and fence no writer."""
    async with await S3SnsDriver.open(QueueOptions(ttl=timedelta(seconds=2)), settings) as brief:
        await brief.append(stream, [Entry(7, 0, b"old")])
        position = (await brief.read(stream, "", **PLENTY, max_wait=0))[0].position
        await asyncio.sleep(2.05)
    queue = await open_queue()
    with pytest.raises(StreamNotFoundError):
        await queue.describe(stream)
    await queue.append(stream, [Entry(1, 0, b"new")])
    for after in ("", "1-7-0", position):
        found = await queue.read(stream, after, **PLENTY, max_wait=0)
        assert [each.data for each in found] == [b"new"]
    assert (await queue.describe(stream)).records == 1


async def test_old_memory_of_a_stream_is_not_used(
    open_queue: OpenQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lifecycle rule may have freed the number after the last one that a process has won."""
    first, second = await open_queue(), await open_queue()
    for i in range(3):
        await first.append(stream, [Entry(1, i, b"%d" % i)])
    for i in range(3):
        await second.append(stream, [Entry(2, i, b"%d" % i)])
    s3.delete_object(Bucket=BUCKET, Key=segments(s3, settings)[2])
    assert isinstance(first, S3SnsQueue)
    clock = first._appender._clock
    monkeypatch.setattr(first._appender, "_clock", lambda: clock() + 86_400)
    with pytest.raises(FencedError):
        await first.append(stream, [Entry(1, 3, b"stale")])
    await first.append(stream, [Entry(3, 0, b"new")])
    assert [each.data for each in (await second.describe(stream, last=1)).last] == [b"new"]
