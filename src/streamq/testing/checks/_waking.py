"""Checks of readers that wait together, and of producers that let them run."""

from __future__ import annotations

import asyncio
import statistics

from streamq.driver import ChunkQueue, StreamId

from ._base import Checks
from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries
from ._sentences import EVERY_READER
from ._verdicts import holds, same_records
from ._waiting import SLOWEST_MEDIAN_SECONDS

_ROUNDS = 5
_READS = 3
_APPENDS = 20
# The last one of several reads, on a busy machine; a poll that replaces a lost wake-up is slower.
_SLOWER = 5
_LOST = (
    "an append wakes one of the reads that wait for a stream, or one connection; the others find "
    "the record when they look again by themselves"
)


class WakingChecks(Checks):
    """Every reader that waits for a stream is woken, and runs while the producer goes on."""

    group = "waking"

    @promises("ChunkQueue.append", "make blocked readers see them", cause=_LOST)
    @promises(*EVERY_READER)
    @requires("replay", "fan_out")
    async def test_append_wakes_every_read_that_waits_for_the_stream(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Two tabs of one browser show the same text; the second one must not lag behind."""
        await queue.append(stream, entries(b"0"))
        position = (await self.read(queue, stream))[-1].position
        clock = asyncio.get_running_loop().time
        taken: list[float] = []
        for index in range(1, _ROUNDS + 1):
            waiting = [
                self.begin(self.read(each, stream, position, max_wait=4 * self.patience))
                for each in (queue, other)
                for _ in range(_READS)
            ]
            await asyncio.wait(waiting, timeout=0.05)  # nothing tells when they all wait
            started = clock()
            await queue.append(stream, entries(b"%d" % index, first=index))
            what = f"{len(waiting)} reads that wait while a record is appended"
            async with within(self.patience, what, cause=_LOST):
                found = await asyncio.gather(*waiting)
            taken.append(clock() - started)
            for batch in found:
                what = "what one of several reads that waited returned"
                same_records(data_of(batch), [b"%d" % index], what)
            position = found[0][-1].position
        allowed = _SLOWER * SLOWEST_MEDIAN_SECONDS[queue.capabilities.latency]
        holds(
            statistics.median(taken) < allowed,
            f"the median time from append to the last of {2 * _READS} reads that wait",
            expected=f"less than {allowed:g} s, {_SLOWER} times what one may take",
            seen=f"each took {', '.join(f'{each:.3f}' for each in taken)}",
            cause=_LOST,
        )

    @promises(
        "ChunkQueue.append",
        "Other tasks of the event loop run before it returns, also if it need not wait",
        cause="the call awaits nothing: await asyncio.sleep(0) at its end",
    )
    async def test_producer_lets_other_tasks_run(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A producer that never pauses must not keep its own readers, or a shutdown, waiting."""
        loop, ran = asyncio.get_running_loop(), 0

        def run() -> None:
            nonlocal ran
            ran += 1

        for index in range(_APPENDS):
            loop.call_soon(run)
            await queue.append(stream, entries(b"x", first=index))
        holds(
            ran == _APPENDS,
            f"{_APPENDS} appends, each with another task that is ready to run",
            expected="the other task runs before the append returns",
            seen=f"it has run {ran} times",
        )
