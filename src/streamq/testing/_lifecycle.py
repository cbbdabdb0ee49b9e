"""Checks of closing and cancelling: at any moment, losing nothing, leaving nothing behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamq.driver import START, ChunkQueue, ClosedError, StreamId

from ._checks import data_of, entries, new_stream, numbered, requires
from ._harness import OpenQueue
from ._streams import StreamChecks


class LifecycleChecks(StreamChecks):
    """Closing and cancelling lose nothing and leave nothing behind."""

    group = "lifecycle"

    async def test_aclose_is_idempotent(self, queue: ChunkQueue) -> None:
        """Nested cleanups close twice."""
        await queue.aclose()
        await asyncio.gather(queue.aclose(), queue.aclose())

    async def test_aclose_ends_blocked_reads_at_once(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A shutdown must not take as long as the longest poll, whatever is being waited for."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        reads = [
            await self.blocked(self.read(queue, stream, tail)),
            await self.blocked(self.read(queue, new_stream())),
        ]
        async with asyncio.timeout(2):
            await queue.aclose()
            results = await asyncio.gather(*reads, return_exceptions=True)
        assert [ClosedError, ClosedError] == [type(result) for result in results]

    async def test_closed_queue_refuses_everything(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Using a closed queue is a bug in the caller, and must not look like a broken network."""
        await queue.append(stream, entries(b"a"))
        await queue.aclose()
        with pytest.raises(ClosedError):
            await queue.append(stream, entries(b"b", first=1))
        with pytest.raises(ClosedError):
            await self.read(queue, stream, max_wait=0)
        with pytest.raises(ClosedError):
            await queue.describe(stream)
        with pytest.raises(ClosedError):
            await queue.delete(stream)
        with pytest.raises(ClosedError):
            _ = [info async for info in queue.streams(stream.tenant)]

    async def test_closing_one_queue_leaves_others_alone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Gateway and worker may share a process; one going away must not stop the other."""
        other = await open_queue()
        waiting = await self.blocked(self.read(other, stream))
        await queue.aclose()
        await other.append(stream, entries(b"a"))
        assert data_of(await waiting) == [b"a"]

    @requires("fenced")
    async def test_cancelled_append_can_be_repeated(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that shuts down cancels appends anywhere; the repeat must heal it."""
        dice = random.Random(20240607)
        data = numbered(240)
        for first in range(0, len(data), 4):
            batch = entries(*data[first : first + 4], first=first)
            append = asyncio.ensure_future(queue.append(stream, batch))
            if dice.random() < 0.5:
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
            else:
                await asyncio.wait({append}, timeout=dice.random() * 0.003)
            append.cancel()
            await asyncio.gather(append, return_exceptions=True)
            await queue.append(stream, batch)
        await self.expect(queue, stream, data)

    @requires("replay")
    async def test_cancelled_read_loses_nothing(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Browsers disconnect in the middle of a poll all the time."""
        position = START
        for i in range(10):
            waiting = asyncio.ensure_future(self.read(queue, stream, position))
            await asyncio.wait({waiting}, timeout=0.01)
            if i % 2:
                waiting.cancel()
            append = asyncio.ensure_future(queue.append(stream, entries(b"%d" % i, first=i)))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(append, waiting, return_exceptions=True)
            batch = await self.read(queue, stream, position)
            assert [b"%d" % i] == data_of(batch)
            position = batch[-1].position

    @requires("durable")
    async def test_records_outlive_the_connections(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """What was acknowledged is still there when every client has been restarted."""
        await queue.append(stream, entries(b"a", b"b"))
        await queue.aclose()
        await self.expect(await open_queue(), stream, [b"a", b"b"])
