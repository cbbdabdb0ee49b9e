"""What the process knows of the end of a stream that is being followed, shared by its readers."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from itertools import islice
from operator import itemgetter

from streamq.driver import Stored

_RECORD_OVERHEAD_BYTES = 256


class Budget:
    """How much all taps of a queue may keep."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Tap:
    """The newest records of one stream, kept while somebody follows it.

    It has every record at and after ``floor`` that the tail has read. A reader below the floor has
    to catch up from the broker.
    """

    __slots__ = ("_budget", "_limit", "_ring", "_size", "_waiters", "floor", "is_live", "used")

    def __init__(self, floor: int, limit: int, budget: Budget, now: float) -> None:
        self.floor = floor
        self.is_live = True
        self.used = now
        self._limit = limit
        self._budget = budget
        self._ring: deque[tuple[int, Stored]] = deque()
        self._size = 0
        self._waiters: list[asyncio.Future[Exception | None]] = []

    @property
    def is_waited_for(self) -> bool:
        """Whether a reader is blocked on it."""
        return bool(self._waiters)

    def covers(self, offset: int) -> bool:
        """Whether a reader at this offset misses nothing by reading from here."""
        return self.is_live and self.floor <= offset

    def extend(self, start: int, end: int) -> None:
        """Note that there is nothing of the stream between two offsets, the second one covered."""
        if self.floor <= end:
            self.floor = min(self.floor, start)

    def push(self, offset: int, stored: Stored) -> None:
        """Add the next record, and drop the oldest ones for it."""
        size = len(stored.data) + _RECORD_OVERHEAD_BYTES
        ring, budget = self._ring, self._budget
        ring.append((offset, stored))
        self._size += size
        budget.used += size
        while (self._size > self._limit or budget.used > budget.limit) and len(ring) > 1:
            dropped_offset, dropped = ring.popleft()
            size = len(dropped.data) + _RECORD_OVERHEAD_BYTES
            self.floor = dropped_offset + 1
            self._size -= size
            budget.used -= size

    def after(self, offset: int, max_records: int, max_bytes: int) -> list[Stored]:
        """Return records at and after an offset, oldest first."""
        ring = self._ring
        if not ring or ring[-1][0] < offset:
            return []
        start = bisect_left(ring, offset, key=itemgetter(0)) if ring[0][0] < offset else 0
        found: list[Stored] = []
        size = 0
        for _, record in islice(ring, start, start + max_records):
            size += len(record.data)
            if size > max_bytes and found:
                break
            found.append(record)
        return found

    async def wait(self, seconds: float) -> None:
        """Wait until something has changed, for a bounded time.

        Raises:
            Exception: Why the tail has stopped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Exception | None] = loop.create_future()
        self._waiters.append(future)
        timer = loop.call_later(seconds, _release, future, None)
        try:
            error = await future
        finally:
            timer.cancel()
            self.used = loop.time()
            if future in self._waiters:
                self._waiters.remove(future)
        if error is not None:
            raise error.with_traceback(None)  # one instance for all who waited

    def wake(self, error: Exception | None = None) -> None:
        """Let all readers look again, or fail."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for future in waiters:
                _release(future, error)

    def retire(self, error: Exception | None = None) -> None:
        """Take it out of use: readers find their place again, or fail."""
        self.is_live = False
        self._budget.used -= self._size
        self._size = 0
        self._ring.clear()
        self.wake(error)


def _release(future: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not future.done():
        future.set_result(error)
