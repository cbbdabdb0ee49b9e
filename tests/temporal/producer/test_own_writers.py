"""Tests how the streams end that an activity opens itself, with :func:`streamq.open_writer`.

The exceptions that leave such an activity are those of ``test_leaving.py``. Here are the cases
that only a writer of one's own has: an exception that the activity handles, an event loop of its
own, and a second stream beside that of a streaming activity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from tests.temporal.support.bench import Bench
from tests.temporal.support.reading import outline

from streamq import Event, Seal, StreamWriter, open_reader, open_writer
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
