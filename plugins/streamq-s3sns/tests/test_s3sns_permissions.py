"""The README's table of permissions is the least that works."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import streamq_s3sns
from s3sns_guard import FREE, VERSIONING, Guard, action, needs, policy, table
from streamq import load_settings, open_reader, open_writer
from streamq._executions import Execution
from streamq._sweep import Life, SweepRequest, Verdict, sweep
from streamq.driver import (
    AccessDeniedError,
    ChunkQueue,
    Entry,
    FencedError,
    QueueOptions,
    StreamId,
)
from streamq_aws.embedded import REGION
from streamq_s3sns import S3SnsDriver, S3SnsSettings, open_hand_over
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns.live_tail._orphaned_queues import ORPHAN_SECONDS
from streamq_s3sns.live_tail._wake_up_queue import ALIVE_TAG, QUEUE_PREFIX

OPTIONS = QueueOptions(ttl=timedelta(hours=1))
LARGE = b"x" * (9 * 2**20)

DELETE = "s3:DeleteObject"
WRITER = "every writer"
READER = "every reader"
REMOVER = "`streamq delete`, `streamq sweep`"
UPLOAD = "`upload`"
DOWNLOAD = "`url`, `download`"
DOCTOR = "`streamq doctor`"
CREATE = "`streamq doctor --create`"


@pytest.fixture
def polling(settings: S3SnsSettings) -> S3SnsSettings:
    """Return the settings without a topic."""
    return settings.model_copy(update={"topic_arn": None})


@pytest.fixture
async def other(polling: S3SnsSettings) -> AsyncIterator[ChunkQueue]:
    """Return a queue with all permissions."""
    async with await S3SnsDriver.open(OPTIONS, polling) as queue:
        yield queue


async def write(stream: StreamId, settings: S3SnsSettings) -> None:
    """Open a queue and write a stream of ten segments to its end, which is packed."""
    async with (
        await S3SnsDriver.open(OPTIONS, settings) as queue,
        open_writer(stream, queue=queue) as writer,
    ):
        for i in range(10):
            await writer.send_chunk(i)
            await writer.flush()


async def read(stream: StreamId, settings: S3SnsSettings) -> list[Any]:
    """Open a queue and read a stream to its end."""
    async with (
        await S3SnsDriver.open(OPTIONS, settings) as queue,
        open_reader(stream, queue=queue) as reader,
    ):
        return await reader.collect()


def test_policy_is_what_the_table_says(settings: S3SnsSettings) -> None:
    """The table explains the permissions, and the policy is what people copy."""
    rows = table()
    assert set(rows) == {WRITER, READER, REMOVER, UPLOAD, DOWNLOAD, DOCTOR, CREATE}
    daily = set().union(*(needs(who) for who in rows if who not in {DOCTOR, CREATE}))
    assert {each for each, _ in policy(settings)} == daily | {VERSIONING}


def test_table_lists_every_request_in_the_source() -> None:
    """A request that no test makes would fail in a real account all the same."""
    source = "".join(each.read_text() for each in Path(streamq_s3sns.__file__).parent.rglob("*.py"))
    called = {("s3", each) for each in re.findall(r'\.call\(\s*"(\w+)"', source)}
    called |= set(re.findall(r"\b_?(s3|sns|sqs|sts)\.([a-z_]+)\(", source))
    actions = {action(service, each.title().replace("_", "")) for service, each in called}
    listed: set[str] = set().union(*(needs(who) for who in table()))
    assert actions == listed | {VERSIONING, FREE}


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("has_topic", [True, False])
async def test_writer_needs_no_more(
    stream: StreamId,
    settings: S3SnsSettings,
    polling: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
    has_topic: bool,
    pack: bool,
) -> None:
    """A writer needs no permission of SQS."""
    allowed = needs(WRITER, topic=has_topic)
    guard = Guard(settings, allowed).install(monkeypatch)
    chosen = settings if has_topic else polling
    await write(stream, chosen.model_copy(update={"pack": pack}))
    assert (guard.used, guard.refused) == (allowed, {VERSIONING})


async def test_second_attempt_needs_no_more(
    other: ChunkQueue, stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what the first one has written, and loses no race."""
    with contextlib.suppress(FencedError):  # of the first, when it ends
        async with open_writer(stream, queue=other) as frozen:
            await frozen.send_chunk("a")
            await frozen.flush()
            guard = Guard(settings, needs(WRITER)).install(monkeypatch)
            await write(stream, settings)
            assert (guard.used, guard.refused) == (needs(WRITER), {VERSIONING})


@pytest.mark.parametrize("missing", ["s3:ListBucket", "s3:GetObject", "s3:PutObject"])
async def test_writer_needs_no_less(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Not even for a new stream, with nothing to pack."""
    Guard(settings, needs(WRITER) - {missing}).install(monkeypatch)
    with pytest.raises(AccessDeniedError, match=missing):
        await write(stream, settings.model_copy(update={"pack": False}))


async def test_writer_of_a_new_stream_does_without_deleting(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty object stays until the lifecycle rule removes it."""
    guard = Guard(settings, needs(WRITER) - {DELETE}).install(monkeypatch)
    await write(stream, settings)
    assert guard.refused == {VERSIONING, DELETE}


@pytest.mark.parametrize("may_delete", [True, False])
async def test_writer_that_takes_over_has_to_delete(
    other: ChunkQueue,
    stream: StreamId,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
    may_delete: bool,
) -> None:
    """It stores an announcement, and deletes it."""
    await other.append(stream, [Entry(1, 0, b"a")])
    allowed = needs(WRITER) - (set() if may_delete else {DELETE})
    guard = Guard(settings, allowed).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        assert isinstance(queue, S3SnsQueue)
        late = iter([True])

        async def be_quicker(**_: object) -> None:
            if next(late, False):
                await other.append(stream, [Entry(1, 1, b"b")])

        queue.store.bucket.client.meta.events.register("before-call.s3.PutObject", be_quicker)
        taking_over = queue.append(stream, [Entry(2, 0, b"new")])
        if may_delete:
            await taking_over
        else:
            with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
                await taking_over
    if may_delete:
        assert guard.used == allowed
    assert guard.refused == {VERSIONING} | (needs(WRITER) - allowed)


@pytest.mark.parametrize("has_topic", [True, False])
async def test_reader_needs_no_more(
    other: ChunkQueue,
    stream: StreamId,
    settings: S3SnsSettings,
    polling: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
    has_topic: bool,
) -> None:
    """It reads what is stored, waits for more, and leaves nothing."""
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def write_slowly() -> None:
        async with open_writer(stream, queue=other) as writer:
            await writer.send_chunk("a")
            await writer.flush()
            has_begun.set()
            await may_end.wait()
            await writer.send_chunk("b")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write_slowly())
        await has_begun.wait()
        allowed = needs(READER, topic=has_topic)
        guard = Guard(settings, allowed).install(monkeypatch)
        reading = tasks.create_task(read(stream, settings if has_topic else polling))
        awaited = "sqs:ReceiveMessage" if has_topic else "s3:GetObject"
        async with asyncio.timeout(20):
            while awaited not in guard.used:  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.01)
        may_end.set()
    assert reading.result() == ["a", "b"]
    assert guard.used == allowed
    assert guard.refused == {VERSIONING}


@pytest.mark.parametrize("missing", ["s3:ListBucket", "s3:GetObject"])
async def test_reader_needs_no_less(
    stream: StreamId,
    settings: S3SnsSettings,
    polling: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    """Not even without a topic."""
    await write(stream, polling)
    Guard(settings, needs(READER) - {missing}).install(monkeypatch)
    with pytest.raises(AccessDeniedError, match=missing):
        await read(stream, polling)


async def test_process_without_permissions_of_the_topic_continues(
    stream: StreamId,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A topic only makes readers quicker: nothing else needs its permissions."""
    guard = Guard(settings, needs(WRITER, topic=False)).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        (found,) = await queue.read(stream, "", max_records=1, max_bytes=1, max_wait=0)
        # It creates its queue before it waits.
        assert not await queue.read(
            stream, found.position, max_records=1, max_bytes=1, max_wait=0.5
        )
    assert guard.refused == {VERSIONING, "sns:Publish", "sqs:CreateQueue"}
    logged = [each.message.partition(":")[0] for each in caplog.records]
    assert sorted(logged) == [
        "no notifications for now, readers poll",
        "readers are not woken and have to poll",
    ]


@pytest.mark.parametrize("allowed", [{VERSIONING, "s3:ListBucket"}, {"s3:ListBucket"}])
async def test_queue_that_may_not_see_versions_does_not_promise_erasure(
    settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch, allowed: set[str]
) -> None:
    """It is the one permission of the policy without which nothing fails."""
    Guard(settings, allowed).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        assert queue.capabilities.erases == (VERSIONING in allowed)


async def has_ended(execution: Execution) -> Verdict:
    """Judge for a sweep that everything has ended."""
    return Verdict(Life.OVER, f"{execution} has ended")


@pytest.fixture
async def leftovers(
    other: ChunkQueue, stream: StreamId, topic: str, aws: Any, sqs: Any
) -> AsyncIterator[SweepRequest]:
    """Leave everything that a sweep removes; give a request for that sweep."""
    expired = StreamId(stream.tenant, "expired")
    await other.append(expired, [Entry(1, 0, b"a")], ttl=timedelta(milliseconds=1))
    name = f"{QUEUE_PREFIX}{uuid.uuid4().hex}"
    long_ago = str(int(time.time() - ORPHAN_SECONDS - 60))
    url = sqs.create_queue(QueueName=name, tags={ALIVE_TAG: long_ago})["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn = attributes["Attributes"]["QueueArn"]
    with aws.client("sns") as sns:
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    with contextlib.suppress(FencedError):  # if the sweep has ended it
        async with open_writer(
            StreamId(stream.tenant, f"workflow/{uuid.uuid4()}/default"), queue=other
        ) as abandoned:
            await abandoned.send_chunk("a")
            await abandoned.flush()
            yield SweepRequest(tenant=stream.tenant, grace_seconds=0)


async def test_sweep_needs_no_more(
    leftovers: SweepRequest, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removes an expired stream and an orphaned queue, and ends an abandoned stream."""
    guard = Guard(settings, needs(REMOVER)).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        summary = await sweep(queue, load_settings(), leftovers, has_ended)
    assert (summary.expired, summary.sealed, summary.problems) == (1, 1, [])
    assert (guard.used, guard.refused) == (needs(REMOVER), {VERSIONING})


@pytest.mark.parametrize(
    "missing",
    [
        *("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        *("sqs:ListQueues", "sqs:ListQueueTags", "sqs:DeleteQueue", "sns:Unsubscribe"),
    ],
)
async def test_sweep_needs_no_less(
    leftovers: SweepRequest, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A sweep that may not remove something must not end silently."""
    Guard(settings, needs(REMOVER) - {missing}).install(monkeypatch)
    with pytest.raises(AccessDeniedError, match=missing):
        async with await S3SnsDriver.open(OPTIONS, settings) as queue:
            await sweep(queue, load_settings(), leftovers, has_ended)


@pytest.mark.parametrize("missing", ["sns:Publish", "sns:ListSubscriptionsByTopic"])
async def test_sweep_does_without(
    leftovers: SweepRequest, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without them readers are not woken, or subscriptions without a queue stay."""
    guard = Guard(settings, needs(REMOVER) - {missing}).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        summary = await sweep(queue, load_settings(), leftovers, has_ended)
    assert (summary.expired, summary.sealed, summary.problems) == (1, 1, [])
    assert guard.refused == {VERSIONING, missing}


async def test_deletion_needs_no_more(
    other: ChunkQueue, stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects are removed by the same permissions, and no notification is sent."""
    await other.append(stream, [Entry(1, 0, b"a")])
    async with open_hand_over(queue=other) as hand_over:
        await hand_over.upload(stream, b"object")
    guard = Guard(settings, needs(REMOVER, topic=False)).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        await queue.delete(stream)
    assert (guard.used, guard.refused) == (needs(REMOVER, topic=False), {VERSIONING})


async def test_listing_and_reading_without_waiting_need_no_topic(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not wait needs no permission of SNS or SQS, even with a topic."""
    await write(stream, settings)
    guard = Guard(settings, needs(READER, topic=False)).install(monkeypatch)
    async with await S3SnsDriver.open(OPTIONS, settings) as queue:
        assert [each.stream async for each in queue.streams(stream.tenant)] == [stream]
    assert await read(stream, settings) == list(range(10))
    assert (guard.used, guard.refused) == (needs(READER, topic=False), {VERSIONING})


async def test_hand_over_needs_no_more(
    other: ChunkQueue, stream: StreamId, polling: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upload, cleanup of a failed upload, URL and download."""
    await other.append(stream, [Entry(1, 0, b"a")])

    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise OSError("the disk is gone")

    guard = Guard(polling, needs(UPLOAD)).install(monkeypatch)
    async with (
        await S3SnsDriver.open(OPTIONS, polling) as queue,
        open_hand_over(queue=queue) as hand_over,
    ):
        reference = await hand_over.upload(stream, LARGE)
        assert guard.used == needs(WRITER, topic=False) - {DELETE}
        with pytest.raises(OSError, match="disk"):
            await hand_over.upload(stream, broken())
    assert guard.used == needs(UPLOAD)
    assert guard.refused == {VERSIONING}

    guard = Guard(polling, needs(DOWNLOAD)).install(monkeypatch)
    async with (
        await S3SnsDriver.open(OPTIONS, polling) as queue,
        open_hand_over(queue=queue) as hand_over,
    ):
        await hand_over.url(stream, reference)
        assert b"".join([each async for each in hand_over.download(stream, reference)]) == LARGE
    assert guard.used == needs(DOWNLOAD)
    assert guard.refused == {VERSIONING}


async def test_doctor_needs_no_more(
    settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examining needs less than creating."""
    name = f"new-{uuid.uuid4().hex}"
    arn = f"arn:aws:sns:{REGION}:000000000000:{name}"
    fresh = settings.model_copy(update={"bucket": name, "topic_arn": arn})
    guard = Guard(fresh, needs(CREATE)).install(monkeypatch)
    assert len(await S3SnsDriver.provision(OPTIONS, fresh)) == 4
    assert (guard.used, guard.refused) == (needs(CREATE), set())

    guard = Guard(fresh, needs(DOCTOR)).install(monkeypatch)
    assert all(each.ok for each in await S3SnsDriver.examine(OPTIONS, fresh))
    assert (guard.used, guard.refused) == (needs(DOCTOR), set())
