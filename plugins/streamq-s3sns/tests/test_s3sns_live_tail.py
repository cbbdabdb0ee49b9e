"""Notifications are hints: readers get everything without them, only later."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from streamq import Chunk, open_reader, open_writer
from streamq.driver import BackendUnavailableError, Entry, StreamId
from streamq.testing import OpenQueue, queue_factory
from streamq_aws import AwsClients, to_streamq
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns.live_tail._publisher import NotificationPublisher
from streamq_s3sns.live_tail._wake_up_queue import WakeUpQueue
from streamq_s3sns.requests._lazy_clients import LazyClients

Deliver = Callable[[str, int], None]
PLENTY: dict[str, int] = {"max_records": 100, "max_bytes": 10_000}


async def follow_stream(
    open_queue: OpenQueue, stream: StreamId, distort: Callable[[Deliver], Deliver]
) -> tuple[list[object], int]:
    """Follow a stream with distorted notifications; return what was read and how many came."""
    writing, reading = await open_queue(), await open_queue()
    assert isinstance(reading, S3SnsQueue)
    listener = reading._listener
    assert listener is not None
    heard = 0
    deliver = distort(listener._wake)

    def wake(directory: str, number: int) -> None:
        nonlocal heard
        heard += 1
        deliver(directory, number)

    listener._wake = wake
    found: list[object] = []

    async def follow() -> None:
        async with open_reader(stream, queue=reading, idle_seconds=30) as reader:
            async for event in reader:
                found.append(event.value if isinstance(event, Chunk) else type(event).__name__)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(10):
        while not listener.is_listening:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.01)
    async with open_writer(stream, queue=writing) as writer:
        for i in range(60):
            await writer.send_chunk(str(i))
            await writer.flush()
    await asyncio.wait_for(following, 30)
    return found, heard


WHOLE = [*map(str, range(60)), "Seal"]


async def test_stream_is_whole_with_every_notification_dropped(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A lost notification costs time, never data."""

    def drop(_: Deliver) -> Deliver:
        return lambda directory, number: None

    found, _ = await follow_stream(open_queue, stream, drop)
    assert found == WHOLE


async def test_stream_is_delivered_once_with_notifications_three_times_in_random_order(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """SNS and SQS promise at least once and no order; readers must not notice."""
    dice = random.Random(3)
    held: list[tuple[str, int]] = []

    def shuffle(deliver: Deliver) -> Deliver:
        def wake(directory: str, number: int) -> None:
            held.extend([(directory, number)] * 3)
            dice.shuffle(held)
            while held and dice.random() < 0.8:
                deliver(*held.pop())

        return wake

    found, heard = await follow_stream(open_queue, stream, shuffle)
    assert found == WHOLE
    assert heard > 0


async def test_invented_notifications_cost_requests_only(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Everyone who may publish to the topic can send anything."""
    reading, writing = await open_queue(), await open_queue()
    assert isinstance(reading, S3SnsQueue)
    await writing.append(stream, [Entry(1, 0, b"a")])
    first = await reading.read(stream, "", **PLENTY, max_wait=0)
    waiting = asyncio.ensure_future(reading.read(stream, first[0].position, **PLENTY, max_wait=20))
    directory = reading._keys.directory(stream)
    for number in (0, 1, 10**11):
        await asyncio.sleep(0.02)
        reading._known.notify(directory, number)
    reading._known.notify("nowhere/", 3)
    await writing.append(stream, [Entry(1, 1, b"b")])
    assert [each.data for each in await waiting] == [b"b"]


@pytest.mark.parametrize("is_answer_lost", [False, True])
async def test_notification_wakes_a_reader_that_would_poll_much_later(
    settings: S3SnsSettings, stream: StreamId, is_answer_lost: bool
) -> None:
    """Otherwise the next poll is a minute away, also if only the repeated append was answered."""
    patient = settings.model_copy(update={"poll_seconds": 60.0})
    async with queue_factory(S3SnsDriver, patient) as open_queue:
        reading, writing = await open_queue(), await open_queue()
        assert isinstance(reading, S3SnsQueue)
        assert isinstance(writing, S3SnsQueue)
        await writing.append(stream, [Entry(1, 0, b"a")])
        position = (await reading.read(stream, "", **PLENTY, max_wait=0))[0].position
        assert reading._listener is not None
        reading._listener.listen()
        async with asyncio.timeout(10):
            while not reading._listener.is_listening:  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(reading.read(stream, position, **PLENTY, max_wait=50))
        await asyncio.sleep(0.05)
        if is_answer_lost:

            def lose(**_: object) -> None:
                events.unregister("after-call.s3.PutObject", lose)
                raise EndpointConnectionError(endpoint_url="s3")

            events = writing._store.bucket.client.meta.events
            events.register("after-call.s3.PutObject", lose)
            with pytest.raises(BackendUnavailableError):
                await writing.append(stream, [Entry(1, 1, b"b")])
        await writing.append(stream, [Entry(1, 1, b"b")])
        async with asyncio.timeout(30):
            assert [each.data for each in await waiting] == [b"b"]


@pytest.mark.parametrize("missing", ["publish", "create"])
async def test_without_permission_for_notifications_readers_poll(
    open_queue: OpenQueue, stream: StreamId, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some accounts allow a bucket and nothing else."""

    async def refuse(*_: object) -> Any:
        error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "Subscribe")
        ours = to_streamq(error, "s3sns")
        assert ours is not None
        raise ours

    broken: tuple[type, str] = (
        (LazyClients, "client") if missing == "publish" else (WakeUpQueue, "open")
    )
    monkeypatch.setattr(*broken, refuse)
    writing, reading = await open_queue(), await open_queue()
    waiting = asyncio.ensure_future(reading.read(stream, "", **PLENTY, max_wait=20))
    await asyncio.sleep(0.05)
    await writing.append(stream, [Entry(1, 0, b"a")])
    async with asyncio.timeout(15):
        assert [each.data for each in await waiting] == [b"a"]


@pytest.mark.parametrize("broken", [(LazyClients, "client"), (WakeUpQueue, "receive")])
async def test_unexpected_exception_is_logged_and_notifications_continue(
    open_queue: OpenQueue,
    stream: StreamId,
    broken: tuple[type, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A background task that dies silently would make every reader slow for good."""
    working, failures = getattr(*broken), iter([ZeroDivisionError("unexpected")])

    async def fail_once(*arguments: Any) -> Any:
        for failure in failures:
            raise failure
        return await working(*arguments)

    monkeypatch.setattr(*broken, fail_once)
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    assert queue._listener is not None
    assert queue._publisher is not None
    heard = asyncio.Event()
    queue._listener._wake = lambda *_: heard.set()
    queue._listener.listen()
    async with asyncio.timeout(20):
        while not heard.is_set():
            queue._publisher.publish("a/b/", 1)
            await asyncio.sleep(0.05)
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


class _SlowClients:
    """Opens clients of SNS that record what is published, and answer when they may."""

    region = "us-east-1"

    def __init__(self) -> None:
        self.opened = 0
        self.published: list[str] = []
        self.may_answer = asyncio.Event()

    async def client(self, service: str, **_: object) -> _SlowClients:
        self.opened += 1
        await asyncio.sleep(0)
        return self

    async def publish_batch(self, **request: Any) -> dict[str, object]:
        self.published += [entry["Message"] for entry in request["PublishBatchRequestEntries"]]
        await self.may_answer.wait()
        return {}


def _publisher(clients: _SlowClients) -> NotificationPublisher:
    opened = LazyClients(cast("AwsClients", clients))
    return NotificationPublisher(opened, "arn", "scope")


async def test_streams_are_notified_in_turn_and_busy_ones_starve_none() -> None:
    """A process that writes more than SNS accepts must not forget the stream that waits longest."""
    clients = _SlowClients()
    publisher = _publisher(clients)
    for number in (1, 2):
        for stream in range(60):
            publisher.publish(str(stream), number)
    async with asyncio.timeout(5):
        while len(clients.published) < 40:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0)
    for stream in range(60):
        publisher.publish(str(stream), 3)
    clients.may_answer.set()
    await publisher.aclose(5)
    waiting = [f"3 {stream}" for stream in range(40, 60)]
    again = [f"3 {stream}" for stream in range(40)]
    assert clients.published == [f"2 {stream}" for stream in range(40)] + waiting + again


async def test_notification_at_the_moment_a_publisher_ends_is_not_lost() -> None:
    """Otherwise readers find the segment by polling, seconds later."""
    clients = _SlowClients()
    clients.may_answer.set()
    publisher = _publisher(clients)
    publish, loop = clients.publish_batch, asyncio.get_running_loop()

    async def publish_another(**request: Any) -> dict[str, object]:
        if not clients.published:
            loop.call_soon(publisher.publish, "later", 1)
        return await publish(**request)

    clients.publish_batch = publish_another  # type: ignore[method-assign]
    publisher.publish("first", 1)
    async with asyncio.timeout(5):
        while not clients.published:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    await publisher.aclose(5)
    assert clients.published == ["1 first", "1 later"]


async def test_client_that_several_tasks_need_at_once_is_opened_once() -> None:
    """Publisher, listener and sweep may begin at the same time."""
    clients = _SlowClients()
    services = LazyClients(cast("AwsClients", clients))
    await asyncio.gather(*(services.client("sns") for _ in range(3)))
    assert clients.opened == 1
