"""Calls of ``send_chunk`` that are not awaited at once, and ``send_nowait``.

Callbacks of frameworks are often plain functions. They send in four ways, each of which must
deliver every chunk or fail: ``send_nowait`` in the loop, ``send_nowait`` in another thread, a task
for each call of ``send_chunk``, and a call whose ``await`` was forgotten.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import warnings
from collections.abc import Coroutine

import pytest

from streamq import (
    BlockingStreamWriter,
    BufferFullError,
    Chunk,
    ClosedError,
    NotAwaitedError,
    OnFull,
    Seal,
    SealedError,
    SealState,
    Settings,
    StreamWriter,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.testing import Block, FaultyQueue

from .test_writer import Eventually, events_of


def small(settings: Settings) -> Settings:
    """Return settings of a writer that has room for one chunk of sixty letters."""
    return settings.model_copy(update={"buffer_bytes": 100})


async def values_of(queue: ChunkQueue, settings: Settings) -> list[object]:
    """Return the values of the stream ``s``; it must be sealed END."""
    events = await events_of("s", queue, settings)
    assert isinstance(events[-1], Seal)
    assert events[-1].state is SealState.END
    return [event.value for event in events if isinstance(event, Chunk)]


async def test_a_forgotten_await_loses_nothing_while_there_is_room(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A synchronous callback that calls ``send_chunk`` is the most frequent mistake."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        for i in range(50):
            writer.send_chunk(str(i))  # type: ignore[unused-coroutine]
    assert await values_of(queue, settings) == [str(i) for i in range(50)]


async def test_a_forgotten_await_without_room_fails_the_stream(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """Success must not be reported for a stream that lacks chunks."""
    gate = Block()

    async def produce() -> None:
        async with open_writer("s", queue=faulty, settings=small(settings)) as writer:
            faulty.script("append", gate)
            await writer.send_chunk("a" * 60)
            await gate.reached()
            writer.send_chunk("b" * 60)  # type: ignore[unused-coroutine]
            writer.send_chunk("c" * 60)  # type: ignore[unused-coroutine]
            gate.release()
            await writer.flush()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of Python: never awaited
        with pytest.raises(NotAwaitedError, match=r"2 calls of send_chunk .* send_nowait"):
            await produce()
    seal = (await events_of("s", faulty, settings))[-1]
    assert isinstance(seal, Seal)
    assert (seal.state, seal.error_type) == (SealState.ERROR, "NotAwaitedError")


@pytest.mark.parametrize("room", [100, 1_000_000])
async def test_a_task_for_each_chunk_is_in_before_the_seal(
    queue: ChunkQueue, settings: Settings, room: int
) -> None:
    """The function returns while its tasks wait for room, or have not begun."""
    limited = settings.model_copy(update={"buffer_bytes": room})
    tasks = []
    async with open_writer("s", queue=queue, settings=limited) as writer:
        for i in range(50):
            tasks.append(asyncio.create_task(writer.send_chunk(f"{i:060}")))
    assert await values_of(queue, settings) == [f"{i:060}" for i in range(50)]
    await asyncio.gather(*tasks)


async def test_a_task_that_is_cancelled_before_it_began_does_not_fail_the_stream(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """Its chunk is not sent, as its author wants."""
    gate = Block()
    async with open_writer("s", queue=faulty, settings=small(settings)) as writer:
        faulty.script("append", gate)
        await writer.send_chunk("a" * 60)
        await gate.reached()
        task = asyncio.create_task(writer.send_chunk("b" * 60))
        task.cancel()
        writer.send_chunk("c" * 60).close()
        gate.release()
    assert await values_of(faulty, settings) == ["a" * 60]
    assert task.cancelled()


async def test_a_chunk_that_comes_after_the_end_was_requested_is_refused(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A task that goes on sending while the stream ends gets an error, and delays nothing."""
    gate = Block()
    writer = await open_writer("s", queue=faulty, settings=small(settings))
    faulty.script("append", gate)
    await writer.send_chunk("a" * 60)
    await gate.reached()
    early = asyncio.create_task(writer.send_chunk("b" * 60))
    ending = asyncio.create_task(writer.finish())
    for _ in range(3):
        await asyncio.sleep(0)
    late = asyncio.create_task(writer.send_chunk("c" * 60))
    gate.release()
    await asyncio.gather(early, ending)
    with pytest.raises(SealedError):
        await late
    await writer.aclose()
    assert await values_of(faulty, settings) == ["a" * 60, "b" * 60]


async def test_nowait_is_bounded_and_keeps_the_order(
    faulty: FaultyQueue, settings: Settings, eventually: Eventually
) -> None:
    """A chunk never overtakes one that waits for room."""
    gate = Block()
    writer = await open_writer("s", queue=faulty, settings=small(settings))
    faulty.script("append", gate)
    writer.send_nowait("a" * 60)
    await gate.reached()
    waiting = asyncio.create_task(writer.send_chunk("b" * 60))
    await eventually(lambda: writer.statistics().waits == 1)
    with pytest.raises(BufferFullError, match="await send_chunk, which waits") as caught:
        writer.send_nowait("c")
    assert caught.value.retryable
    gate.release()
    await waiting
    await writer.flush()
    writer.send_nowait("d")
    await writer.finish()
    with pytest.raises(SealedError):
        writer.send_nowait("e")
    await writer.aclose()
    assert await values_of(faulty, settings) == ["a" * 60, "b" * 60, "d"]


async def test_nowait_drops_and_counts_if_the_author_chose_so(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """The policy for a full buffer holds for both calls."""
    gate = Block()
    writer = await open_writer("s", queue=faulty, settings=small(settings), on_full=OnFull.DROP)
    faulty.script("append", gate)
    writer.send_nowait("a" * 60)
    await gate.reached()
    writer.send_nowait("b" * 60)
    gate.release()
    await writer.finish()
    assert writer.statistics().dropped_chunks == 1
    await writer.aclose()
    assert await values_of(faulty, settings) == ["a" * 60]


async def test_nowait_works_in_other_threads(queue: ChunkQueue, settings: Settings) -> None:
    """Frameworks run synchronous callbacks in threads; the loop stays asleep until it is woken."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        blocking = BlockingStreamWriter(writer)

        def work() -> None:
            for i in range(200):
                writer.send_nowait(i)
                blocking.send_nowait(i)

        await asyncio.to_thread(work)
        await writer.flush()
        assert writer.durable_position == 400
    assert await values_of(queue, settings) == [i for i in range(200) for _ in "ab"]


def test_nowait_reports_a_loop_that_has_ended(settings: Settings) -> None:
    """A thread that outlives the loop must not lose chunks in silence."""

    loop = asyncio.new_event_loop()

    async def opened() -> StreamWriter:
        writer = await open_writer("s", settings=settings)
        await writer.aclose()
        return writer

    writer = loop.run_until_complete(opened())
    loop.close()
    with pytest.raises(ClosedError):
        writer.send_nowait("a")


async def test_libraries_that_look_for_coroutine_functions_await_the_call(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Others call it in a thread, where it accepts the chunk as well."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        assert asyncio.iscoroutinefunction(writer.send_chunk)
        assert inspect.iscoroutinefunction(writer.send_chunk) or sys.version_info < (3, 12)
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # reports calls that are not thread-safe

        def work() -> None:
            writer.send_chunk("a")  # type: ignore[unused-coroutine]
            asyncio.run_coroutine_threadsafe(writer.send_chunk("b"), loop).result(5)

        await asyncio.to_thread(work)
        loop.set_debug(False)
    assert await values_of(queue, settings) == ["a", "b"]


async def test_forgotten_calls_take_no_memory(faulty: FaultyQueue, settings: Settings) -> None:
    """A producer that never awaits must not fill the memory before its end."""
    gate = Block()
    writer = await open_writer("s", queue=faulty, settings=small(settings))
    faulty.script("append", gate)
    await writer.send_chunk("a" * 60)
    await gate.reached()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of Python: never awaited
        for _ in range(1_000):
            writer.send_chunk("b" * 60)  # type: ignore[unused-coroutine]
    assert len(writer._calls._not_begun) == 0
    gate.release()
    with pytest.raises(NotAwaitedError, match="1000 calls"):
        await writer.finish()
    await writer.aclose()


async def test_the_result_of_a_call_is_a_coroutine(queue: ChunkQueue, settings: Settings) -> None:
    """Tasks, groups and ``gather`` take it; so do libraries that look whether to await."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        call = writer.send_chunk("a")
        assert isinstance(call, Coroutine)
        assert asyncio.iscoroutine(call)
        assert inspect.isawaitable(call)
        await call
        await asyncio.gather(writer.send_chunk("b"), writer.send_chunk("c"))
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(writer.send_chunk("d"))
        await asyncio.wait_for(writer.send_chunk("e"), 5)
        future = asyncio.run_coroutine_threadsafe(
            writer.send_chunk("f"), asyncio.get_running_loop()
        )
        await asyncio.wrap_future(future)
    assert await values_of(queue, settings) == list("abcdef")
