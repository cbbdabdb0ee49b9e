"""Divides long work into short steps, so that the event loop delivers live events in between.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Self

from ._clients import Client
from ._turns import Turns

_STEP_SECONDS = 0.002
_REQUEST_SECONDS = 0.001
"""Approximate cost of a short request."""

_BURST = 8

_BEGIN_SECONDS = 50.0
"""How long a request may wait to begin; proxies wait for 60 s. After a restart all clients come
back at once, and an ``EventSource`` that gets 503 does not come again."""


class Pacer:
    """Lets one task at a time work, for about 2 ms, and then all of them rest for as long.

    Catching up takes its steps and turns from one pacer, in rotation over clients. It therefore
    takes at most about half of the event loop's time, and delays a live event by one step.
    """

    def __init__(self) -> None:
        self._turns = Turns(1, 1)
        self._worked = 0.0

    def steps(self, client: Client) -> Steps:
        """Return a context manager for one piece of long work of a client."""
        return Steps(self, client)

    async def turn(self, client: Client) -> None:
        """Wait for a turn, which ends by itself when the caller next awaits something.

        Cancellation: leaves nothing behind.
        """
        loop = asyncio.get_running_loop()
        await self.begin(client)
        loop.call_soon(self._end_turn, client, time.perf_counter())

    async def begin(self, client: Client) -> None:
        """Wait until nobody else works; the caller calls :meth:`end`.

        Cancellation: leaves nothing behind.
        """
        await self._turns.take(client)

    def end(self, client: Client, worked: float) -> None:
        """Let the next one begin, after a rest if it is time for one.

        Args:
            client: As for :meth:`begin`.
            worked: How long the work took, in seconds.
        """
        self._worked += worked
        if self._worked < _STEP_SECONDS:
            self._turns.give_back(client)
            return
        rest, self._worked = self._worked, 0.0
        asyncio.get_running_loop().call_later(rest, self._turns.give_back, client)

    def _end_turn(self, client: Client, begun: float) -> None:
        # The round of the event loop may have been long because of others.
        self.end(client, min(time.perf_counter() - begun, _STEP_SECONDS))


class Steps:
    """Work that is done in steps, in turn with other work."""

    def __init__(self, pacer: Pacer, client: Client) -> None:
        self._pacer = pacer
        self._client = client
        self._since = 0.0
        self._is_working = False

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._is_working:
            self._end()

    async def rest(self) -> None:
        """Rest if the step is over; call this between small pieces of work."""
        if time.perf_counter() - self._since >= _STEP_SECONDS:
            self._end()
            await self._begin()  # after the others that wait

    async def _begin(self) -> None:
        await self._pacer.begin(self._client)
        self._is_working = True
        self._since = time.perf_counter()

    def _end(self) -> None:
        self._is_working = False
        self._pacer.end(self._client, time.perf_counter() - self._since)


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

    async def enter(self, client: Client) -> None:
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
