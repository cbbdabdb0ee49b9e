"""The writer for threads: each of its waits ends, even if the event loop stops."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

import pytest

from streamq import BlockingStreamWriter, ClosedError, Encoding, Settings, open_writer
from streamq.driver import ChunkQueue, StreamId
from streamq.reading._cursor import Progress
from streamq.testing import Block, FaultyQueue
from streamq.writing._outbox import Outbox

from .test_writer import Eventually, events_of

TraceFunction: TypeAlias = Callable[[FrameType, str, Any], Any]


async def test_threads_that_wait_for_room_wait_once(
    faulty: FaultyQueue, settings: Settings, eventually: Eventually
) -> None:
    """Room found by one thread must not be lost to another: they could wait for each other."""
    small = settings.model_copy(update={"buffer_bytes": 100})
    writer = await open_writer("s", queue=faulty, settings=small)
    blocking = BlockingStreamWriter(writer)
    gate = Block()
    faulty.script("append", gate)
    await writer.send_chunk("a" * 60)
    await gate.reached()
    threads = [
        asyncio.create_task(asyncio.to_thread(blocking.send_chunk, letter * 60)) for letter in "bcd"
    ]
    await eventually(lambda: writer.statistics().waits == 3)
    gate.release()
    await asyncio.gather(*threads)
    assert writer.statistics().waits == 3
    await writer.finish()
    await writer.aclose()
    assert len(await events_of("s", faulty, settings)) == 5


async def test_many_threads_keep_their_order(queue: ChunkQueue, settings: Settings) -> None:
    """The chunks of a thread arrive in order and complete, however small the buffer is."""
    small = settings.model_copy(update={"buffer_bytes": 200})
    async with open_writer("s", queue=queue, settings=small) as writer:
        blocking = BlockingStreamWriter(writer)

        def work(name: str) -> None:
            for i in range(100):
                blocking.send_chunk([name, i])

        await asyncio.gather(*(asyncio.to_thread(work, name) for name in "abcd"))
    values = [getattr(event, "value", None) for event in await events_of("s", queue, settings)]
    for name in "abcd":
        assert [v[1] for v in values if v and v[0] == name] == list(range(100))


@pytest.mark.parametrize("method", ["flush", "finish"])
async def test_a_waiting_thread_gets_an_error_when_the_loop_ends(
    queue: ChunkQueue, settings: Settings, method: str
) -> None:
    """A thread that waits for ever keeps its process from ending."""
    loop = asyncio.new_event_loop()
    async with open_writer("s", queue=queue, settings=settings) as writer:
        blocking = BlockingStreamWriter(writer)
        blocking._loop = loop  # has not started the coroutine yet
        waiting = asyncio.create_task(asyncio.to_thread(getattr(blocking, method)))
        while not blocking._waits:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.01)
        loop.close()
        with pytest.raises(ClosedError, match="event loop"):
            await waiting


async def test_a_thread_that_outlives_the_loop_gets_an_error_each_time(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A chunk that will never be sent must not look like an accepted one."""
    loop = asyncio.new_event_loop()
    loop.close()
    writer = await open_writer("s", queue=queue, settings=settings)
    blocking: BlockingStreamWriter[str] = BlockingStreamWriter(writer)
    blocking._loop = writer._wake._its_loop = loop
    for call in (*[lambda: blocking.send_chunk("x")] * 3, blocking.flush, blocking.finish):
        with pytest.raises(ClosedError, match="event loop"):
            await asyncio.to_thread(call)
    await writer.aclose()


def test_an_interrupted_thread_leaves_no_partial_chunk() -> None:
    """Temporal raises a cancellation anywhere in a thread; the stream must stay readable."""
    code = Outbox.accept.__code__
    where = 0

    def interrupt(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        nonlocal where
        if frame.f_code is code or (frame.f_back is not None and frame.f_back.f_code is code):
            if event == "line":
                where -= 1
            if where == 0:
                raise KeyboardInterrupt
            return interrupt
        return None

    # At the first line, the second, ..., until it is no longer interrupted.
    for first in range(1, 1_000):
        outbox = Outbox(
            Progress(1, 1),
            stream=StreamId("t", "s"),
            restarts=True,
            max_record_bytes=4_096,
            needs_reset=False,
        )
        where = first
        tracing = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                outbox.accept(Encoding.BYTES, bytes(10_000))
        finally:
            sys.settrace(tracing)
        batch = outbox.pack()
        parts = batch.records if batch else ()
        assert len(parts) in (0, 3)
        if where > 0:
            break
    assert first > 5
    assert len(parts) == 3
