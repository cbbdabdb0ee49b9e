"""Checks of time that demand it exactly, which only virtual time allows."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from streamq.driver import START, ChunkQueue, ClosedError, StreamId
from streamq.testing._virtual_time import VirtualTimeLoop

from ._base import Checks
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries
from ._verdicts import holds, same, same_records

_WAITS = (0.31, 1.23, 21.0)
_EXACT_SECONDS = 0.02


class TimingChecks(Checks):
    """In virtual time, waits take exactly as long as they should."""

    group = "timing"

    @pytest_asyncio.fixture
    async def clock(self, queue: ChunkQueue) -> VirtualTimeLoop:
        """Return the loop, whose clock tells the time; skip if the machine's clock goes."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualTimeLoop):
            pytest.skip("in real time a busy machine may be late: see the group 'waiting'")
        return loop

    def took(self, seconds: float, wanted: float, what: str) -> None:
        """Fail unless something has taken this long."""
        holds(
            wanted - _EXACT_SECONDS <= seconds <= wanted + _EXACT_SECONDS,
            f"how long {what} took in virtual time",
            expected=f"{wanted:g} s",
            seen=f"{seconds:.3f} s",
            cause="a pause between two looks is not cut to what is left of the wait, or is slept "
            "to its end although there is news",
        )

    @promises("ChunkQueue.read", "Seconds to wait for the first record; 0 returns at once.")
    async def test_waits_are_exact(
        self, queue: ChunkQueue, stream: StreamId, clock: VirtualTimeLoop
    ) -> None:
        """A poll is billed by its time: every second too many is paid for, by each reader."""
        what = "a read of a stream that does not exist"
        for wait in _WAITS:
            await self.wait_in_vain(queue, stream, START, wait, what)
        await queue.append(stream, entries(b"a"))
        started = clock.time()
        tail = (await self.read(queue, stream, max_wait=60.0))[-1].position
        self.took(clock.time() - started, 0.0, "a read of a stored record with max_wait=60")
        if not queue.capabilities.replay:
            await queue.commit(stream, tail)
        for wait in _WAITS:
            await self.wait_in_vain(queue, stream, tail, wait, "a read at the end")

    async def wait_in_vain(
        self, queue: ChunkQueue, stream: StreamId, after: str, wait: float, what: str
    ) -> None:
        """Fail unless a read returns nothing, after this time."""
        clock = asyncio.get_running_loop().time
        started, what = clock(), f"{what}, with max_wait={wait:g}"
        async with within(2 * wait, what):
            found = await queue.read(stream, after, max_records=9, max_bytes=1_000, max_wait=wait)
        same_records(data_of(found), [], what)
        self.took(clock() - started, wait, what)

    @promises("ChunkQueue.aclose", "a blocked :meth:`read` raises ``ClosedError`` at once.")
    async def test_blocked_reads_end_with_the_queue_and_not_later(
        self, queue: ChunkQueue, stream: StreamId, clock: VirtualTimeLoop
    ) -> None:
        """On a shutdown, whatever still waits is killed, with what it was about to store."""
        reading = await self.blocked(self.read(queue, stream, max_wait=60.0))
        started = clock.time()
        await queue.aclose()
        (outcome,) = await asyncio.gather(reading, return_exceptions=True)
        same(type(outcome), ClosedError, "what a blocked read raises when its queue is closed")
        self.took(clock.time() - started, 0.0, "closing a queue with a blocked read")
