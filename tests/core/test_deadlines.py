"""Every wait ends, by a clock that jumps: hours of silence take no time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from streamq import (
    BackendUnavailableError,
    IdleTimeoutError,
    Settings,
    StreamNotFoundError,
    describe,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import QueueOptions, StreamId
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import Block, FaultyQueue, run_in_virtual_time

STREAM = StreamId("default", "s")

Scene = Callable[[FaultyQueue, Settings], Awaitable[None]]


def play(scene: Scene, **options: float) -> float:
    """Run a scene on the memory queue behind a script; return how long it took by its clock."""
    settings = load_settings(backend="memory", **options)

    async def run() -> float:
        clock = asyncio.get_running_loop().time
        opened = await MemoryDriver.open(
            QueueOptions(ttl=settings.ttl), MemorySettings(store=uuid4().hex)
        )
        async with FaultyQueue(opened) as queue:
            started = clock()
            await scene(queue, settings)
            return clock() - started

    return run_in_virtual_time(run)


def test_a_read_that_the_driver_never_answers_ends_as_an_outage() -> None:
    """If a driver hangs, a reader gets a typed error within the stated time."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        queue.always("read", Block())
        async with open_reader("s", queue=queue, settings=settings) as reader:
            with pytest.raises(
                BackendUnavailableError, match="STREAMQ_OPERATION_SECONDS"
            ) as caught:
                await anext(reader)
            assert caught.value.stream == "default/s"

    took = play(scene, idle_seconds=10_000, operation_seconds=30, retry_seconds=60)
    assert 60 <= took <= 60 + 3 * (30 + 20)


def test_an_append_that_hangs_is_repeated() -> None:
    """A half-open connection costs its time-out, and nothing is lost."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        async with open_writer("s", queue=queue, settings=settings) as writer:
            queue.script("append", Block())
            await writer.send_chunk("a")
        async with open_reader("s", queue=queue, settings=settings) as reader:
            assert await reader.collect() == ["a"]

    assert 30 <= play(scene, operation_seconds=30) <= 32


def test_an_append_that_hangs_for_ever_stops_the_writer() -> None:
    """A producer must not wait for ever for a buffer that never empties."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        writer = await open_writer("s", queue=queue, settings=settings)
        queue.always("append", Block())
        await writer.send_chunk("a")
        with pytest.raises(BackendUnavailableError):
            await writer.flush()
        await writer.aclose()

    took = play(scene, operation_seconds=30, retry_seconds=60)
    assert 60 <= took <= 60 + 2 * 31


def test_opening_against_a_backend_that_hangs_ends() -> None:
    """An activity must fail, and be retried elsewhere, instead of hanging at its first line."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        queue.always("describe", Block())
        with pytest.raises(BackendUnavailableError):
            await open_writer("s", queue=queue, settings=settings)

    play(scene, operation_seconds=30, retry_seconds=60)


def test_describe_has_a_deadline_and_is_retried() -> None:
    """``describe`` is a call to the backend like any other: it neither hangs nor fails early."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        await (await open_writer("s", queue=queue, settings=settings)).aclose()
        queue.script("describe", Block())
        assert (await describe("s", queue=queue, settings=settings)).offset == 0
        queue.always("describe", Block())
        with pytest.raises(BackendUnavailableError, match="STREAMQ_OPERATION_SECONDS"):
            await describe("s", queue=queue, settings=settings)

    assert play(scene, operation_seconds=30, retry_seconds=60) <= 30 + 1 + 60 + 2 * 30 + 5


def test_silence_ends_at_the_idle_deadline() -> None:
    """A reader cannot know that the producer is gone; it must not wait for ever either."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        async with open_writer("s", queue=queue, settings=settings) as writer:
            await writer.send_chunk("a")
            await writer.flush()
            async with open_reader("s", queue=queue, settings=settings) as reader:
                await anext(reader)
                with pytest.raises(IdleTimeoutError, match="300 s"):
                    await anext(reader)

    assert 300 <= play(scene, idle_seconds=300) < 301


def test_a_reader_of_an_expired_stream_gets_an_error_soon() -> None:
    """The stream was lost by the server or has expired: no more events will come."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        writer = await open_writer("s", queue=queue, settings=settings)
        await writer.send_chunk("a")
        await writer.flush()
        async with open_reader("s", queue=queue, settings=settings) as reader:
            await anext(reader)
            await queue.delete(STREAM)
            with pytest.raises(StreamNotFoundError, match="vanished after event 1"):
                await anext(reader)
        await writer.aclose()

    assert play(scene, idle_seconds=3_000) <= 25


def test_a_reader_checks_at_once_after_an_outage() -> None:
    """A server that was restarted without its data must not leave readers waiting."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        writer = await open_writer("s", queue=queue, settings=settings)
        await writer.send_chunk("a")
        await writer.flush()
        async with open_reader("s", queue=queue, settings=settings) as reader:
            await anext(reader)
            waiting = asyncio.ensure_future(reader.__anext__())
            await asyncio.sleep(1)
            queue.take_down()
            await asyncio.sleep(5)
            await queue.inner.delete(STREAM)
            queue.bring_up()
            with pytest.raises(StreamNotFoundError):
                await waiting
        await writer.aclose()

    assert play(scene, idle_seconds=3_000, retry_seconds=30) <= 10


def test_a_stream_that_never_existed_has_not_vanished() -> None:
    """Browsers connect before producers start: a stream that never existed has not been lost."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        async with open_reader("s", queue=queue, settings=settings) as reader:
            waiting = asyncio.ensure_future(reader.__anext__())
            await asyncio.sleep(200)
            async with open_writer("s", queue=queue, settings=settings) as writer:
                await writer.send_chunk("a")
            await waiting

    play(scene, idle_seconds=3_000)


def test_an_ended_stream_is_kept_for_the_shorter_time() -> None:
    """Late readers get the story for some hours; after that it only takes memory."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        writer = await open_writer("s", queue=queue, settings=settings)
        await writer.send_chunk("a")
        await writer.flush()
        assert (await queue.describe(STREAM)).expires_in == timedelta(seconds=1_000)
        await asyncio.sleep(900)
        await writer.send_chunk("b")
        await writer.finish()
        await writer.aclose()
        assert (await queue.describe(STREAM)).expires_in == timedelta(seconds=100)
        await asyncio.sleep(99)
        await queue.describe(STREAM)
        await asyncio.sleep(2)
        with pytest.raises(StreamNotFoundError):
            await queue.describe(STREAM)

    play(scene, ttl_seconds=1_000, sealed_ttl_seconds=100)


def test_a_long_time_after_the_end_never_exceeds_the_usual_one() -> None:
    """A user who shortens the usual time to live means it for all streams."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        async with open_writer("s", queue=queue, settings=settings):
            pass
        assert (await queue.describe(STREAM)).expires_in == timedelta(seconds=50)

    play(scene, ttl_seconds=50, sealed_ttl_seconds=100)


def test_a_new_attempt_of_a_quiet_stream_finds_it() -> None:
    """Each append renews the time to live: a stream lives as long as its producer writes."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        async with open_writer("s", queue=queue, settings=settings) as writer:
            for i in range(20):
                await asyncio.sleep(90)
                await writer.send_chunk(i)
        async with open_reader("s", queue=queue, settings=settings) as reader:
            assert await reader.collect() == list(range(20))

    play(scene, ttl_seconds=100, sealed_ttl_seconds=100)


def test_the_limit_on_calls_does_not_end_long_polls() -> None:
    """A read that waits by request is not an outage, however long it waits."""

    async def scene(queue: FaultyQueue, settings: Settings) -> None:
        async with open_reader("s", queue=queue, settings=settings) as reader:
            assert await reader.read_batch(max_wait=100) == []
        assert queue.count("read") <= 1 + 100 // 20

    assert 100 <= play(scene, operation_seconds=0.5) < 101
