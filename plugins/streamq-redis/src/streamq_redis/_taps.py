"""What the process knows of the end of a stream that is being followed, shared by its readers."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import islice
from operator import itemgetter
from typing import TypeAlias

from streamq.driver import Stored, encode_position

from ._wire import Reply

Id: TypeAlias = tuple[int, int]
_ENTRY_OVERHEAD_BYTES = 256


def parse_entries(reply: Reply) -> list[Stored]:
    """Return the entries of a reply to XRANGE, XREVRANGE or (for one stream) XREAD."""
    assert isinstance(reply, list)
    found = []
    for number, fields in reply:  # type: ignore[misc]
        data = fields[1] if fields else b""  # type: ignore[index]
        found.append(Stored(number.decode(), data))  # type: ignore[union-attr, arg-type]
    return found


def fit(records: Iterable[Stored], max_records: int, max_bytes: int) -> list[Stored]:
    """Return the first records within both bounds, but always one."""
    found: list[Stored] = []
    size = 0
    for record in islice(records, max_records):
        size += len(record.data)
        if size > max_bytes and found:
            break
        found.append(record)
    return found


class Tap:
    """The newest entries of one stream, kept while somebody follows it.

    It knows every entry above ``floor`` up to ``last``, and the pump is reading on from ``last``. A
    reader below the floor has to catch up from the server.
    """

    __slots__ = (
        "_limit",
        "_ring",
        "_size",
        "_waiters",
        "cursor",
        "floor",
        "is_live",
        "key",
        "last",
        "used",
        "valid_from",
    )

    def __init__(self, key: bytes, after: Id, limit: int) -> None:
        self.key = key
        self.is_live = True
        self.used = 0.0
        self.valid_from = 0
        self._limit = limit
        self._ring: deque[tuple[Id, Stored]] = deque()
        self._waiters: list[asyncio.Future[Exception | None]] = []
        self.reset(after)

    @property
    def is_waited_for(self) -> bool:
        """Whether a reader is blocked on it."""
        return bool(self._waiters)

    def reset(self, after: Id) -> None:
        """Forget everything and go on from a place of the stream."""
        self.floor = self.last = after
        self.cursor = encode_position(after)
        self._ring.clear()
        self._size = 0

    def covers(self, after: Id) -> bool:
        """Whether a reader at this place misses nothing by reading from here."""
        return self.is_live and self.floor <= after

    def push(self, records: list[Stored]) -> None:
        """Add what the server has sent, drop the oldest entries for it, and wake the readers."""
        for record in records:
            epoch, _, index = record.position.partition("-")
            self.last = int(epoch), int(index)
            self._ring.append((self.last, record))
            self._size += len(record.data) + _ENTRY_OVERHEAD_BYTES
        self.cursor = records[-1].position
        while self._size > self._limit and len(self._ring) > 1:
            self.floor, dropped = self._ring.popleft()
            self._size -= len(dropped.data) + _ENTRY_OVERHEAD_BYTES
        self.wake()

    def after(self, place: Id, max_records: int, max_bytes: int) -> list[Stored]:
        """Return entries above a place, oldest first."""
        ring = self._ring
        if not ring or self.last <= place:
            return []
        start = bisect_right(ring, place, key=itemgetter(0)) if ring[0][0] <= place else 0
        return fit((record for _, record in islice(ring, start, None)), max_records, max_bytes)

    async def wait(self, seconds: float) -> None:
        """Wait until something has changed, for a bounded time.

        Raises:
            Exception: What the pump failed with.
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
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            _release(future, error)

    def retire(self, error: Exception | None = None) -> None:
        """Take it out of use: readers find their place again, or fail."""
        self.is_live = False
        self.wake(error)


def _release(future: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not future.done():
        future.set_result(error)
