"""A streaming activity, run by a real worker and read from outside."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import SOON, failure_of, outline, read_all

from streamq import (
    Chunk,
    OnRetry,
    Seal,
    SealState,
    Settings,
    StreamWriter,
)
from streamq.driver import ChunkQueue
from streamq.temporal import streaming_activity, subscribe


async def test_the_first_chunk_is_seen_while_the_activity_runs(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Streaming means that a reader has the first chunk before there is a result."""
    seen = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        await stream.send_chunk("first")
        await seen.wait()
        await stream.send_chunk("second")
        return "result"

    async with run_worker(produce):
        handle = await start("produce")
        async with subscribe(handle, queue=queue, settings=settings) as events:
            first = await anext(events)
            assert isinstance(first, Chunk)
            assert first.value == "first"
            seen.set()
            rest = [event async for event in events]
        assert outline([first, *rest]) == ["first", "second", "END"]
        assert (await handle.result())["result"] == "result"


async def test_a_retry_resets_and_tells_the_second_attempt_once(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A retried activity must not tell the text twice without saying so."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> int:
        number = activity.info().attempt
        for i in range(3):
            await stream.send_chunk(f"{number}.{i}")
        if number == 1:
            raise ApplicationError("try again", next_retry_delay=SOON)
        return stream.attempt

    async with run_worker(produce):
        handle = await start("produce")
        events = await read_all(handle, queue, settings)
        assert (await handle.result())["result"] == 2
    story = ["1.0", "1.1", "1.2", "RESET 2", "2.0", "2.1", "2.2", "END"]
    assert outline(events) == story
    assert [event.attempt for event in events] == [1, 1, 1, 2, 2, 2, 2, 2]


async def test_resume_goes_on_after_the_last_durable_chunk(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """With RESUME the second attempt skips what is stored, and readers notice nothing."""

    @streaming_activity(on_retry=OnRetry.RESUME)
    async def produce(stream: StreamWriter, total: int) -> int:
        begin = stream.position
        for i in range(begin, total):
            await stream.send_chunk(i)
            if i == 2 and activity.info().attempt == 1:
                raise ApplicationError("try again", next_retry_delay=SOON)
        return begin

    async with run_worker(produce):
        handle = await start("produce", 6)
        events = await read_all(handle, queue, settings)
        assert (await handle.result())["result"] == 3
    assert outline(events) == [0, 1, 2, 3, 4, 5, "END"]


async def test_a_final_failure_seals_error(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A failure that Temporal will not retry ends the stream and the workflow."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        raise ApplicationError("no such model", type="ModelError", non_retryable=True)

    async with run_worker(produce):
        handle = await start("produce")
        events = await read_all(handle, queue, settings)
        failure = await failure_of(handle)
    assert outline(events) == ["half", "ERROR"]
    assert events[-1] == Seal(2, 1, SealState.ERROR, "ModelError", "no such model")
    assert isinstance(failure, ApplicationError)
    assert failure.type == "ModelError"


async def test_the_last_attempt_seals_error_and_earlier_ones_do_not(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A retryable failure leaves the stream open until the attempts are used up."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk(activity.info().attempt)
        raise ApplicationError("busy", next_retry_delay=SOON)

    async with run_worker(produce):
        handle = await start("produce", max_attempts=3)
        events = await read_all(handle, queue, settings)
        await failure_of(handle)
    assert outline(events) == [1, "RESET 2", 2, "RESET 3", 3, "ERROR"]
    assert isinstance(events[-1], Seal)
    assert events[-1].retryable


async def test_cancellation_seals_cancelled_before_the_workflow_ends(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Readers of cancelled work learn that it was cancelled, not that it vanished."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("working")
        await asyncio.Event().wait()

    async with run_worker(produce):
        handle = await start("produce", heartbeat_seconds=1)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story = [await anext(events)]
            await handle.cancel()
            failure = await failure_of(handle)
            story += [event async for event in events]
    assert outline(story) == ["working", "CANCELLED"]
    assert isinstance(failure, CancelledError)


async def test_work_that_swallows_cancellation_ends_as_it_says(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A function that finishes in spite of cancellation has finished: END."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        await stream.send_chunk("working")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await stream.send_chunk("short version")
        return "enough"

    async with run_worker(produce):
        handle = await start("produce", heartbeat_seconds=1)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story = [await anext(events)]
            await handle.cancel()
            story += [event async for event in events]
        assert (await handle.result())["result"] == "enough"
    assert outline(story) == ["working", "short version", "END"]


async def test_worker_shutdown_leaves_the_stream_to_the_next_worker(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A deployment in the middle of a stream is a retry, not an ending."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk(f"by attempt {activity.info().attempt}")
        if activity.info().attempt == 1:
            await asyncio.Event().wait()

    handle = await start("produce", heartbeat_seconds=2)
    async with subscribe(handle, queue=queue, settings=settings) as events:
        async with run_worker(produce):
            story = [await anext(events)]
        async with run_worker(produce):
            story += [event async for event in events]
            await handle.result()
    assert outline(story) == ["by attempt 1", "RESET 2", "by attempt 2", "END"]


async def test_termination_stops_the_activity_and_seals(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A worker that learns that its workflow is gone says so to the readers of the stream."""
    stopped = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("working")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with run_worker(produce):
        handle = await start("produce", heartbeat_seconds=0.5)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            story = [await anext(events)]
            await handle.terminate()
            story += [event async for event in events]
        await stopped.wait()
    assert outline(story) == ["working", "CANCELLED"]


async def test_a_sealed_stream_is_not_told_again(
    run_worker: Run,
    start: Start,
    queue: ChunkQueue,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker that dies between the seal and the result costs a repetition, not a second story."""
    writers: list[StreamWriter] = []

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        writers.append(stream)
        await stream.send_chunk("once")
        await stream.finish()
        if activity.info().attempt == 1:
            raise ApplicationError("the worker died here", next_retry_delay=SOON)
        return "result"

    async with run_worker(produce):
        handle = await start("produce")
        with caplog.at_level(logging.WARNING, "streamq.temporal"):
            assert (await handle.result())["result"] == "result"
        events = await read_all(handle, queue, settings)
    assert outline(events) == ["once", "END"]
    assert writers[1].discards
    assert writers[1].position == 1
    assert caplog.text.count("already sealed") == 1


@dataclass
class Prompt:
    text: str
    weights: list[float]


@dataclass
class Answer:
    text: str
    tokens: int


class Model:
    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    @streaming_activity(name="answer")
    async def run(self, prompt: Prompt, stream: StreamWriter, factor: int) -> Answer:
        """With the writer in the middle, where nobody has to put it."""
        assert isinstance(prompt, Prompt)
        await stream.send_chunk(prompt.text)
        return Answer(prompt.text + self._suffix, factor * len(prompt.weights))


async def test_arguments_and_results_are_converted_as_ever(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Hiding the writer must not cost the other parameters their types, also not on methods."""
    async with run_worker(Model("!").run):
        handle = await start("answer", Prompt("hello", [1.0, 2.0]), 3)
        assert (await handle.result())["result"] == {"text": "hello!", "tokens": 6}
        assert outline(await read_all(handle, queue, settings)) == ["hello", "END"]


async def test_ten_subscribers_and_a_late_one_see_the_same(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Readers do not share: each has every event, also one who comes after the end."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        for i in range(200):
            await stream.send_chunk(i)
            await asyncio.sleep(0)

    async with run_worker(produce):
        handle = await start("produce")
        stories = await asyncio.gather(*(read_all(handle, queue, settings) for _ in range(10)))
        await handle.result()
        late = await read_all(handle, queue, settings)
    assert outline(late) == [*range(200), "END"]
    assert all(story == late for story in stories)
