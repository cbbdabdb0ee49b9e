"""Tests how the streams end that an activity opens itself, with :func:`streamq.open_writer`.

The exceptions that leave such an activity are those of ``test_leaving.py``. Here are the cases
that only a writer of one's own has: an exception that the activity handles, an event loop of its
own, and a second stream beside that of a streaming activity.

Places that share the kind "an exception has left the block, and the activity goes on": a loop in
the activity's own task, a task for each message, an exception that is kept, one that leaves the
activity from another task, a block that is opened again, completion from outside. Each is here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from tests.temporal.support.bench import Bench
from tests.temporal.support.reading import outline

from streamq import (
    BlockingStreamWriter,
    ChunkTooLargeError,
    Event,
    Seal,
    SealedError,
    StreamWriter,
    open_reader,
    open_writer,
)
from streamq.driver import QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import stream_name, streaming_activity


def own_name(topic: str = "default") -> str:
    info = activity.info()
    return stream_name(str(info.workflow_id), str(info.workflow_run_id), topic)


async def read(bench: Bench, name: str) -> list[Event]:
    reading = open_reader(name, queue=bench.queue, settings=bench.settings, idle_seconds=15)
    async with reading as events:
        return [event async for event in events]


async def test_exception_that_the_activity_handles_ends_the_stream(bench: Bench) -> None:
    """No attempt follows, so that readers must not wait for one."""

    @activity.defn
    async def produce(text: str) -> None:
        try:
            async with open_writer(own_name(), queue=bench.queue, settings=bench.settings) as own:
                await own.send_chunk("half")
                raise ApplicationError("no model", type="ModelError")
        except ApplicationError:
            pass

    async with bench.worker(produce):
        events, outcome = await bench.ending(await bench.start())
    seal = events[-1]
    assert isinstance(seal, Seal)
    assert outline(events) == ["half", "ERROR"]
    assert (seal.error_type, seal.message) == ("ModelError", "no model")
    assert outcome.state == "COMPLETED"


def writer_tasks() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [each for each in names if each.startswith("streamq-writer")]


@pytest.mark.parametrize("way", ["loop", "tasks", "group"])
async def test_handled_exception_ends_its_stream_while_the_activity_goes_on(
    bench: Bench, way: str
) -> None:
    """A consumer that runs for hours must not keep the streams that failed, nor their readers."""
    over, topics = asyncio.Event(), [f"t{number}" for number in range(40)]
    kept: list[str] = []

    async def write(topic: str) -> None:
        try:
            name = own_name(topic)
            async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
                await own.send_chunk(topic)
                raise ValueError("no model")
        except ValueError:
            pass

    @activity.defn
    async def produce(text: str) -> None:
        if way == "loop":
            for topic in topics:
                await write(topic)
        elif way == "tasks":
            for topic in topics:
                await asyncio.create_task(write(topic))
        else:
            await asyncio.gather(*map(write, topics))
        await over.wait()

    async with bench.worker(produce):
        handle = await bench.start()
        run = str(handle.first_execution_run_id)
        names = [stream_name(handle.id, run, topic) for topic in topics]
        try:
            async with asyncio.timeout(10):
                stories = await asyncio.gather(*(read(bench, name) for name in names))
            kept += writer_tasks()
        finally:
            over.set()
        await handle.execute_update("outcome")
        await handle.signal("end")
    assert [outline(each) for each in stories] == [[topic, "ERROR"] for topic in topics]
    assert kept == []


async def test_exceptions_that_are_kept_hold_a_bounded_number_of_writers(bench: Bench) -> None:
    """Each may still leave the activity; the oldest are decided as if they did."""
    counts: list[int] = []

    @activity.defn
    async def produce(text: str) -> None:
        errors = []
        for number in range(50):
            name = own_name(f"t{number}")
            try:
                async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
                    await own.send_chunk("half" if activity.info().attempt == 1 else "whole")
                    if activity.info().attempt == 1:
                        raise ValueError("no model")
            except ValueError as exc:
                errors.append(exc)
        async with asyncio.timeout(5):
            while len(writer_tasks()) > 32:  # noqa: ASYNC110 - the last are being closed
                await asyncio.sleep(0.01)
        counts.append(len(writer_tasks()))
        if errors:
            raise ExceptionGroup("several", errors)

    async with bench.worker(produce):
        handle = await bench.start(max_attempts=2)
        outcome = await handle.execute_update("outcome")
        await handle.signal("end")
        run = str(handle.first_execution_run_id)
        first = await read(bench, stream_name(handle.id, run, "t0"))
        last = await read(bench, stream_name(handle.id, run, "t49"))
    assert (outcome["state"], counts) == ("COMPLETED", [32, 0])
    assert outline(first) == outline(last) == ["half", "RESET 2", "whole", "END"]


async def test_exception_of_another_task_that_leaves_the_activity_is_not_handled(
    bench: Bench,
) -> None:
    """Of several errors, Python drops all but one, though the activity has handled none."""

    async def write(topic: str) -> None:
        name = own_name(topic)
        async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
            await own.send_chunk(topic)
            if activity.info().attempt == 1:
                raise ValueError(topic)

    @activity.defn
    async def produce(text: str) -> None:
        tasks = [asyncio.create_task(write(topic)) for topic in ("a", "b")]
        await asyncio.wait(tasks)
        failed = any(task.exception() for task in tasks)
        tasks.clear()
        await asyncio.sleep(0.05)  # time for a seal, if there was one
        if failed:
            raise ValueError("several")

    async with bench.worker(produce):
        handle = await bench.start(max_attempts=2)
        outcome = await handle.execute_update("outcome")
        await handle.signal("end")
        run = str(handle.first_execution_run_id)
        found = [outline(await read(bench, stream_name(handle.id, run, each))) for each in "ab"]
    assert outcome["state"] == "COMPLETED"
    assert found == [[each, "RESET 2", each, "END"] for each in "ab"]


async def test_block_that_was_opened_again_is_closed_without_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """While its exception exists, the stream goes on; the old writer has nothing to seal."""

    @activity.defn
    async def produce(text: str) -> None:
        name = own_name()
        try:
            async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
                await own.send_chunk("half")
                raise ValueError("bad")
        except ValueError:
            async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
                await own.send_chunk("whole")

    async with bench.worker(produce):
        events, outcome = await bench.ending(await bench.start())
    assert (outline(events), outcome.state) == (["half", "RESET 2", "whole", "END"], "COMPLETED")
    assert "could not be sealed" not in caplog.text


async def test_stream_whose_exception_was_handled_is_sealed_before_it_is_opened_again(
    bench: Bench,
) -> None:
    """The order must not depend on how fast the backend is."""

    @activity.defn
    async def produce(text: str) -> str:
        name = own_name()
        with contextlib.suppress(ValueError):
            async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
                await own.send_chunk("half")
                raise ValueError("bad")
        with contextlib.suppress(SealedError):
            await open_writer(name, queue=bench.queue, settings=bench.settings)
            return "opened"
        return "sealed"

    async with bench.worker(produce):
        events, outcome = await bench.ending(await bench.start())
    assert (outline(events), outcome.state) == (["half", "ERROR"], "COMPLETED")


async def test_completion_from_outside_after_a_handled_exception(bench: Bench) -> None:
    """Its streams have ended, so that nothing speaks against it."""
    errors = []

    @activity.defn
    async def produce(text: str) -> None:
        try:
            async with open_writer(own_name(), queue=bench.queue, settings=bench.settings) as own:
                await own.send_chunk("half")
                raise ValueError("bad")
        except ValueError as exc:
            errors.append(exc)
        activity.raise_complete_async()

    async with bench.worker(produce):
        handle = await bench.start()
        assert outline(await bench.story(handle)) == ["half", "ERROR"]
        description = await handle.describe()
        [pending] = description.raw_description.pending_activities
        outside = bench.client.get_async_activity_handle(
            workflow_id=handle.id,
            run_id=str(handle.first_execution_run_id),
            activity_id=pending.activity_id,
        )
        await outside.complete("done")
        outcome = await handle.execute_update("outcome")
        await handle.signal("end")
    assert outcome["state"] == "COMPLETED"


async def test_cancelled_activity_seals_cancelled(bench: Bench) -> None:
    """Temporal records a cancellation, and readers get the same."""
    running = asyncio.Event()

    @activity.defn
    async def produce(text: str) -> None:
        async with open_writer(own_name(), queue=bench.queue, settings=bench.settings) as own:
            await own.send_chunk("half")
            running.set()
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.02)

    async with bench.worker(produce):
        handle = await bench.start()
        await asyncio.wait_for(running.wait(), 10)
        await handle.signal("cancel_activity")
        events, outcome = await bench.ending(handle)
    assert outline(events) == ["half", "CANCELLED"]
    assert outcome.state == "CANCELLED"


@pytest.mark.parametrize(
    ("max_attempts", "story", "state"),
    [(1, ["half", "ERROR"], "FAILED"), (2, ["half", "RESET 2", "half", "END"], "COMPLETED")],
)
async def test_event_loop_of_a_thread(
    bench: Bench, tmp_path: Path, max_attempts: int, story: list[object], state: str
) -> None:
    """The loop ends before the activity does, so that the writer has to be closed in it."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    driver = SqliteSettings(path=tmp_path / "streams.db")

    async def work() -> None:
        async with (
            await SqliteDriver.open(options, driver) as queue,
            open_writer(own_name(), queue=queue, settings=bench.settings) as own,
        ):
            await own.send_chunk("half")
            if activity.info().attempt == 1:
                raise ValueError("bad")

    @activity.defn
    def produce(text: str) -> None:
        asyncio.run(work())

    async with await SqliteDriver.open(options, driver) as queue:
        reader = Bench(bench.client, queue, bench.settings, bench.task_queue)
        async with bench.worker(produce):
            events, outcome = await reader.ending(await bench.start(max_attempts=max_attempts))
    assert (outline(events), outcome.state) == (story, state)


async def test_error_of_streamq_in_the_event_loop_of_a_thread(bench: Bench, tmp_path: Path) -> None:
    """Temporal records a failure that is not retried, so that no attempt ends the stream."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    driver = SqliteSettings(path=tmp_path / "streams.db")

    async def work() -> None:
        async with (
            await SqliteDriver.open(options, driver) as queue,
            open_writer(own_name("own"), queue=queue, settings=bench.settings) as own,
        ):
            await own.send_chunk("half")
            raise ChunkTooLargeError("too large")

    @streaming_activity
    def produce(text: str, stream: BlockingStreamWriter) -> None:
        asyncio.run(work())

    async with await SqliteDriver.open(options, driver) as queue:
        async with bench.worker(produce):
            handle = await bench.start(max_attempts=3)
            _, outcome = await bench.ending(handle)
        name = stream_name(handle.id, str(handle.first_execution_run_id), "own")
        own = await read(Bench(bench.client, queue, bench.settings, bench.task_queue), name)
    assert (outcome.state, outcome.type) == ("FAILED", "ChunkTooLargeError")
    assert outline(own) == ["half", "ERROR"]


def fails_at_first(bench: Bench) -> Callable[..., Any]:
    @streaming_activity
    async def produce(text: str, stream: StreamWriter) -> None:
        name = own_name("own")
        async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
            await stream.send_chunk("main")
            await own.send_chunk(name)
            if activity.info().attempt == 1:
                raise ValueError("bad")

    return produce


@pytest.mark.parametrize("max_attempts", [1, 2])
async def test_second_stream_ends_as_that_of_the_activity(bench: Bench, max_attempts: int) -> None:
    """Both belong to the same attempt."""
    async with bench.worker(fails_at_first(bench)):
        handle = await bench.start(max_attempts=max_attempts)
        events, _ = await bench.ending(handle)
        name = stream_name(handle.id, str(handle.first_execution_run_id), "own")
        own = await read(bench, name)
    if max_attempts == 1:
        assert (outline(events), outline(own)) == (["main", "ERROR"], [name, "ERROR"])
    else:
        assert outline(events) == ["main", "RESET 2", "main", "END"]
        assert outline(own) == [name, "RESET 2", name, "END"]


async def test_task_that_outlives_the_activity_ends_its_stream_itself(bench: Bench) -> None:
    """Nothing runs after the activity that would seal for it."""
    over, left = asyncio.Event(), []

    async def work(name: str) -> None:
        async with open_writer(name, queue=bench.queue, settings=bench.settings) as own:
            await own.send_chunk("half")
            await over.wait()
            raise ValueError("bad")

    @activity.defn
    async def produce(text: str) -> None:
        left.append(asyncio.create_task(work(own_name())))

    async with bench.worker(produce):
        handle = await bench.start()
        await handle.execute_update("outcome")
        over.set()
        events, _ = await bench.ending(handle)
        await asyncio.gather(*left, return_exceptions=True)
    assert outline(events) == ["half", "ERROR"]
