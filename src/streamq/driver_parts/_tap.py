"""Keeps the newest records of one stream in memory, for the readers that wait at its end.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_right
from collections import deque
from itertools import islice
from operator import itemgetter
from typing import Generic, TypeVar

from ._bounds import RecordT, within_bounds

PlaceT = TypeVar("PlaceT", int, tuple[int, int])

RECORD_OVERHEAD_BYTES = 256  # so that empty records are bounded as well

_place, _record = itemgetter(0), itemgetter(1)


class TapBudget:
    """The bytes that several taps may keep together.

    Attributes:
        limit: Most bytes.
        used: Bytes that the taps keep now.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Tap(Generic[PlaceT, RecordT]):
    """The newest records of one stream in memory, and the readers that wait for more.

    For drivers that follow a stream once for all its readers: a live tail pushes every new record
    into the tap and wakes the readers. A tap has every record after :attr:`floor` that the live
    tail has read. A reader waits in the tap only at its end (:meth:`is_at_end`); one that is behind
    reads from the backend until it has caught up.

    A place is an integer or a pair of integers. The place of a record is larger than that of every
    record before it. A reader at a place has read all records up to and including it. So a driver
    whose readers ask for "at and after offset n" pushes each record with its offset plus 1.

    For one event loop; no method may be called from another thread. Pushing, reading and waking
    never suspend: only :meth:`read` and :meth:`wait` do.

    Args:
        floor: Every record after this place will be pushed.
        max_bytes: Bytes that the tap keeps; the oldest records make room for new ones. The newest
            record always stays.
        budget: Bytes that this tap and others may keep together. A tap makes room by dropping its
            own oldest records.
        overhead_bytes: Bytes that each record counts beside its data.
        now: Time of the event loop, for :attr:`used`.

    Attributes:
        floor: No record after this place is missing.
        is_live: Whether records are still being pushed; false after :meth:`retire`.
        used: When a reader last used the tap, in seconds of the event loop's clock.
    """

    __slots__ = (
        "_budget",
        "_max_bytes",
        "_overhead_bytes",
        "_ring",
        "_size",
        "_waiters",
        "floor",
        "is_live",
        "used",
    )

    def __init__(
        self,
        floor: PlaceT,
        *,
        max_bytes: int,
        budget: TapBudget | None = None,
        overhead_bytes: int = RECORD_OVERHEAD_BYTES,
        now: float = 0.0,
    ) -> None:
        self.floor: PlaceT = floor
        self.is_live = True
        self.used = now
        self._max_bytes = max_bytes
        self._overhead_bytes = overhead_bytes
        self._budget = TapBudget(sys.maxsize) if budget is None else budget
        self._ring: deque[tuple[PlaceT, RecordT]] = deque()
        self._size = 0
        self._waiters: list[asyncio.Future[Exception | None]] = []

    # -- for readers ---------------------------------------------------------------------------

    def covers(self, place: PlaceT) -> bool:
        """Whether a reader at this place misses nothing by reading from the tap."""
        return self.is_live and self.floor <= place

    def is_at_end(self, place: PlaceT) -> bool:
        """Whether a reader at this place can wait in the tap for what comes next.

        Only such a reader may begin its call with a tap that other calls have filled. A tap does
        not notice that another process deletes the stream, perhaps to begin it anew: what it had
        before the call, the backend may have no more.
        """
        return self.covers(place) and self.last <= place

    def after(self, place: PlaceT, max_records: int, max_bytes: int) -> list[RecordT]:
        """Return the records after a place, oldest first, within the bounds of a read.

        Only if the tap :meth:`covers` the place are these all records after it.
        """
        ring = self._ring
        if not ring or ring[-1][0] <= place:
            return []
        if len(ring) == 1 or ring[-2][0] <= place:
            return [ring[-1][1]]  # what a reader that has kept up nearly always finds
        start = bisect_right(ring, place, key=_place) if ring[0][0] <= place else 0
        return within_bounds(map(_record, islice(ring, start, None)), max_records, max_bytes)

    async def read(
        self, place: PlaceT, max_records: int, max_bytes: int, until: float
    ) -> list[RecordT] | None:
        """Return the records after a place; wait for the first one if there is none.

        Args:
            place: Where the reader is.
            max_records: Most records to return, at least 1.
            max_bytes: Most bytes to return, beyond one record.
            until: When to stop waiting, in seconds of the event loop's clock.

        Returns:
            At least one record; an empty list at ``until``; ``None`` if the tap does not cover the
            place, or no longer does, so that the caller has to read from the backend.

        Cancellation: nothing is lost; the same call can be repeated.

        Raises:
            Exception: The error that :meth:`wake` or :meth:`retire` was called with.
        """
        loop = asyncio.get_running_loop()
        while self.covers(place):
            found = self.after(place, max_records, max_bytes)
            self.used = now = loop.time()
            if found or now >= until:
                return found
            await self.wait(until - now)
        return None

    async def wait(self, seconds: float) -> None:
        """Wait until the tap has changed, at most this many seconds.

        Cancellation: only stops this wait.

        Raises:
            Exception: The error that :meth:`wake` or :meth:`retire` was called with.
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
            raise error.with_traceback(None)  # one instance for all readers that waited

    # -- for the live tail ---------------------------------------------------------------------

    @property
    def last(self) -> PlaceT:
        """The place of the newest record; :attr:`floor` if the tap has none."""
        ring = self._ring
        return ring[-1][0] if ring else self.floor

    @property
    def is_waited_for(self) -> bool:
        """Whether a reader waits."""
        return bool(self._waiters)

    def is_idle(self, now: float, seconds: float) -> bool:
        """Whether no reader waits, and none has used the tap for longer than this."""
        return not self._waiters and now - self.used > seconds

    def push(self, place: PlaceT, record: RecordT) -> None:
        """Add the next record, and drop the oldest ones that no longer fit.

        Wakes no reader: call :meth:`wake` after the last one.
        """
        size = len(record.data) + self._overhead_bytes
        ring, budget = self._ring, self._budget
        ring.append((place, record))
        self._size += size
        budget.used += size
        while (self._size > self._max_bytes or budget.used > budget.limit) and len(ring) > 1:
            self.floor, dropped = ring.popleft()
            size = len(dropped.data) + self._overhead_bytes
            self._size -= size
            budget.used -= size

    def extend(self, start: PlaceT, end: PlaceT) -> None:
        """Note that the stream has no record after ``start`` up to ``end``.

        Lowers the floor if the tap covers ``end``.
        """
        if self.floor <= end:
            self.floor = min(self.floor, start)

    def restart(self, floor: PlaceT) -> None:
        """Drop all records and continue from a place; readers that wait keep waiting."""
        self._drop_all()
        self.floor = floor

    def wake(self, error: Exception | None = None) -> None:
        """Let every reader that waits check again, or raise an error to it."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for future in waiters:
                _release(future, error)

    def retire(self, error: Exception | None = None) -> None:
        """Take the tap out of use for good, and give back what it used of its budget.

        Every reader that waits finds its place again in the backend, or gets an error.
        """
        self.is_live = False
        self._drop_all()
        self.wake(error)

    def _drop_all(self) -> None:
        self._budget.used -= self._size
        self._size = 0
        self._ring.clear()


def _release(future: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not future.done():
        future.set_result(error)
