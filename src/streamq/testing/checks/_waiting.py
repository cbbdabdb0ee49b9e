"""Checks of waiting: reads block for the requested time, and every append wakes its readers."""

from __future__ import annotations

import asyncio
import statistics

from streamq.driver import START, ChunkQueue, LatencyClass, StreamId
from streamq.testing._harness import OpenQueue

from ._base import Checks
from ._conditions import requires
from ._records import data_of, entries, new_stream

# Far above what each class means, so that a busy CI machine passes and a poll interval does not.
_SLOWEST_MEDIAN_SECONDS = {
    LatencyClass.MICROSECONDS: 0.02,
    LatencyClass.MILLISECONDS: 0.05,
    LatencyClass.TENS_OF_MILLISECONDS: 0.5,
    LatencyClass.SECONDS: 10.0,
}


class WaitingChecks(Checks):
    """Reads block for the requested time, and every append wakes its readers."""

    group = "waiting"

    async def test_zero_wait_returns_at_once(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core reads all stored records without waiting before it decides on the next step."""
        assert list(await self.read(queue, stream, max_wait=0)) == []
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        assert list(await self.read(queue, stream, tail, max_wait=0)) == []

    async def test_wait_is_bounded(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll that waits too short is billed too often; one that waits too long is killed."""
        clock = asyncio.get_running_loop().time
        started = clock()
        assert list(await self.read(queue, stream, max_wait=0.2)) == []
        waited = clock() - started
        assert 0.15 < waited < 0.2 + self.patience / 3, f"waited {waited:.3f} s, asked for 0.2 s"

    async def test_append_wakes_a_blocked_read(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Streaming is useful only if readers get new records at once."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        waiting = await self.blocked(self.read(queue, stream, tail, max_wait=4 * self.patience))
        await queue.append(stream, entries(b"b", first=1))
        async with asyncio.timeout(self.patience):
            assert data_of(await waiting) == [b"b"]

    async def test_append_wakes_a_read_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The producer is a worker and the reader a gateway; they never share a connection."""
        await queue.append(stream, entries(b"a"))
        other = await open_queue()
        tail = (await self.read(other, stream))[-1].position
        waiting = await self.blocked(self.read(other, stream, tail, max_wait=4 * self.patience))
        await queue.append(stream, entries(b"b", first=1))
        async with asyncio.timeout(self.patience):
            assert data_of(await waiting) == [b"b"]

    async def test_reader_may_come_before_the_stream(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The browser usually connects before the activity has started."""
        reader = await open_queue()
        waiting = await self.blocked(self.read(reader, stream, max_wait=4 * self.patience))
        await queue.append(stream, entries(b"first"))
        async with asyncio.timeout(self.patience):
            assert data_of(await waiting) == [b"first"]

    async def test_append_to_another_stream_does_not_end_the_wait(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A wake-up for another stream must not end the wait early without a record."""
        waiting = await self.blocked(self.read(queue, stream))
        await queue.append(new_stream(), entries(b"other"))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        await queue.append(stream, entries(b"mine"))
        assert data_of(await waiting) == [b"mine"]

    @requires("latency")
    async def test_latency_is_of_the_declared_class(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Users choose a backend by its declared latency, so hidden polling must show here."""
        reader = await open_queue()
        clock = asyncio.get_running_loop().time
        position, taken = START, []
        for i in range(9):
            waiting = self.begin(self.read(reader, stream, position))
            await asyncio.wait({waiting}, timeout=0.02)
            started = clock()
            await queue.append(stream, entries(b"%d" % i, first=i))
            batch = await waiting
            taken.append(clock() - started)
            position = batch[-1].position
        declared, median = queue.capabilities.latency, statistics.median(taken)
        allowed = _SLOWEST_MEDIAN_SECONDS[declared]
        assert median < allowed, (
            f"the declared latency {declared.value!r} allows {allowed:g} s; the median from append "
            f"to a blocked reader was {median:.3f} s: declare the next class, or wake readers"
        )

    async def test_many_streams_are_read_at_once(
        self, queue: ChunkQueue, open_queue: OpenQueue
    ) -> None:
        """A gateway waits for thousands of streams over a handful of connections."""
        reader = await open_queue()
        streams = [new_stream() for _ in range(200)]
        waiting = [
            self.begin(self.read(reader, stream, max_wait=4 * self.patience)) for stream in streams
        ]
        await asyncio.wait(waiting, timeout=0.05)
        async with asyncio.timeout(self.patience):
            for i, stream in enumerate(streams):
                await queue.append(stream, entries(b"%d" % i))
            found = await asyncio.gather(*waiting)
        assert [[b"%d" % i] for i in range(200)] == [data_of(batch) for batch in found]
