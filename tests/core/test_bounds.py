"""A backend slower than the producer: the buffer's policies, bounds and counters."""

from __future__ import annotations

import asyncio

import pytest

from streamq import BufferFullError, Chunk, OnFull, Settings, open_reader, open_writer
from streamq.driver import ChunkQueue
from streamq.testing import Block, FaultyQueue

from .test_writer import events_of


async def test_error_policy_refuses_at_once_and_the_chunk_can_be_sent_later(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A producer that must not wait gets an error, and decides itself what to do with the chunk."""
    small = settings.model_copy(update={"buffer_bytes": 100})
    writer = await open_writer("s", queue=faulty, settings=small, on_full=OnFull.ERROR)
    gate = Block()
    faulty.script("append", gate)
    await writer.send_chunk("a" * 60)
    await gate.reached()
    with pytest.raises(BufferFullError, match="STREAMQ_BUFFER_BYTES") as caught:
        await writer.send_chunk("b" * 60)
    assert caught.value.retryable
    assert writer.position == 1
    gate.release()
    await writer.flush()
    await writer.send_chunk("b" * 60)
    await writer.finish()
    await writer.aclose()
    events = await events_of("s", faulty, settings)
    assert [str(e.value)[0] for e in events if isinstance(e, Chunk)] == ["a", "b"]


async def test_drop_policy_discards_and_counts_chunks_and_leaves_no_gap(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A progress bar can afford dropped chunks; the rest of the stream stays dense."""
    small = settings.model_copy(update={"buffer_bytes": 100})
    writer = await open_writer("s", queue=faulty, settings=small, on_full=OnFull.DROP)
    gate = Block()
    faulty.script("append", gate)
    await writer.send_chunk("a" * 60)
    await gate.reached()
    for _ in range(3):
        await writer.send_chunk("lost" * 20)
    gate.release()
    await writer.flush()
    await writer.send_chunk("b")
    await writer.finish()
    statistics = writer.statistics()
    await writer.aclose()
    assert (statistics.chunks, statistics.dropped_chunks, statistics.waits) == (2, 3, 0)
    events = await events_of("s", faulty, settings)
    assert [str(e.value)[0] for e in events if isinstance(e, Chunk)] == ["a", "b"]
    assert [event.offset for event in events] == [1, 2, 3]


async def test_nothing_is_dropped_unless_requested(faulty: FaultyQueue, settings: Settings) -> None:
    """The default waits, however full the buffer is."""
    small = settings.model_copy(update={"buffer_bytes": 100})
    writer = await open_writer("s", queue=faulty, settings=small)
    gate = Block()
    faulty.script("append", gate)
    await writer.send_chunk("a" * 60)
    await gate.reached()
    waiting = asyncio.create_task(writer.send_chunk("b" * 60))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.release()
    await waiting
    await writer.finish()
    assert writer.statistics().dropped_chunks == 0
    await writer.aclose()


async def test_a_writers_buffer_holds_no_more_than_its_bound(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """The bound is in bytes and includes the bytes in flight."""
    small = settings.model_copy(update={"buffer_bytes": 10_000})
    writer = await open_writer("s", queue=faulty, settings=small, on_full=OnFull.DROP)
    gate = Block()
    faulty.script("append", gate)
    for _ in range(1_000):
        await writer.send_chunk("x" * 100)
        assert writer.statistics().buffered_bytes <= 10_000
    gate.release()
    await writer.finish()
    assert writer.statistics().buffered_bytes == 0
    await writer.aclose()


async def test_a_reader_holds_no_more_than_one_read(queue: ChunkQueue, settings: Settings) -> None:
    """A reader reads only while it is called: the backend keeps what it has not read."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        for _ in range(50):
            await writer.send_chunk("x" * 100_000)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        most = 0
        async for _ in reader:
            most = max(most, reader.statistics().buffered_bytes)
        assert 0 < most <= 1_048_576
        statistics = reader.statistics()
    assert (statistics.chunks, statistics.chunk_bytes) == (50, 5_000_000)
    assert statistics.events == 51
