"""Divides long work into short steps, so that the event loop delivers live events in between.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Self

from ._turns import Turns

_STEP_SECONDS = 0.002
_LONGEST_REST_SECONDS = 0.05
_REQUEST_ROUNDS = 4  # rounds of the event loop in which the work of a request is done


class Pacer:
    """Lets one task at a time work, for about 2 ms, and then all of them rest for as long.

    Catching up takes its steps and turns from one pacer, in rotation over clients. It therefore
    takes at most about half of the event loop's time, and delays a live event by one step.
    """

    def __init__(self) -> None:
        self._turns = Turns(1, 1)
        self._worked = 0.0

    def steps(self, client: str) -> Steps:
        """Return a context manager for one piece of long work of a client."""
        return Steps(self, client)

    async def turn(self, client: str) -> None:
        """Wait for a turn, which ends by itself when the caller next awaits something.

        Cancellation: leaves nothing behind.
        """
        loop = asyncio.get_running_loop()
        await self.begin(client)
        loop.call_soon(self.end, client, time.perf_counter())

    async def begin(self, client: str) -> None:
        """Wait until nobody else works; the caller calls :meth:`end`.

        Cancellation: leaves nothing behind.
        """
        await self._turns.take(client)

    def end(self, client: str, begun: float) -> None:
        """Let the next one begin, after a rest if it is time for one.

        Args:
            client: As for :meth:`begin`.
            begun: When the work began, by ``time.perf_counter()``.
        """
        self._worked += time.perf_counter() - begun
        if self._worked < _STEP_SECONDS:
            self._turns.give_back(client)
            return
        rest, self._worked = min(self._worked, _LONGEST_REST_SECONDS), 0.0
        asyncio.get_running_loop().call_later(rest, self._turns.give_back, client)


class Steps:
    """Work that is done in steps, in turn with other work."""

    def __init__(self, pacer: Pacer, client: str) -> None:
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
        self._pacer.end(self._client, self._since)


class Gate:
    """Lets requests begin one after the other, in rotation over clients.

    After each of them it rests for as long as the event loop was busy with it. A flood of requests
    therefore takes at most about half of the event loop's time. A request waits only for others.
    """

    def __init__(self) -> None:
        self._turns = Turns(1, 1)

    async def enter(self, client: str, max_wait: float) -> None:
        """Wait until a request of a client may begin.

        Raises:
            GatewayLimitError: It may not within ``max_wait``.

        Cancellation: leaves nothing behind.
        """
        await self._turns.take(client, max_wait)
        self._follow(client, time.perf_counter(), _REQUEST_ROUNDS)

    def _follow(self, client: str, begun: float, rounds: int) -> None:
        loop = asyncio.get_running_loop()
        if rounds:
            loop.call_soon(self._follow, client, begun, rounds - 1)
        else:
            busy = min(time.perf_counter() - begun, _LONGEST_REST_SECONDS)
            loop.call_later(busy, self._turns.give_back, client)


async def rest_after_round() -> None:
    """Rest for as long as the event loop's next round takes."""
    begun = time.perf_counter()
    await asyncio.sleep(0)
    await asyncio.sleep(min(time.perf_counter() - begun, _LONGEST_REST_SECONDS))
