"""Takes the chunks that arrive; afterwards checks them for loss, repeats and order."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable

from ._histograms import Latencies
from ._load import Load, split_stamp, stamp_of

_MOST_FAULTS = 5


class Arrivals:
    """The chunks of one run, for a reader.

    Args:
        load: What should arrive.
        ready: Called when the reader is ready.
        end: Called when everything has arrived, or nothing does any more.
    """

    def __init__(self, load: Load, ready: Callable[[], None], end: Callable[[], None]) -> None:
        self._load = load
        self._ready = ready
        self._end = end
        self._stamps, self._streams, self._times = array("q"), array("l"), array("q")
        self._complete = asyncio.Event()

    def ready(self) -> None:
        """Begin the measurement: chunks may be sent from now on."""
        self._ready()

    def take(self, stream: int, chunk: str | bytes) -> None:
        """Note the arrival of a chunk; what it means is worked out after the run."""
        self._times.append(time.monotonic_ns())
        self._stamps.append(stamp_of(chunk))
        self._streams.append(stream)
        if len(self._stamps) >= self._load.total:
            self._complete.set()

    async def complete(self, silence_seconds: float = 20.0) -> None:
        """Wait until as many chunks have arrived as should, or none does for so long."""
        before = -1
        while not self._complete.is_set() and before < len(self._stamps):
            before = len(self._stamps)
            try:
                async with asyncio.timeout(silence_seconds):
                    await self._complete.wait()
            except TimeoutError:
                pass
        self._end()

    def faults(self) -> list[str]:
        """Return what is wrong with the chunks that arrived: loss, repeats, order."""
        found: list[str] = []
        expected = [0] * self._load.streams
        for stream, stamp in zip(self._streams, self._stamps, strict=True):
            number = split_stamp(stamp)[1]
            if number != expected[stream]:
                came = "again" if number < expected[stream] else f"instead of {expected[stream]}"
                found.append(f"stream {stream}: chunk {number} came {came}")
            expected[stream] = max(expected[stream], number + 1)
        short = [stream for stream, count in enumerate(expected) if count != self._load.each]
        if short:
            found.append(f"{len(short)} streams did not end, such as {short[0]}")
        more = len(found) - _MOST_FAULTS
        return found[:_MOST_FAULTS] + ([f"{more} more"] if more > 0 else [])

    def latencies(self, begin_ns: int) -> Latencies:
        """Return the times from the planned moments to arrival, without those not to count."""
        found = Latencies()
        begin_us, first = begin_ns // 1_000, self._load.ignored_seconds * 1e6
        for stamp, now in zip(self._stamps, self._times, strict=True):
            planned = split_stamp(stamp)[0]
            if planned >= first:
                found.add(now // 1_000 - begin_us - planned)
        return found
