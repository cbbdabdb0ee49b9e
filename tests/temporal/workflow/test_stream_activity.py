"""Tests ``stream_activity``: reading a stream inside a workflow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from tests.temporal.support.following_workflows import (
    Follows,
    FollowsTwo,
    FollowsTyped,
    Options,
    Word,
)
from tests.temporal.support.reading import SOON, outline

from streamq import Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe

Handle = WorkflowHandle[Any, Any]
Follow = Callable[..., Awaitable[Handle]]


@streaming_activity
async def count(chunks: int, pause: float, result: str, stream: StreamWriter) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        if pause:
            await asyncio.sleep(pause)
    return result


@streaming_activity
async def send_words(stream: StreamWriter) -> Word:
    await stream.send_chunk(Word("one", 1))
    await stream.send_chunk(Word("two", 2))
    return Word("end", 3)


@pytest.fixture
def worker(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> Callable[..., Worker]:
    def make(*activities: Any) -> Worker:
        return Worker(
            client,
            task_queue=task_queue,
            workflows=[Follows, FollowsTyped, FollowsTwo],
            activities=activities,
            plugins=[StreamqPlugin(queue, settings)],
        )

    return make


@pytest.fixture
def follow(client: Client, task_queue: str) -> Follow:
    async def started(activity: str, *args: Any, **options: Any) -> Handle:
        return await client.start_workflow(
            Follows.run,
            args=[activity, list(args), Options(**options)],
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )

    return started


async def seen(handle: Handle, wanted: int) -> list[Any]:
    async with asyncio.timeout(90):
        while True:
            found: list[Any] = await handle.query(Follows.seen)
            if len(found) >= wanted:
                return found
            await asyncio.sleep(0.01)  # a query cannot be waited for


async def replay(handle: Handle) -> None:
    history = await handle.fetch_history()
    await Replayer(workflows=[Follows], plugins=[StreamqPlugin()]).replay_workflow(history)


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("polling", ["activity", "local"])
async def test_every_chunk_arrives_once_and_in_order(
    worker: Callable[..., Worker], follow: Follow, polling: str, detached: bool
) -> None:
    """The promise of stream_activity for each way of polling; and a replay agrees."""
    async with worker(count):
        handle = await follow("count", 60, 0.01, "done", polling=polling, detached=detached)
        assert await handle.result() == [*range(60), "END", ["result", "done"]]
    await replay(handle)


async def test_values_have_the_requested_type(
    client: Client, worker: Callable[..., Worker], task_queue: str
) -> None:
    """A workflow works with its own classes, not with dictionaries."""
    async with worker(send_words):
        found = await client.execute_workflow(
            FollowsTyped.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
    assert found == ["one 1", "two 2", "last: end"]


async def test_two_streams_at_once(
    client: Client, worker: Callable[..., Worker], task_queue: str
) -> None:
    """An answer and its log, for example, each with its topic."""
    async with worker(count):
        found = await client.execute_workflow(
            FollowsTwo.run, 30, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
    assert found == {"left": [*range(30), "END"], "right": [*range(30), "END"]}


@streaming_activity
async def wait_for_ever(stream: StreamWriter) -> None:
    await stream.send_chunk("working")
    await asyncio.Event().wait()


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("polling", ["activity", "local"])
async def test_early_break_cancels_the_producer(
    worker: Callable[..., Worker],
    follow: Follow,
    queue: ChunkQueue,
    settings: Settings,
    polling: str,
    detached: bool,
) -> None:
    """A workflow that has read enough must not leave unwanted work behind."""
    async with worker(wait_for_ever):
        handle = await follow("wait_for_ever", stop_after=1, polling=polling, detached=detached)
        assert await handle.result() == ["working"]
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["working", "CANCELLED"]
    await replay(handle)


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("polling", ["activity", "local"])
async def test_cancelling_the_workflow_waits_for_the_seal(
    worker: Callable[..., Worker],
    follow: Follow,
    queue: ChunkQueue,
    settings: Settings,
    polling: str,
    detached: bool,
) -> None:
    """Cancelling a workflow means its producer as well, and readers must see the seal."""
    async with worker(wait_for_ever):
        handle = await follow("wait_for_ever", polling=polling, detached=detached)
        await seen(handle, 1)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert (await handle.describe()).status.name == "CANCELED"  # type: ignore[union-attr]
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["working", "CANCELLED"]
    await replay(handle)


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
async def test_failing_producer_is_a_seal_and_a_failure(
    worker: Callable[..., Worker], follow: Follow, detached: bool
) -> None:
    """The workflow can show the chunks and still decide about the failure."""

    @streaming_activity
    async def fails(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        raise ApplicationError("broken", type="ModelError", non_retryable=True)

    async with worker(fails):
        handle = await follow("fails", detached=detached)
        assert await handle.result() == ["half", "ERROR", ["failure", "ModelError"]]
    await replay(handle)


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
async def test_workflow_seals_the_stream_of_producer_that_timed_out(
    worker: Callable[..., Worker], follow: Follow, detached: bool
) -> None:
    """No code of the activity runs any more, and readers must not wait for ever."""
    released = asyncio.Event()

    @streaming_activity
    async def deaf(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue  # deaf

    async with worker(deaf):
        handle = await follow("deaf", start_to_close_seconds=0.5, max_attempts=1, detached=detached)
        found = await handle.result()
        released.set()
    assert found[:2] == ["half", "ERROR"]
    assert found[2][0] == "failure"
    await replay(handle)


async def test_retry_is_delivered_as_reset(worker: Callable[..., Worker], follow: Follow) -> None:
    """The workflow learns that earlier chunks do not count any more."""

    @streaming_activity
    async def twice(stream: StreamWriter) -> None:
        attempt = activity.info().attempt
        await stream.send_chunk(f"attempt {attempt}")
        if attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)

    async with worker(twice):
        handle = await follow("twice")
        expected = ["attempt 1", "RESET", "attempt 2", "END", ["result", None]]
        assert await handle.result() == expected


async def test_activity_that_writes_no_stream_ends_the_iteration(
    worker: Callable[..., Worker], follow: Follow
) -> None:
    """A mistake in one activity must not hang the workflow."""

    @activity.defn
    async def silent() -> str:
        return "nothing to say"

    async with worker(silent):
        handle = await follow("silent")
        assert await handle.result() == [["result", "nothing to say"]]


@pytest.mark.parametrize("polling", ["activity", "local"])
async def test_another_worker_goes_on_where_the_first_stopped(
    worker: Callable[..., Worker], follow: Follow, polling: str
) -> None:
    """A deployment in the middle of a stream loses and repeats nothing."""
    more = asyncio.Event()

    @streaming_activity
    async def waits(stream: StreamWriter) -> str:
        for i in range(stream.position, 20):
            if i >= 5 and not more.is_set():
                await more.wait()
            await stream.send_chunk(i)
        return "done"

    async with worker(waits):
        handle = await follow("waits", polling=polling)
        assert await seen(handle, 5) == [0, 1, 2, 3, 4]
    more.set()
    async with worker(waits):
        found = await handle.result()
    assert found == [0, 1, 2, 3, 4, "RESET", *range(20), "END", ["result", "done"]]
    await replay(handle)


async def test_signal_is_handled_while_local_polls_go_on(
    worker: Callable[..., Worker], follow: Follow
) -> None:
    """Local polls hold the workflow task open: it must close regularly, for signals."""
    stop = asyncio.Event()

    @streaming_activity
    async def chatters(stream: StreamWriter) -> None:
        while not stop.is_set():
            await stream.send_chunk("word")
            await asyncio.sleep(0.01)

    async with worker(chatters):
        handle = await follow("chatters", polling="local", window_ms=20)
        await seen(handle, 10)
        await handle.signal(Follows.poke)
        async with asyncio.timeout(10):
            while not await handle.query(Follows.signals):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # a query cannot be waited for
        stop.set()
        await handle.result()
        history = await handle.fetch_history()
    # Between the workflow task that took the signal and the one before there is no other.
    kinds = [event.WhichOneof("attributes") for event in history.events]
    signal = kinds.index("workflow_execution_signaled_event_attributes")
    markers = [kind for kind in kinds[:signal] if kind == "marker_recorded_event_attributes"]
    assert markers, "no local poll was made"
