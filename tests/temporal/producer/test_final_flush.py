"""Tests that a cancellation is heard after the function has returned, while its chunks are stored.

The shapes are those in which it arrives differently: Temporal cancels the task of a coroutine, and
only sets a flag for a function in a thread that has returned.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from tests.temporal.support.bench import Bench
from tests.temporal.support.reading import outline

from streamq import BlockingStreamWriter, SealState, Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.records._wire import Record
from streamq.temporal import streaming_activity
from streamq.temporal.producer import _attempt as attempts
from streamq.testing import Block, Call, Fault, FaultyQueue


class Frozen:
    """A worker whose backend freezes at a chosen record, and its activity."""

    def __init__(self, client: Client, queue: ChunkQueue, settings: Settings, name: str) -> None:
        self.queue = FaultyQueue(queue)
        self.bench = Bench(client, self.queue, settings, name)
        self.block = Block()
        self._contexts: list[contextvars.Context] = []
        self._writers: list[StreamWriter] = []

    def freeze(self, at_seal: bool) -> None:
        def choose(call: Call) -> Fault | None:
            records = [Record.decode(each.data) for each in call.entries]
            if at_seal:
                return self.block if any(each.seal for each in records) else None
            return None if call.entries[0].index == 0 else self.block

        self.queue.always("append", choose)

    def freeze_chunks_of(self, topic: str) -> None:
        def choose(call: Call) -> Fault | None:
            assert call.stream is not None
            is_chosen = call.stream.name.endswith(f"/{topic}") and call.entries[0].index > 0
            return self.block if is_chosen else None

        self.queue.always("append", choose)

    def returned(self, writer: StreamWriter) -> None:
        self._writers.append(writer)
        self._contexts.append(contextvars.copy_context())

    async def is_sealed(self) -> None:
        """Wait until the main stream has its ending."""
        async with asyncio.timeout(10):
            assert await self._writers[0].wait_stopped() is None

    async def cancelled(self) -> None:
        """Wait until the cancellation has arrived."""
        async with asyncio.timeout(10):
            while not self._contexts or not self._contexts[0].run(activity.is_cancelled):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Temporal has no event for a thread

    async def cancel_is_requested(self) -> None:
        """Wait until the writer has been asked to seal CANCELLED."""
        async with asyncio.timeout(10):
            while (seal := self._writers[0]._outbox.seal) is None or (  # noqa: ASYNC110
                seal.state is not SealState.CANCELLED
            ):
                await asyncio.sleep(0.01)


@pytest.fixture
async def frozen(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> AsyncIterator[Frozen]:
    found = Frozen(client, queue, settings, task_queue)
    yield found
    found.block.release()


def in_the_loop(frozen: Frozen) -> Callable[..., Any]:
    @streaming_activity
    async def produce(flushes: str, stream: StreamWriter) -> str:
        await stream.send_chunk("half")
        if flushes:
            await stream.flush()
        frozen.returned(stream)
        return "done"

    return produce


def in_a_thread(frozen: Frozen) -> Callable[..., Any]:
    @streaming_activity
    def produce(flushes: str, stream: BlockingStreamWriter) -> str:
        stream.send_chunk("half")
        if flushes:
            stream.flush()
        frozen.returned(stream._writer)
        return "done"

    return produce


def in_its_block(frozen: Frozen) -> Callable[..., Any]:
    @streaming_activity
    async def produce(_: str, stream: StreamWriter) -> str:
        async with stream:
            await stream.send_chunk("half")
            await frozen.block.reached()  # without END
            frozen.returned(stream)
        return "done"

    return produce


def two_in_the_loop(frozen: Frozen) -> Callable[..., Any]:
    @streaming_activity
    async def produce(_: str, stream: StreamWriter, other: StreamWriter) -> str:
        await stream.send_chunk("whole")
        await other.send_chunk("half")
        frozen.returned(stream)
        return "done"

    return produce


def two_in_a_thread(frozen: Frozen) -> Callable[..., Any]:
    @streaming_activity
    def produce(_: str, stream: BlockingStreamWriter, other: BlockingStreamWriter) -> str:
        stream.send_chunk("whole")
        other.send_chunk("half")
        frozen.returned(stream._writer)
        return "done"

    return produce


by_shape = pytest.mark.parametrize(
    "shape", [in_the_loop, in_a_thread], ids=lambda shape: shape.__name__
)


@pytest.mark.parametrize(
    "shape", [in_the_loop, in_a_thread, in_its_block], ids=lambda shape: shape.__name__
)
async def test_end_that_was_not_sent_is_taken_back(frozen: Frozen, shape: Any) -> None:
    """A frozen backend must not make the work unstoppable, nor END a stream that is cancelled."""
    frozen.freeze(at_seal=False)
    async with frozen.bench.worker(shape(frozen)):
        handle = await frozen.bench.start()
        await frozen.block.reached()
        await handle.signal("cancel_activity")
        await frozen.cancelled()
        await frozen.cancel_is_requested()
        frozen.block.release()
        events, outcome = await frozen.bench.ending(handle)
    assert (outline(events), outcome.state) == (["half", "CANCELLED"], "CANCELLED")


@by_shape
async def test_end_on_its_way_is_awaited(frozen: Frozen, shape: Any) -> None:
    """Readers may have END already: then the activity has to complete as well."""
    frozen.freeze(at_seal=True)
    async with frozen.bench.worker(shape(frozen)):
        handle = await frozen.bench.start("flushes")
        await frozen.block.reached()
        await handle.signal("cancel_activity")
        await frozen.cancelled()
        frozen.block.release()
        events, outcome = await frozen.bench.ending(handle)
    assert (outline(events), outcome.state) == (["half", "END"], "COMPLETED")


@pytest.mark.parametrize(
    "shape", [two_in_the_loop, two_in_a_thread], ids=lambda shape: shape.__name__
)
async def test_end_of_one_stream_is_followed_by_that_of_the_others(
    frozen: Frozen, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activity completes with END in all of its streams; readers of none may wait for ever."""
    is_decided = asyncio.Event()
    decide = attempts._Attempt._is_end_stored

    async def deciding(*given: Any) -> bool:
        is_decided.set()
        return await decide(*given)

    monkeypatch.setattr(attempts._Attempt, "_is_end_stored", deciding)
    frozen.freeze_chunks_of("other")
    async with frozen.bench.worker(shape(frozen)):
        handle = await frozen.bench.start()
        await frozen.block.reached()
        await frozen.is_sealed()
        await handle.signal("cancel_activity")
        async with asyncio.timeout(10):
            await is_decided.wait()
        frozen.block.release()
        other = await frozen.bench.story(handle, topic="other")
        events, outcome = await frozen.bench.ending(handle)
    assert (outline(events), outcome.state) == (["whole", "END"], "COMPLETED")
    assert outline(other) == ["half", "END"]


@by_shape
async def test_backend_that_stays_frozen_delays_a_cancellation_by_a_bounded_time(
    frozen: Frozen, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow must not fail with the outage that it was cancelled for."""
    monkeypatch.setattr(attempts, "_SEAL_SECONDS", 0.3)
    frozen.freeze(at_seal=True)
    async with frozen.bench.worker(shape(frozen)):
        handle = await frozen.bench.start("flushes")
        await frozen.block.reached()
        await handle.signal("cancel_activity")
        async with asyncio.timeout(15):
            outcome = await handle.execute_update("outcome")
        await handle.signal("end")
    assert outcome["state"] == "CANCELLED"
