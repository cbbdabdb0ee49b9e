"""Checks of waiting: reads block for the requested time, and every append wakes its readers."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from streamq.driver import START, ChunkQueue, LatencyClass, Stored, StreamId
from streamq.testing._harness import OpenQueue
from streamq.testing._shown import shown
from streamq.testing._virtual_time import VirtualTimeLoop

from ._base import Checks
from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._verdicts import broken, holds, same, same_records

# Far above what each class means, so that a busy CI machine passes and a poll interval does not.
SLOWEST_MEDIAN_SECONDS = {
    LatencyClass.MICROSECONDS: 0.02,
    LatencyClass.MILLISECONDS: 0.05,
    LatencyClass.TENS_OF_MILLISECONDS: 0.5,
    LatencyClass.SECONDS: 10.0,
}
_VIRTUAL_FACTOR = 10  # no machine is busy there
_FIRST_FACTOR = 6  # a stream that is created takes longer, and a poll of others much longer

_POSITION = "the position means the record itself instead of the place after it"


class WaitingChecks(Checks):
    """Reads block for the requested time, and every append wakes its readers."""

    group = "waiting"

    @promises(
        "ChunkQueue.read",
        "Seconds to wait for the first record; 0 returns at once.",
        cause='max_wait=0 is taken for "no limit", as some clients do',
    )
    async def test_zero_wait_returns_at_once(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core reads all stored records without waiting before it decides on the next step."""
        found = list(await self.read(queue, stream, max_wait=0))
        same(found, [], "a read of a stream that does not exist, with max_wait=0")
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        found = list(await self.read(queue, stream, tail, max_wait=0))
        same(found, [], "a read after the newest record, with max_wait=0", cause=_POSITION)

    @promises(
        "ChunkQueue.read",
        "Seconds to wait for the first record; 0 returns at once.",
    )
    @promises(
        "ChunkQueue.read",
        "At least one record, or an empty sequence after ``max_wait``, never earlier.",
    )
    async def test_wait_is_bounded(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll that waits too short is billed too often; one that waits too long is killed."""
        clock = asyncio.get_running_loop().time
        started = clock()
        found = list(await self.read(queue, stream, max_wait=0.2))
        same(found, [], "a read of a stream that does not exist")
        waited, most = clock() - started, 0.2 + self.patience / 3
        holds(
            0.15 < waited < most,
            "how long a read with max_wait=0.2 and nothing to return took",
            expected=f"0.2 s, at least 0.15 and less than {most:g}",
            seen=f"{waited:.3f} s",
            cause="max_wait is ignored, rounded to whole seconds, or passed in another unit; or a "
            "time-out of the client ends the wait earlier",
        )

    @promises(
        "ChunkQueue.append",
        "make blocked readers see them",
    )
    @promises(
        "ChunkQueue.append",
        "Readers are woken after the entries can be read, never before.",
    )
    @promises(
        "ChunkQueue.read",
        "The wait ends as soon as there is one record.",
    )
    async def test_append_wakes_a_blocked_read(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Streaming is useful only if readers get new records at once."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        waiting = await self.blocked(self.read(queue, stream, tail, max_wait=4 * self.patience))
        await queue.append(stream, entries(b"b", first=1))
        await self._expect_woken(waiting, b"b")

    @promises(
        "ChunkQueue.append",
        "make blocked readers see them",
    )
    @promises(
        "Capabilities.cross_process",
        "entries, fence, deletion and wake-ups reach the others",
    )
    async def test_append_wakes_a_read_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The producer is a worker and the reader a gateway; they never share a connection."""
        await queue.append(stream, entries(b"a"))
        other = await open_queue()
        tail = (await self.read(other, stream))[-1].position
        waiting = await self.blocked(self.read(other, stream, tail, max_wait=4 * self.patience))
        await queue.append(stream, entries(b"b", first=1))
        await self._expect_woken(waiting, b"b")

    @promises(
        "ChunkQueue.read",
        "A stream that does not exist yet, or has expired, is waited for like an empty one.",
    )
    async def test_reader_may_come_before_the_stream(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The browser usually connects before the activity has started."""
        reader = await open_queue()
        waiting = await self.blocked(self.read(reader, stream, max_wait=4 * self.patience))
        await queue.append(stream, entries(b"first"))
        await self._expect_woken(waiting, b"first")

    @promises(
        "ChunkQueue.read",
        "An append to another stream does not end the wait.",
    )
    async def test_append_to_another_stream_does_not_end_the_wait(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A wake-up for another stream must not end the wait early without a record."""
        waiting = await self.blocked(self.read(queue, stream))
        await queue.append(new_stream(), entries(b"other"))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        if done:
            broken(
                "a read that waits, after an append to another stream",
                expected="it goes on waiting for its own stream",
                seen=f"it returned {shown(waiting.result())}",
                cause="every wake-up ends the wait: look for a record, and wait again until "
                "max_wait has passed",
            )
        await queue.append(stream, entries(b"mine"))
        await self._expect_woken(waiting, b"mine")

    async def _expect_woken(self, waiting: asyncio.Task[Sequence[Stored]], data: bytes) -> None:
        """Fail unless a read that waits returns the record that was appended, soon."""
        __tracebackhide__ = True
        async with within(self.patience, "a read that waits while a record is appended"):
            found = data_of(await waiting)
        same_records(found, [data], "what a read that waited returned after the append")

    @promises(
        "Capabilities.latency",
        "The median from append to a blocked reader is within what the class allows.",
    )
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
        self._expect_quick(
            queue,
            taken,
            "the median time from append to a blocked reader",
            "readers find records when they poll next: wake them with each append, or "
            "declare the next class",
        )

    @promises("ChunkQueue.read", "The wait ends as soon as there is one record.")
    @promises(
        "Capabilities.latency",
        "The median from append to a blocked reader is within what the class allows.",
    )
    @requires("latency")
    async def test_reads_that_wait_delay_no_read_of_another_stream(
        self, queue: ChunkQueue, open_queue: OpenQueue
    ) -> None:
        """A browser opens one more stream on a gateway that waits for hundreds of quiet ones."""
        reader = await open_queue()
        clock = asyncio.get_running_loop().time
        taken = []
        for i in range(5):
            # Each stays blocked while the next stream comes.
            await self.blocked(self.read(reader, new_stream(), max_wait=4 * self.patience))
            stream = new_stream()
            waiting = await self.blocked(self.read(reader, stream))
            started = clock()
            await queue.append(stream, entries(b"%d" % i))
            await waiting
            taken.append(clock() - started)
        self._expect_quick(
            queue,
            taken,
            "the median time from append to a reader, while others wait for quiet streams",
            "the read that all streams share goes on without the new one: interrupt it when a "
            "stream is added",
            factor=_FIRST_FACTOR,
        )

    def _expect_quick(
        self,
        queue: ChunkQueue,
        taken: Sequence[float],
        subject: str,
        cause: str,
        *,
        factor: float = 1,
    ) -> None:
        """Fail unless the median is within what the declared class allows, times a factor."""
        __tracebackhide__ = True
        declared, median = queue.capabilities.latency, statistics.median(taken)
        allowed = factor * SLOWEST_MEDIAN_SECONDS[declared]
        if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            allowed /= _VIRTUAL_FACTOR
        holds(
            median < allowed,
            subject,
            expected=f"less than {allowed:g} s, as the declared {declared.value!r} allows",
            seen=f"{median:.3f} s; each took {', '.join(f'{each:.3f}' for each in taken)}",
            cause=cause,
        )

    @promises(
        "ChunkQueue.read",
        "Hundreds of reads may wait at the same time.",
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
        cause = "every read that waits holds a connection or a thread of a limited pool"
        what = "200 appends to streams on each of which another connection waits"
        async with within(4 * self.patience, what, cause=cause):
            for i, stream in enumerate(streams):
                await queue.append(stream, entries(b"%d" % i))
            found = await asyncio.gather(*waiting)
        same_records(
            [data_of(batch) for batch in found],
            [[b"%d" % i] for i in range(200)],
            "what each of 200 reads that waited returned",
            cause="answers reach the wrong read",
        )
