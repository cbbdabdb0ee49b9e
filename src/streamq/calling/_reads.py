"""Reads a stream page after page, and notices a driver with which that would never end.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from streamq._events import StreamId
from streamq.driver import START, ChunkQueue, Stored

from ._answers import check_read
from ._breach import breach, is_permitted, unexpected

_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 1.0
_NOTABLE_SECONDS = 0.1  # waiting that much less than requested is no matter of clocks
_REPORTED_AFTER = 5

_logger = logging.getLogger("streamq")


class Reads:
    """The reads of one reader of one stream, one after the other.

    Two things make reading go round for ever, with a processor busy: positions that lead back, and
    reads that return without records at once although they should wait. The former is found by
    comparing each position with an earlier one (Brent's algorithm, which keeps a single one). The
    latter is slowed down and logged, since nothing is lost.

    Args:
        queue: Where to read.
        stream: Which stream.
    """

    __slots__ = ("_clock", "_early", "_last", "_left", "_mark", "_queue", "_steps", "_stream")

    def __init__(self, queue: ChunkQueue, stream: StreamId) -> None:
        self._queue = queue
        self._stream = stream
        self._clock = asyncio.get_running_loop().time
        self._last = START
        self._mark = START
        self._steps = self._left = 1
        self._early = 0

    async def read(
        self, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        """Read as :meth:`ChunkQueue.read` does.

        Raises:
            DriverError: The driver broke the contract.
            StreamqError: What the driver raised.
        """
        queue, stream = self._queue, self._stream
        began = self._clock()
        try:
            found = await queue.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )
        except BaseException as exc:
            if is_permitted(exc):
                raise
            raise unexpected(
                exc, "ChunkQueue.read", backend=queue.backend, of=type(queue), stream=stream
            ) from exc
        check_read(found, queue, stream, after, max_records=max_records, max_bytes=max_bytes)
        if found:
            self._early = 0
            self._follow(after, found[-1].position)
        elif max_wait - (waited := self._clock() - began) > max(max_wait / 2, _NOTABLE_SECONDS):
            await self._slow_down(max_wait, waited)
        return found

    def _follow(self, after: str, position: str) -> None:
        if after != self._last:  # the reader begins, or reads something again
            self._mark, self._steps, self._left = after, 1, 1
        elif position == self._mark and self._queue.capabilities.replay:
            raise breach(
                f"read() led from position {position!r} back to the same one, so that reading "
                "would never end",
                "ChunkQueue.read and Stored.position",
                backend=self._queue.backend,
                stream=self._stream,
            )
        self._left -= 1
        if not self._left:
            self._mark = position
            self._steps *= 2
            self._left = self._steps
        self._last = position

    async def _slow_down(self, max_wait: float, waited: float) -> None:
        self._early += 1
        if self._early == _REPORTED_AFTER:
            _logger.warning(
                "%s",
                breach(
                    f"read(max_wait={max_wait:g}) returned without records after {waited:.3f} s, "
                    f"{_REPORTED_AFTER} times; reading goes on, with pauses",
                    "ChunkQueue.read",
                    backend=self._queue.backend,
                    stream=self._stream,
                ),
            )
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._early, 20), _LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(min(pause, max_wait - waited))
