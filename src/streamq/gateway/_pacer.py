"""Divides long work into short steps, so that the event loop delivers live events in between.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Self

from ._turns import Turns

_STEP_SECONDS = 0.002
_REQUEST_SECONDS = 0.001
"""What a short request costs, about."""

_BURST = 8

_BEGIN_SECONDS = 50.0
"""How long a request may wait to begin; proxies wait for 60 s. After a restart all clients come
back at once, and an ``EventSource`` that gets 503 does not come again."""


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


class Pace:
    """Spreads pieces of work of a known cost, so that they take about half of the loop's time.

    It counts time, not rounds of the event loop. Rounds are long when many clients are live, and
    clients that come back after a restart would then wait for a minute.

    Args:
        seconds: Time from one piece to the next, twice what one costs.
        burst: How many may follow each other at once, after a round of the loop that took long.
    """

    def __init__(self, seconds: float, burst: int) -> None:
        self._seconds = seconds
        self._burst = burst
        self._next = 0.0

    def begin(self) -> float:
        """Count a piece of work that begins now; return how long the next one has to wait."""
        now = time.monotonic()
        self._next = max(self._next, now - self._burst * self._seconds) + self._seconds
        return max(self._next - now, 0.0)


class Gate:
    """Lets requests begin one after the other, in rotation over clients, at a pace.

    A flood of requests therefore takes at most about half of the event loop's time. A request waits
    only for others.
    """

    def __init__(self) -> None:
        self._turns = Turns(1, 1)
        self._pace = Pace(2 * _REQUEST_SECONDS, _BURST)

    async def enter(self, client: str) -> None:
        """Wait until a request of a client may begin.

        Raises:
            GatewayLimitError: It may not within 50 s.

        Cancellation: leaves nothing behind.
        """
        await self._turns.take(client, _BEGIN_SECONDS)
        wait = self._pace.begin()
        if wait:
            asyncio.get_running_loop().call_later(wait, self._turns.give_back, client)
        else:
            self._turns.give_back(client)
