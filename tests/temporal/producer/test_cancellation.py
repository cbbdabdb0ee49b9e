"""Tests that cancellation reaches producers and readers, and that leaving readers stop nothing."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import (
    SOON,
    failure_of,
    ignoring_cancellation,
    outline,
    read_all,
)
from tests.temporal.support.workflows import GoesOn, Watches, WithoutHeartbeatTimeout, say

from streamq import (
    Chunk,
    Event,
    FencedError,
    IdleTimeoutError,
    ProducerGoneError,
    Seal,
    SealState,
    Settings,
    StreamWriter,
    load_settings,
)
from streamq.driver import ChunkQueue
from streamq.gateway import create_app, serve
from streamq.temporal import StreamqPlugin, stream_name, streaming_activity, subscribe
from streamq.temporal.activities._heartbeats import heartbeat_seconds
from streamq.temporal.producer import _attempt as attempts
from streamq.testing import Block, Call, Fault, FaultyQueue, Forward

Handle = WorkflowHandle[Any, Any]
LONG = timedelta(minutes=5)


@pytest.fixture
def faulty(queue: ChunkQueue) -> FaultyQueue:
    """Return the workers' view of the queue; readers use the queue itself."""
    return FaultyQueue(queue)


@pytest.fixture
def run_faulty(client: Client, faulty: FaultyQueue, settings: Settings, task_queue: str) -> Run:
    def run(*functions: Callable[..., Any]) -> Worker:
        plugin = StreamqPlugin(faulty, settings)
        return Worker(client, task_queue=task_queue, activities=functions, plugins=[plugin])

    return run


async def cancel(handle: Handle) -> None:
    await handle.cancel()


async def terminate(handle: Handle) -> None:
    await handle.terminate()


Stop = Callable[[Handle], Awaitable[None]]
by_cancel_and_terminate = pytest.mark.parametrize("stop", [cancel, terminate])
by_delivery = pytest.mark.parametrize("delivery", ["none", "poll"])


def hanging(is_cancelled: asyncio.Event, chunks: Iterable[object] = ("working",)) -> Any:
    """Return an activity that sends chunks and hangs, and an event that its cancellation sets."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        try:
            for chunk in chunks:
                await stream.send_chunk(chunk)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_cancelled.set()
            raise

    return produce


# -- how soon --------------------------------------------------------------------------------------


def throttle_of(client: Client, **options: Any) -> timedelta:
    plugin = StreamqPlugin(settings=load_settings(backend="memory", cancel_seconds=2))
    worker = Worker(client, task_queue="any", activities=[say], plugins=[plugin], **options)
    return worker.config(active_config=True)["max_heartbeat_throttle_interval"]


async def test_the_plugin_lets_heartbeats_through_as_often_as_configured(client: Client) -> None:
    """Cancellation arrives with the response to a heartbeat, and the SDK throttles heartbeats."""
    assert throttle_of(client) == timedelta(seconds=2)


@pytest.mark.parametrize("seconds", [60, 10, 1])
async def test_throttle_that_the_user_chose_is_kept(
    client: Client, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    """It may limit the bill, even if it equals the SDK's default. A longer one is logged."""
    chosen = timedelta(seconds=seconds)
    with caplog.at_level(logging.INFO, "streamq.temporal"):
        assert throttle_of(client, max_heartbeat_throttle_interval=chosen) == chosen
    assert ("STREAMQ_CANCEL_SECONDS=2" in caplog.text) == (seconds > 2)


@pytest.mark.parametrize(
    ("timeout", "longest", "interval"),
    [(30, 1, 1), (30, 60, 10), (0.6, 1, 0.2), (None, 1, 1), (None, 60, 60)],
)
def test_heartbeats_keep_within_their_timeout(
    timeout: float | None, longest: float, interval: float
) -> None:
    """A living worker must not be taken for dead, however long the interval of heartbeats is."""
    given = None if timeout is None else timedelta(seconds=timeout)
    info = replace(ActivityEnvironment.default_info(), heartbeat_timeout=given)
    assert heartbeat_seconds(info, longest) == pytest.approx(interval)


async def test_activity_without_heartbeat_timeout_is_cancelled_as_quickly(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A forgotten timeout must not make the work impossible to stop."""

    @streaming_activity(name="say_slowly")
    async def produce(stream: StreamWriter, text: str) -> None:
        await stream.send_chunk(text)
        await asyncio.Event().wait()

    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[WithoutHeartbeatTimeout],
        activities=[produce],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        handle = await client.start_workflow(
            WithoutHeartbeatTimeout.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story = [await anext(events)]
            await handle.cancel()
            story += [event async for event in events]
    assert outline(story) == ["words", "CANCELLED"]


# -- whatever it waits for -------------------------------------------------------------------------


@by_delivery
@by_cancel_and_terminate
async def test_producer_that_waits_for_buffer_space_is_cancelled(
    client: Client,
    queue: ChunkQueue,
    faulty: FaultyQueue,
    task_queue: str,
    start: Start,
    stop: Stop,
    delivery: str,
) -> None:
    """Backpressure must not make work unstoppable; accepted chunks are delivered before the end."""
    settings = load_settings(backend="memory", buffer_bytes=100, cancel_seconds=0.2)
    slow, is_cancelled = Block(), asyncio.Event()

    def choose(call: Call) -> Fault | None:
        return None if call.entries[0].index == 0 else slow

    faulty.always("append", choose)
    produce = hanging(is_cancelled, [character * 60 for character in "abc"])
    plugin = StreamqPlugin(faulty, settings)
    async with Worker(client, task_queue=task_queue, activities=[produce], plugins=[plugin]):
        handle = await start("produce", delivery=delivery)
        await slow.reached()
        await stop(handle)
        await is_cancelled.wait()
        slow.release()
        story = outline(await read_all(handle, queue, settings))
    assert story == ["a" * 60, "CANCELLED"]


@by_delivery
@by_cancel_and_terminate
async def test_cancelled_during_outage_the_seal_is_stored_after_it(
    run_faulty: Run,
    start: Start,
    faulty: FaultyQueue,
    queue: ChunkQueue,
    settings: Settings,
    stop: Stop,
    delivery: str,
) -> None:
    """An outage that passes while the stream is being sealed must not lose the seal."""
    is_cancelled = asyncio.Event()
    async with run_faulty(hanging(is_cancelled)):
        handle = await start("produce", delivery=delivery)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story = [await anext(events)]
            faulty.take_down()
            await stop(handle)
            await is_cancelled.wait()
            faulty.bring_up()
            story += [event async for event in events]
    assert outline(story) == ["working", "CANCELLED"]


@by_cancel_and_terminate
async def test_outage_that_outlasts_sealing_ends_readers_too(
    run_faulty: Run,
    start: Start,
    faulty: FaultyQueue,
    queue: ChunkQueue,
    settings: Settings,
    stop: Stop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The activity gives up; its workflow retries, and without one readers watch its end."""
    monkeypatch.setattr(attempts, "_SEAL_SECONDS", 0.2)
    is_cancelled, released = asyncio.Event(), asyncio.Event()
    close = StreamWriter.aclose

    async def closing(writer: StreamWriter) -> None:
        try:
            await close(writer)
        finally:
            released.set()

    monkeypatch.setattr(StreamWriter, "aclose", closing)
    async with run_faulty(hanging(is_cancelled)):
        handle = await start("produce")
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story: list[Event] = [await anext(events)]
            faulty.take_down()
            await stop(handle)
            await is_cancelled.wait()
            await released.wait()
            faulty.bring_up()
            if stop is cancel:
                story += [event async for event in events]
                assert outline(story) == ["working", "CANCELLED"]
            else:
                with pytest.raises(ProducerGoneError):
                    await anext(events)


@by_delivery
@by_cancel_and_terminate
async def test_cancelled_between_two_attempts(
    client: Client,
    run_worker: Run,
    start: Start,
    queue: ChunkQueue,
    settings: Settings,
    stop: Stop,
    delivery: str,
) -> None:
    """No attempt runs that could seal: the workflow does, or its end is what readers notice."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        raise ApplicationError("overloaded", next_retry_delay=LONG)

    async def waits_for_its_next_attempt(handle: Handle, stream: str) -> bool:
        # With delivery poll a child of that name runs the producer.
        producer = handle if delivery == "none" else client.get_workflow_handle(stream)
        pending = (await producer.describe()).raw_description.pending_activities
        return any(each.attempt == 2 for each in pending)

    async with run_worker(produce):
        handle = await start("produce", delivery=delivery)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story: list[Event] = [await anext(events)]
            async with asyncio.timeout(10):
                while not await waits_for_its_next_attempt(handle, events.stream.name):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)  # the server has no event for it
            await stop(handle)
            if stop is terminate and delivery == "none":
                with pytest.raises(ProducerGoneError, match="TERMINATED"):
                    await anext(events)
                return
            story += [event async for event in events]
            if stop is cancel:
                assert isinstance(await failure_of(handle), CancelledError)
    assert outline(story) == ["half", "CANCELLED"]


class UntilCancelled(Fault):
    """Fault: a call of an activity returns only when the activity is being cancelled."""

    async def apply(self, call: Call, forward: Forward) -> Any:
        await activity.wait_for_cancelled()
        return await forward(call)


@by_cancel_and_terminate
async def test_cancelled_while_opening_the_stream(
    run_faulty: Run,
    start: Start,
    faulty: FaultyQueue,
    queue: ChunkQueue,
    settings: Settings,
    stop: Stop,
) -> None:
    """Readers of the first attempt learn that the second one was cancelled before it began."""
    opening, ran = asyncio.Event(), []

    class Reached(UntilCancelled):
        async def apply(self, call: Call, forward: Forward) -> Any:
            opening.set()
            return await super().apply(call, forward)

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        ran.append(stream)
        await stream.send_chunk("half")
        await stream.flush()
        faulty.script("append", Reached())
        raise ApplicationError("try again", next_retry_delay=SOON)

    async with run_faulty(produce):
        handle = await start("produce")
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story = [await anext(events)]
            await opening.wait()
            await stop(handle)
            story += [event async for event in events]
    assert [event for event in outline(story) if event != "RESET 2"] == ["half", "CANCELLED"]
    assert len(ran) == 1


# -- what the activity cannot end itself -----------------------------------------------------------


async def test_workflow_ends_the_stream_of_activity_that_timed_out(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A worker that hangs or has crashed seals nothing, and must not be able to write later."""
    workflow_over = asyncio.Event()
    late: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        await ignoring_cancellation(workflow_over.wait())
        await stream.send_chunk("too late")
        try:
            await ignoring_cancellation(stream.flush())
        except FencedError as exc:
            late.set_result(exc)
            raise

    async with run_worker(produce):
        handle = await start("produce", start_to_close_seconds=0.5, max_attempts=1)
        await failure_of(handle)
        workflow_over.set()
        events = await read_all(handle, queue, settings)
        assert isinstance(await late, FencedError)
    assert outline(events) == ["half", "ERROR"]
    assert isinstance(events[-1], Seal)
    assert events[-1].error_type == "TimeoutError"


async def test_workflow_that_goes_on_can_end_the_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Otherwise readers of a timed-out activity would wait while its workflow runs for days."""

    @streaming_activity(name="say_slowly")
    async def produce(stream: StreamWriter, text: str) -> None:
        await stream.send_chunk(text)
        await asyncio.Event().wait()

    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[GoesOn],
        activities=[produce],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        handle = await client.start_workflow(
            GoesOn.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        impatient = subscribe(handle, queue=queue, settings=settings, idle_seconds=1)
        async with impatient as events:
            assert isinstance(await anext(events), Chunk)
            with pytest.raises(IdleTimeoutError):
                await anext(events)
        await handle.signal(GoesOn.seal_it)
        events_told = await read_all(handle, queue, settings)
        await handle.signal(GoesOn.end)
        assert await handle.result() == [True, False]
    assert outline(events_told) == ["words", "ERROR"]
    seal = events_told[-1]
    assert isinstance(seal, Seal)
    assert (seal.state, seal.error_type) == (SealState.ERROR, "Timeout")


# -- the other way round ---------------------------------------------------------------------------


async def waits_in_its_second_poll(watcher: Handle) -> bool:
    history = await watcher.fetch_history()
    polls = [e for e in history.events if e.HasField("activity_task_scheduled_event_attributes")]
    pending = (await watcher.describe()).raw_description.pending_activities
    return len(polls) == 2 and any(
        each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED for each in pending
    )


async def test_readers_that_leave_stop_nothing(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    start: Start,
) -> None:
    """A closed tab, a cancelled subscriber, a poll whose workflow ends: the work goes on."""
    everybody_left = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        await stream.send_chunk("first")
        await everybody_left.wait()
        await stream.send_chunk("second")
        return "done"

    async with (
        Worker(
            client,
            task_queue=task_queue,
            workflows=[Watches],
            activities=[produce],
            plugins=[StreamqPlugin(queue, settings)],
        ),
        serve(create_app(queue, settings)) as server,
    ):
        handle = await start("produce")
        name = stream_name(handle.id, str(handle.first_execution_run_id))

        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert isinstance(await anext(events), Chunk)
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        async with (
            httpx.AsyncClient(base_url=server.url) as browser,
            aconnect_sse(browser, "GET", f"/streams/{name}/events") as source,
        ):
            async for event in source.aiter_sse():
                if event.event == "chunk":
                    break

        watcher = await client.start_workflow(
            Watches.run, name, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        async with asyncio.timeout(10):
            while not await waits_in_its_second_poll(watcher):  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # the server has no event for it
        await watcher.cancel()
        assert isinstance(await failure_of(watcher), CancelledError)

        everybody_left.set()
        assert (await handle.result())["result"] == "done"
        assert outline(await read_all(handle, queue, settings)) == ["first", "second", "END"]
