"""What is in the bucket, who wins which segment, and what throttling does."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3sns_bucket import BUCKET, PLENTY, count_calls, segments
from streamq import (
    BackendUnavailableError,
    CursorError,
    FencedError,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import (
    BackendError,
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
from streamq_s3sns._segment import decode_checkpoint, decode_entries
from streamq_s3sns.requests._server_clock import ServerClock


async def test_one_append_is_one_segment_and_one_request(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Each request is paid for: a writer that knows where it stands makes one."""
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
    """Without the condition nothing keeps two attempts from overwriting each other, silently."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)

    def forget_condition(request: Any, **_: object) -> None:
        del request.headers["If-None-Match"]

    queue._store.bucket.client.meta.events.register("before-sign.s3.PutObject", forget_condition)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="If-None-Match"):
            await queue.append(stream, [Entry(1, 0, b"a"), Entry(1, 1, b"b")])
        stream = StreamId(stream.tenant, f"{stream.name}-other")


async def test_fence_is_proved_once_for_each_queue(open_queue: OpenQueue, stream: StreamId) -> None:
    """The proof is a request that is paid for."""
    queue = await open_queue()
    calls = count_calls(queue)
    for i in range(3):
        await queue.append(StreamId(stream.tenant, f"{stream.name}-{i}"), [Entry(1, 0, b"a")])
    assert calls["put_object"] == 2 + 3
    assert calls["delete_object"] == 1


async def test_fence_is_proved_without_the_segment(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A segment that is sent once more comes back if its stream has just been deleted."""
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
    """A request that fails is repeated whole: it must fit through a slow line in time."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, i, bytes(3_000_000)) for i in range(5)])
    assert len(segments(s3, settings)) == 3
    found = await queue.read(stream, "", **PLENTY, max_wait=0)
    assert [len(each.data) for each in found] == [3_000_000] * 5


async def test_two_attempts_at_once_share_no_segment_and_readers_agree(
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


async def test_newcomer_gets_its_turn_against_a_busy_writer(
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
    # The announcement has been taken back.
    assert all(key.rpartition("/")[2].isdigit() for key in segments(s3, settings))


async def test_reading_a_long_stream_takes_a_request_for_each_segment(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """What is read is paid for, too: no listing of every key, no look at each one twice."""
    writing, reading = await open_queue(), await open_queue()
    for i in range(40):
        await writing.append(stream, [Entry(1, i, b"%d" % i)])
    calls = count_calls(reading)
    found = await reading.read(stream, "", **PLENTY, max_wait=0)
    assert len(found) == 40
    assert calls["get_object"] <= 41
    assert sum(calls.values()) <= 45


async def test_waiting_at_the_end_costs_few_requests(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Idle readers must not be what the bill is about."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    position = (await queue.read(stream, "", **PLENTY, max_wait=0))[0].position
    calls = count_calls(queue)
    assert await queue.read(stream, position, **PLENTY, max_wait=1.0) == []
    assert sum(calls.values()) < 12


@pytest.mark.parametrize("code", ["SlowDown", "ThrottlingException", "InternalError"])
async def test_throttling_is_retried_by_core_and_costs_nothing_else(
    open_queue: OpenQueue, stream: StreamId, code: str
) -> None:
    """A prefix that gets busy is throttled by S3 until it has been split."""
    queue = await open_queue()
    dice = random.Random(4)

    def throttle(name: str) -> None:
        if dice.random() < 0.3:
            answer = {"Error": {"Code": code, "Message": "Please reduce your request rate."}}
            status = {"ResponseMetadata": {"HTTPStatusCode": 503}}
            raise ClientError(answer | status, name)

    calls = count_calls(queue, throttle)
    async with open_writer(stream, queue=queue) as writer:
        for i in range(20):
            await writer.send_chunk(i)
            await writer.flush()
    async with open_reader(stream, queue=queue) as reader:
        assert await reader.collect() == list(range(20))
    assert sum(calls.values()) > 30


async def test_throttling_beyond_the_deadline_is_told(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A writer that cannot store anything has to say so in time."""
    queue = await open_queue()

    def throttle(name: str) -> None:
        answer = {"Error": {"Code": "SlowDown", "Message": "m"}}
        raise ClientError(answer | {"ResponseMetadata": {"HTTPStatusCode": 503}}, name)

    count_calls(queue, throttle)
    with pytest.raises(BackendUnavailableError, match="SlowDown"):
        await open_writer(stream, queue=queue, settings=load_settings(retry_seconds=0.2))


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


async def test_expired_stream_gives_way_to_a_new_one_and_positions_lead_on(
    settings: S3SnsSettings, stream: StreamId, open_queue: OpenQueue
) -> None:
    """What has expired is still stored until a sweep: nobody may see it, or be fenced by it."""
    async with await S3SnsDriver.open(QueueOptions(ttl=timedelta(seconds=0.3)), settings) as brief:
        await brief.append(stream, [Entry(7, 0, b"old")])
        position = (await brief.read(stream, "", **PLENTY, max_wait=0))[0].position
        await asyncio.sleep(0.35)
    queue = await open_queue()
    with pytest.raises(StreamNotFoundError):
        await queue.describe(stream)
    await queue.append(stream, [Entry(1, 0, b"new")])
    for after in ("", "1-7-0", position):
        found = await queue.read(stream, after, **PLENTY, max_wait=0)
        assert [each.data for each in found] == [b"new"]
    assert (await queue.describe(stream)).records == 1


async def test_foreign_object_is_told_and_hurts_no_listing(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Somebody else uses the same prefix: the operator learns what to change."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    s3.put_object(Bucket=BUCKET, Key=f"{settings.prefix}/notes.txt", Body=b"hello")
    s3.put_object(Bucket=BUCKET, Key=f"{settings.prefix}/a/b/c/{'9' * 12}", Body=b"hello")
    assert [info.stream async for info in queue.streams(stream.tenant)] == [stream]
    key = segments(s3, settings)[-1]
    (segment,) = [each for each in segments(s3, settings) if stream.tenant in each]
    s3.put_object(Bucket=BUCKET, Key=segment, Body=b"hello")
    assert key
    with pytest.raises(BackendError, match="STREAMQ_S3SNS_PREFIX"):
        await queue.read(stream, "", **PLENTY, max_wait=0)
    with pytest.raises(BackendError, match="STREAMQ_S3SNS_PREFIX"):
        decode_entries(b"\0" * 30, "s3://b/k")
    with pytest.raises(BackendError, match="STREAMQ_S3SNS_PREFIX"):
        decode_checkpoint(1, "2 what", "s3://b/k")


async def test_foreign_objects_beside_segments_hide_nothing_and_stay(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A note, or what a tool left, in a stream's own folder must not make the stream disappear."""
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
async def test_positions_of_others_are_refused(
    open_queue: OpenQueue, stream: StreamId, position: str
) -> None:
    """A cursor of another backend must not be taken for a place."""
    with pytest.raises(CursorError):
        await (await open_queue()).read(stream, position, **PLENTY, max_wait=0)


async def test_clock_of_a_machine_is_corrected_by_what_servers_say() -> None:
    """A worker whose clock is an hour off must not end streams at once, or never."""
    clock = ServerClock()
    now = clock.now_ms() / 1000
    clock.observe("Tue, 24 Nov 2026 19:00:00 GMT", now)
    assert abs(clock.now_ms() - 1_795_546_800_000) < 2_000
    clock.observe("nonsense", now)
    clock.observe(None, now)


async def test_old_memory_of_a_stream_is_not_relied_on(
    open_queue: OpenQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lifecycle rule may have freed the number after the last one that a process has written."""
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
