"""Divides long work into short steps, so that the event loop delivers live events in between.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Self

_STEP_SECONDS = 0.002


class Pacer:
    """Lets one task at a time work, for about 2 ms, and then all of them rest for as long.

    Catching up takes its steps from one pacer. It therefore takes at most about half of the event
    loop's time, and delays a live event by one step.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def steps(self) -> Steps:
        """Return a context manager for one piece of long work."""
        return Steps(self._lock)


class Steps:
    """Work that is done in steps, in turn with other work."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._has_lock = False
        self._since = 0.0

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._end()

    async def rest(self) -> None:
        """Rest if the step is over; call this between small pieces of work."""
        worked = time.perf_counter() - self._since
        if worked >= _STEP_SECONDS:
            await asyncio.sleep(worked)
            self._end()
            await self._begin()  # after the others that wait

    async def _begin(self) -> None:
        await self._lock.acquire()
        self._has_lock = True
        self._since = time.perf_counter()

    def _end(self) -> None:
        if self._has_lock:
            self._has_lock = False
            self._lock.release()
