"""Tests ``STREAMQ_MODE``: the same activities, and the same programs around them, in both modes."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Start
from tests.temporal.support.following_workflows import Follows, Options
from tests.temporal.support.reading import SOON, failure_of, outline

from streamq import BlockingStreamWriter, Event, OnRetry, StreamWriter, open_queue, open_reader
from streamq.driver import START
from streamq.temporal import StreamqPlugin, stream_name, streaming_activity, subscribe

Handle = WorkflowHandle[Any, Any]
Activity = Callable[..., Any]
IDLE_SECONDS = 30  # a stream that does not end fails its test, and does not hold up all others


@pytest.fixture(params=["realtime", "batch"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Configure all settings by the environment, as a deployment does."""
    chosen: str = request.param
    monkeypatch.setenv("STREAMQ_MODE", chosen)
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    monkeypatch.setenv("STREAMQ_CANCEL_SECONDS", "0.2")
    return chosen


class Gate:
    """Blocks an activity after its first chunks until a test opens it."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._open.wait(60)

    async def pass_through_async(self) -> None:
        await asyncio.to_thread(self.pass_through)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 60)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()  # whatever failed: no thread may be left behind


Work = Callable[..., Worker]


@pytest.fixture
def work(client: Client, task_queue: str) -> Iterator[Work]:
    """Return a function that makes a worker whose plugin is configured by the environment."""
    with ThreadPoolExecutor(4) as pool:

        def make(*activities: Activity) -> Worker:
            return Worker(
                client,
                task_queue=task_queue,
                workflows=[Follows],
                activities=activities,
                activity_executor=pool,
                plugins=[StreamqPlugin()],
            )

        yield make


def gated(shape: str, gate: Gate) -> Activity:
    """Return an activity that sends two chunks, waits at the gate, sends a third and returns."""

    @streaming_activity(name="produce")
    async def function(stream: StreamWriter[str]) -> list[int]:
        await stream.send_chunk("first")
        await stream.send_chunk("second")
        await stream.flush()
        durable = stream.durable_position
        await gate.pass_through_async()
        await stream.send_chunk("third")
        return [stream.position, durable]

    @streaming_activity(name="produce")
    def thread(stream: BlockingStreamWriter[str]) -> list[int]:
        stream.send_chunk("first")
        stream.send_chunk("second")
        stream.flush()
        durable = stream.durable_position
        gate.pass_through()
        stream.send_chunk("third")
        return [stream.position, durable]

    @streaming_activity(name="produce")
    async def generator(stream: StreamWriter[str]) -> AsyncIterator[str]:
        yield "first"
        yield "second"
        await stream.flush()
        await gate.pass_through_async()
        yield "third"

    @streaming_activity(name="produce")
    def thread_generator(stream: BlockingStreamWriter[str]) -> Generator[str, None, list[int]]:
        yield "first"
        yield "second"
        stream.flush()
        durable = stream.durable_position
        gate.pass_through()
        yield "third"
        return [stream.position, durable]

    shapes: dict[str, Activity] = {
        "async": function,
        "thread": thread,
        "async generator": generator,
        "thread generator": thread_generator,
    }
    return shapes[shape]


async def stored(name: str) -> bytes:
    """Return all that the queue stores of a stream."""
    async with open_queue() as queue, open_reader(name, queue=queue) as reader:
        records = await queue.read(
            reader.stream, START, max_records=1_000, max_bytes=10**6, max_wait=0
        )
    return b"".join(record.data for record in records)


def name_of(handle: Handle) -> str:
    assert handle.first_execution_run_id
    return stream_name(handle.id, handle.first_execution_run_id)


async def story_of(handle: Handle) -> list[object]:
    async with subscribe(handle, idle_seconds=IDLE_SECONDS) as events:
        return outline([event async for event in events])


@pytest.mark.parametrize("shape", ["async", "thread", "async generator", "thread generator"])
async def test_chunks_are_seen_at_once_or_when_the_activity_has_ended(
    work: Work, start: Start, gate: Gate, mode: str, shape: str
) -> None:
    """One variable switches streaming off, and gives back what an activity always did."""
    async with work(gated(shape, gate)):
        handle = await start("produce")
        await gate.reached()
        async with subscribe(handle, idle_seconds=IDLE_SECONDS) as events:
            early: list[Event] = []
            # The activity has flushed and waits: what is to be seen of it is there already.
            async with open_reader(name_of(handle)) as reader:
                for _ in range(4):
                    early += await reader.read_batch(max_wait=0.05)
            data = await stored(name_of(handle))
            gate.open()
            complete = [event async for event in events]
        result = (await handle.result())["result"]
    assert outline(complete) == ["first", "second", "third", "END"]
    assert [event.attempt for event in complete] == [1, 1, 1, 1]
    if mode == "batch":
        assert data  # that an attempt has begun
        assert not early
        assert not any(word in data for word in (b"first", b"second"))
    else:
        assert outline(early) == ["first", "second"]
        assert b"first" in data
    if shape != "async generator":
        assert result == [3, 0 if mode == "batch" else 2]


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
async def test_failed_attempt_is_seen_in_realtime_mode_only(
    work: Work, start: Start, mode: str, in_thread: bool
) -> None:
    """In batch mode nothing was delivered that the next attempt would have to take back."""

    @streaming_activity(name="produce")
    async def function(stream: StreamWriter[str]) -> str:
        await stream.send_chunk(f"attempt {activity.info().attempt}")
        await stream.flush()
        if activity.info().attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)
        return "result"

    @streaming_activity(name="produce")
    def thread(stream: BlockingStreamWriter[str]) -> str:
        stream.send_chunk(f"attempt {activity.info().attempt}")
        stream.flush()
        if activity.info().attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)
        return "result"

    async with work(thread if in_thread else function):
        handle = await start("produce")
        story = await story_of(handle)
        assert (await handle.result())["result"] == "result"
    taken_back = ["attempt 1", "RESET 2"] if mode == "realtime" else []
    assert story == [*taken_back, "attempt 2", "END"]


@pytest.mark.parametrize("on_retry", [OnRetry.RESUME, OnRetry.REPLAY])
async def test_attempts_that_resume_lose_no_chunk_in_both_modes(
    work: Work, start: Start, mode: str, on_retry: OnRetry
) -> None:
    """An activity that resumes sees that nothing is stored yet, and sends all chunks again."""
    begun: list[int] = []

    @streaming_activity(on_retry=on_retry)
    async def produce(stream: StreamWriter[int]) -> None:
        begun.append(stream.position)
        for i in range(stream.position, 3):
            await stream.send_chunk(i)
            if i == 1 and activity.info().attempt == 1:
                await stream.flush()
                raise ApplicationError("again", next_retry_delay=SOON)

    async with work(produce):
        handle = await start("produce")
        assert await story_of(handle) == [0, 1, 2, "END"]
        await handle.result()
    resumes = mode == "realtime" and on_retry is OnRetry.RESUME
    assert begun == [0, 2 if resumes else 0]


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
async def test_activity_that_fails_without_retry_delivers_its_failure(
    work: Work, start: Start, mode: str, in_thread: bool
) -> None:
    """Batch mode delivers a failure and no half of an answer; readers learn the reason."""

    @streaming_activity(name="produce")
    async def function(stream: StreamWriter[str]) -> None:
        await stream.send_chunk("half")
        await stream.flush()
        raise ApplicationError("broken", type="ModelError", non_retryable=True)

    @streaming_activity(name="produce")
    def thread(stream: BlockingStreamWriter[str]) -> None:
        stream.send_chunk("half")
        stream.flush()
        raise ApplicationError("broken", type="ModelError", non_retryable=True)

    async with work(thread if in_thread else function):
        handle = await start("produce")
        async with subscribe(handle, idle_seconds=IDLE_SECONDS) as events:
            found = [event async for event in events]
        failure = await failure_of(handle)
        data = await stored(name_of(handle))
    assert isinstance(failure, ApplicationError)
    assert failure.type == "ModelError"
    assert outline(found) == (["half", "ERROR"] if mode == "realtime" else ["ERROR"])
    assert found[-1].to_dict()["message"] == "broken"
    assert (b"half" in data) == (mode == "realtime")


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
async def test_cancelled_activity_delivers_no_chunk_in_batch_mode(
    work: Work, start: Start, gate: Gate, mode: str, in_thread: bool
) -> None:
    """Cancellation is no success; it comes as quickly and ends the stream in both modes."""

    @streaming_activity(name="produce")
    async def function(stream: StreamWriter[str]) -> None:
        await stream.send_chunk("working")
        await stream.flush()
        await gate.pass_through_async()
        await asyncio.Event().wait()

    @streaming_activity(name="produce")
    def thread(stream: BlockingStreamWriter[str]) -> None:
        stream.send_chunk("working")
        stream.flush()
        gate.pass_through()
        activity.wait_for_cancelled_sync(60)
        raise CancelledError("of the activity")

    async with work(thread if in_thread else function):
        handle = await start("produce", heartbeat_seconds=1)
        await gate.reached()
        gate.open()
        async with subscribe(handle, idle_seconds=IDLE_SECONDS) as events:
            await handle.cancel()
            story = outline([event async for event in events])
        assert isinstance(await failure_of(handle), CancelledError)
    assert story == (["working"] if mode == "realtime" else []) + ["CANCELLED"]


@pytest.mark.parametrize("mode", ["batch"], indirect=True)
@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
async def test_output_above_the_buffer_limit_fails_without_retry(
    work: Work, start: Start, mode: str, monkeypatch: pytest.MonkeyPatch, in_thread: bool
) -> None:
    """The next attempt would meet the same limit, and the one after it, at a cost."""
    monkeypatch.setenv("STREAMQ_BATCH_BYTES", "1000")
    attempts: list[int] = []

    @streaming_activity(name="produce")
    async def function(stream: StreamWriter[str]) -> None:
        attempts.append(activity.info().attempt)
        for _ in range(3):
            await stream.send_chunk("x" * 400)

    @streaming_activity(name="produce")
    def thread(stream: BlockingStreamWriter[str]) -> None:
        attempts.append(activity.info().attempt)
        for _ in range(3):
            stream.send_chunk("x" * 400)

    async with work(thread if in_thread else function):
        handle = await start("produce")
        assert await story_of(handle) == ["ERROR"]
        failure = await failure_of(handle)
    assert isinstance(failure, ApplicationError)
    assert failure.type == "BufferFullError"
    assert "STREAMQ_BATCH_BYTES" in failure.message
    assert attempts == [1]


# -- in a workflow ---------------------------------------------------------------------------------


async def follow(client: Client, task_queue: str, **options: Any) -> Handle:
    return await client.start_workflow(
        Follows.run,
        args=["produce", [], Options(**options)],
        id=f"wf-{uuid.uuid4().hex}",
        task_queue=task_queue,
    )


async def wait_polls(handle: Handle, wanted: int) -> None:
    """Wait until that many polls have returned to the workflow."""
    async with asyncio.timeout(90):
        while True:
            events = (await handle.fetch_history()).events
            done = [
                e for e in events if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
            ]
            if len(done) >= wanted:
                return
            await asyncio.sleep(0.02)  # a history grows without telling


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
async def test_workflow_reads_at_once_or_when_the_activity_has_ended(
    client: Client, work: Work, task_queue: str, gate: Gate, mode: str, detached: bool
) -> None:
    """The workflow is the same in both modes: it iterates, and gets each event once."""
    async with work(gated("async", gate)):
        handle = await follow(client, task_queue, detached=detached, max_wait_seconds=0.1)
        await gate.reached()
        before = await handle.query(Follows.seen)
        await wait_polls(handle, 3)
        early = await handle.query(Follows.seen)
        gate.open()
        durable = 2 if mode == "realtime" else 0
        complete = ["first", "second", "third", "END", ["result", [3, durable]]]
        assert await handle.result() == complete
    assert early == (["first", "second"] if mode == "realtime" else [])
    assert before == early[: len(before)]


async def test_workflow_sees_no_failed_attempt_in_batch_mode(
    client: Client, work: Work, task_queue: str, mode: str
) -> None:
    """Code for `Reset` in a workflow does no harm where no reset comes."""

    @streaming_activity
    async def produce(stream: StreamWriter[str]) -> str:
        await stream.send_chunk(f"attempt {activity.info().attempt}")
        await stream.flush()
        if activity.info().attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)
        return "done"

    async with work(produce):
        handle = await follow(client, task_queue)
        story = await handle.result()
    taken_back = ["attempt 1", "RESET"] if mode == "realtime" else []
    assert story == [*taken_back, "attempt 2", "END", ["result", "done"]]
