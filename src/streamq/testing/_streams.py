"""Checks of what applications get on top of a driver: writers, readers, cursors, attempts."""

from __future__ import annotations

import asyncio

import pytest

from streamq import (
    Chunk,
    CorruptRecordError,
    Event,
    FencedError,
    OnRetry,
    Reset,
    Seal,
    SealState,
    StreamNotFoundError,
    describe,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, StreamId

from ._harness import Harness, OpenQueue


def values(events: list[Event]) -> list[object]:
    """Return the values of the chunks, without the rest."""
    return [event.value for event in events if isinstance(event, Chunk)]


class StreamChecks(Harness):
    """Whole streams through the driver under test."""

    @pytest.fixture
    async def other(self, open_queue: OpenQueue) -> ChunkQueue:
        """Return a second connection."""
        return await open_queue()

    async def write(self, queue: ChunkQueue, stream: StreamId, *texts: str) -> None:
        """Write a sealed stream, packed into few records."""
        async with open_writer(stream, queue=queue) as writer:
            for text in texts:
                await writer.send_chunk(text)

    async def read_all(self, queue: ChunkQueue, stream: StreamId) -> list[Event]:
        """Read a stream to its seal."""
        async with open_reader(stream, queue=queue, idle_seconds=self.patience) as reader:
            return [event async for event in reader]

    async def test_late_reader_gets_everything_and_the_end(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser opened after the end shows the same story."""
        await self.write(queue, stream, "a", "b", "c")
        events = await self.read_all(other, stream)
        assert values(events) == ["a", "b", "c"]
        assert events[-1] == Seal(4, 1, SealState.END)

    async def test_ten_live_readers_each_get_everything(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Reading takes nothing away, and an offset means the same to everybody."""
        readers = [asyncio.create_task(self.read_all(used, stream)) for used in (queue, other) * 5]
        await asyncio.sleep(0)
        await self.write(queue, stream, *map(str, range(300)))
        results = await asyncio.gather(*readers)
        assert all(result == results[0] for result in results)
        assert [event.offset for event in results[0]] == list(range(1, 302))

    async def test_cursor_goes_on_with_exactly_the_next_chunk(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Packing is invisible: every place of a stream can be resumed, over another connection."""
        await self.write(queue, stream, *map(str, range(12)))
        cursors = []
        async with open_reader(stream, queue=queue, idle_seconds=self.patience) as reader:
            async for _ in reader:
                cursors.append(reader.cursor)
            assert reader.statistics().records < 12, "the chunks should be packed for this test"
        for place, cursor in enumerate(cursors[:-1], 1):
            async with open_reader(
                stream, from_=cursor, queue=other, idle_seconds=self.patience
            ) as reader:
                events = [event async for event in reader]
            assert values(events) == [str(i) for i in range(place, 12)]

    async def test_next_attempt_is_told_as_a_reset_and_whole(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker dies, another takes over: the second story once, the first marked as void."""
        first = await open_writer(stream, queue=queue, epoch=10)
        await first.send_chunk("old")
        await first.flush()
        async with open_writer(stream, queue=other, epoch=20) as second:
            await second.send_chunk("new")
            await second.flush()
            await first.send_chunk("too late")
            with pytest.raises(FencedError):
                await first.flush()
        await first.aclose()
        events = await self.read_all(queue, stream)
        assert values(events) == ["old", "new"]
        assert events[1] == Reset(2, 2)
        assert [event.offset for event in events] == [1, 2, 3, 4]

    async def test_resuming_attempt_goes_on_after_the_last_durable_chunk(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """With resume, readers see one story told by two attempts."""
        first = await open_writer(stream, queue=queue, on_retry=OnRetry.RESUME, epoch=10)
        for text in "abc":
            await first.send_chunk(text)
        await first.flush()
        await first.aclose()
        async with open_writer(stream, queue=other, on_retry=OnRetry.RESUME, epoch=20) as second:
            assert second.position == 3
            await second.send_chunk("d")
        assert values(await self.read_all(queue, stream)) == ["a", "b", "c", "d"]

    async def test_two_writers_cannot_hold_one_epoch(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Skipping repeats must not make a second writer's chunks vanish."""
        async with open_writer(stream, queue=queue, epoch=5) as first:
            with pytest.raises(FencedError):
                await open_writer(stream, queue=other, epoch=5)
            await first.send_chunk("a")
        assert values(await self.read_all(other, stream)) == ["a"]

    async def test_live_tail_misses_nothing_after_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """ "Live only" is resolved once, at open."""
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("old")
            await writer.flush()
            async with open_reader(
                stream, from_="tail", queue=other, idle_seconds=self.patience
            ) as reader:
                await writer.send_chunk("new")
                await writer.finish()
                events = [event async for event in reader]
        assert values(events) == ["new"]
        assert [event.offset for event in events] == [2, 3]

    async def test_status_tells_where_a_stream_stands(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Gateways and command lines ask before they read."""
        with pytest.raises(StreamNotFoundError):
            await describe(stream, queue=other)
        await self.write(queue, stream, "a", "b")
        status = await describe(stream, queue=other)
        assert (status.offset, status.attempt) == (3, 1)
        assert status.seal == Seal(3, 1, SealState.END)

    async def test_damaged_record_is_an_error_after_what_was_intact(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Whatever happens to bytes in storage, a reader never shows altered text."""
        writer = await open_writer(stream, queue=queue, epoch=5)
        await writer.send_chunk("good")
        await writer.aclose()
        await queue.append(stream, [Entry(5, 99, b"\x01\x07 not a record")])
        async with open_reader(stream, queue=queue, idle_seconds=self.patience) as reader:
            assert values([await anext(reader)]) == ["good"]
            with pytest.raises(CorruptRecordError):
                await anext(reader)

    async def test_largest_chunk_passes(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A chunk at the default limit arrives whole."""
        text = "x" * load_settings().max_chunk_bytes
        await self.write(queue, stream, text)
        assert values(await self.read_all(queue, stream)) == [text]
