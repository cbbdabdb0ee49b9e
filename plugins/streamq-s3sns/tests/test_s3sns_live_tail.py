"""Notifications: a hint and nothing else, and nothing of them is left behind."""

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


async def tell_story(
    open_queue: OpenQueue, stream: StreamId, distort: Callable[[Deliver], Deliver]
) -> tuple[list[object], int]:
    """Follow a stream whose notifications reach its reader distorted; return what was read."""
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
        while not listener.is_listening:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    async with open_writer(stream, queue=writing) as writer:
        for i in range(60):
            await writer.send_chunk(str(i))
            await writer.flush()
    await asyncio.wait_for(following, 30)
    return found, heard


STORY = [*map(str, range(60)), "Seal"]


async def test_stream_is_whole_with_every_notification_dropped(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A lost notification costs time, never data."""

    def drop(_: Deliver) -> Deliver:
        return lambda directory, number: None

    found, _ = await tell_story(open_queue, stream, drop)
    assert found == STORY


async def test_stream_is_told_once_with_notifications_three_times_in_random_order(
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

    found, heard = await tell_story(open_queue, stream, shuffle)
    assert found == STORY
    assert heard > 0


async def test_made_up_notifications_cost_looks_only(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Whoever may publish to the topic may say anything."""
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
    """Without it the next look would be a minute away, also when only the repeat was answered."""
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
            while not reading._listener.is_listening:  # noqa: ASYNC110 - nothing tells
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
async def test_unforeseen_exception_is_logged_and_ends_no_notifications(
    open_queue: OpenQueue,
    stream: StreamId,
    broken: tuple[type, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A background task that dies in silence would make every reader slow for good."""
    working, failures = getattr(*broken), iter([ZeroDivisionError("not foreseen")])

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
    """Opens clients of SNS that note what they are told, and answer when they may."""

    region = "us-east-1"

    def __init__(self) -> None:
        self.opened = 0
        self.told: list[str] = []
        self.may_answer = asyncio.Event()

    async def client(self, service: str, **_: object) -> _SlowClients:
        self.opened += 1
        await asyncio.sleep(0)
        return self

    async def publish_batch(self, **request: Any) -> dict[str, object]:
        self.told += [entry["Message"] for entry in request["PublishBatchRequestEntries"]]
        await self.may_answer.wait()
        return {}


def _publisher(clients: _SlowClients) -> NotificationPublisher:
    opened = LazyClients(cast("AwsClients", clients))
    return NotificationPublisher(opened, "arn", "scope")


async def test_streams_are_told_of_in_turn_and_none_is_starved_by_busy_ones() -> None:
    """A process that writes more than SNS takes must not forget who waits longest."""
    clients = _SlowClients()
    publisher = _publisher(clients)
    for number in (1, 2):
        for stream in range(60):
            publisher.publish(str(stream), number)
    async with asyncio.timeout(5):
        while len(clients.told) < 40:  # noqa: ASYNC110 - four requests at once, nothing tells
            await asyncio.sleep(0)
    for stream in range(60):
        publisher.publish(str(stream), 3)
    clients.may_answer.set()
    await publisher.aclose(5)
    waiting = [f"3 {stream}" for stream in range(40, 60)]
    again = [f"3 {stream}" for stream in range(40)]
    assert clients.told == [f"2 {stream}" for stream in range(40)] + waiting + again


async def test_stream_that_is_told_of_just_when_a_publisher_ends_is_not_forgotten() -> None:
    """Its readers would look after seconds instead of hearing of it at once."""
    clients = _SlowClients()
    clients.may_answer.set()
    publisher = _publisher(clients)
    publish, loop = clients.publish_batch, asyncio.get_running_loop()

    async def answer_and_go_on(**request: Any) -> dict[str, object]:
        if not clients.told:
            loop.call_soon(publisher.publish, "later", 1)
        return await publish(**request)

    clients.publish_batch = answer_and_go_on  # type: ignore[method-assign]
    publisher.publish("first", 1)
    async with asyncio.timeout(5):
        while not clients.told:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    await publisher.aclose(5)
    assert clients.told == ["1 first", "1 later"]


async def test_client_that_several_ask_for_at_once_is_opened_once() -> None:
    """Publisher, listener and sweep begin at the same time."""
    clients = _SlowClients()
    services = LazyClients(cast("AwsClients", clients))
    await asyncio.gather(*(services.client("sns") for _ in range(3)))
    assert clients.opened == 1
