"""Grants a bounded number of turns, one client after the other.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ._clients import GatewayLimitError


class Turns:
    """Hands out turns in rotation: a client that asks for many does not delay one that asks once.

    Args:
        most: Turns at once.
        client_most: Turns of one client at once.
    """

    def __init__(self, most: int, client_most: int) -> None:
        self.taken = 0
        """Turns taken at the moment."""
        self._most = most
        self._client_most = client_most
        self._by_client: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(len(each) for each in self._waiting.values())

    @asynccontextmanager
    async def turn(self, client: str, max_wait: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn and hold it inside the context.

        Raises:
            GatewayLimitError: No turn came within ``max_wait``.
        """
        await self.take(client, max_wait)
        try:
            yield
        finally:
            self.give_back(client)

    async def take(self, client: str, max_wait: float | None = None) -> None:
        """Wait for a turn; the caller gives it back. At once if there is one.

        Args:
            client: Who asks.
            max_wait: Longest wait in seconds.

        Raises:
            GatewayLimitError: No turn came within ``max_wait``.

        Cancellation: no turn is taken.
        """
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(asked)
        self._grant()
        if asked.done():
            return
        try:
            async with asyncio.timeout(max_wait):
                await asked
        except BaseException as exc:
            if asked.done() and not asked.cancelled():
                self.give_back(client)
            else:
                self._withdraw(client, asked)
            if isinstance(exc, TimeoutError):
                raise GatewayLimitError(
                    f"the gateway is busy: no turn within {max_wait:g} s; try again later"
                ) from None
            raise

    def give_back(self, client: str) -> None:
        """End a turn that :meth:`take` gave."""
        self.taken -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
        self._grant()

    def _grant(self) -> None:
        for client in list(self._waiting):
            queue = self._waiting[client]
            while queue and queue[0].done():  # cancelled, and its task has not noticed yet
                queue.popleft()
            while queue and self.taken < self._most and self._by_client[client] < self._client_most:
                queue.popleft().set_result(None)
                self.taken += 1
                self._by_client[client] += 1
                self._waiting.move_to_end(client)
            if not queue:
                del self._waiting[client]
            if self.taken >= self._most:
                return

    def _withdraw(self, client: str, asked: asyncio.Future[None]) -> None:
        queue = self._waiting.get(client)
        if queue is not None and asked in queue:
            queue.remove(asked)
            if not queue:
                del self._waiting[client]
