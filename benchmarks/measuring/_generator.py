"""Hands chunks out at the moments for which they are planned, however slow the contender is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from ._histograms import Latencies
from ._load import Load

_MOST_AT_ONCE = 1_000
_TICK_SECONDS = 0.001  # a finer one would spend the producer's processor on the generator


class Generator:
    """The chunks of one run, for a producer.

    A contender that falls behind gets its chunks later, and their latency counts from the planned
    moment: nothing is left out because the contender was slow. The delay with which chunks were
    handed out is reported beside.

    Args:
        load: What to generate.
        begin: Waits until the run begins; returns that moment in monotonic nanoseconds.
        end: Called when the producer's work is done.
    """

    def __init__(
        self, load: Load, begin: Callable[[], Awaitable[int]], end: Callable[[], None]
    ) -> None:
        self.delays = Latencies()
        """How late chunks were handed out."""
        self._load = load
        self._begin = begin
        self._end = end

    async def chunks(self) -> AsyncIterator[list[tuple[int, str]]]:
        """Yield the chunks that are due, each with the number of its stream; never an empty list.

        Begin to iterate when everything is ready: the run begins with it.
        """
        load, interval = self._load, self._load.interval
        begin_ns = await self._begin()
        done, total = 0, load.total
        while done < total:
            passed = (time.monotonic_ns() - begin_ns) / 1e9
            due = min(total, done + _MOST_AT_ONCE, int(passed / interval) + 1)
            if due <= done:
                await asyncio.sleep(max(_TICK_SECONDS, done * interval - passed))
                continue
            self.delays.add(max(0, int((passed - done * interval) * 1e6)))
            yield [(index % load.streams, load.chunk(index)) for index in range(done, due)]
            done = due
            await asyncio.sleep(0)

    def done(self) -> None:
        """End the measurement: all chunks are stored."""
        self._end()
