"""Grants a bounded number of turns, one client after the other.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from ._allowances import Allowance
from ._clients import Client, GatewayLimitError, subtract


class Turns:
    """Hands out turns in rotation: a client that asks for many does not delay one that asks once.

    Args:
        most: Turns at once.
        client_most: Turns of one client at once.
        quotas: Returns the quotas that a client counts for. One that has its quota waits, too.
    """

    def __init__(
        self,
        most: int,
        client_most: int,
        quotas: Callable[[Client], Iterable[Allowance]] = lambda _: (),
    ) -> None:
        self.taken = 0
        """Turns taken at the moment."""
        self._most = most
        self._client_most = client_most
        self._quotas = quotas
        self._by_holder: Counter[str] = Counter()
        self._waiting: OrderedDict[Client, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(len(each) for each in self._waiting.values())

    @asynccontextmanager
    async def turn(self, client: Client, max_wait: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn and hold it inside the context.

        Raises:
            GatewayLimitError: No turn came within ``max_wait``.
        """
        await self.take(client, max_wait)
        try:
            yield
        finally:
            self.give_back(client)

    async def take(self, client: Client, max_wait: float | None = None) -> None:
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

    def give_back(self, client: Client) -> None:
        """End a turn that :meth:`take` gave."""
        self.taken -= 1
        subtract(self._by_holder, self._holders(client))
        self._grant()

    def _grant(self) -> None:
        for client in list(self._waiting):
            queue = self._waiting[client]
            while queue and queue[0].done():  # cancelled, and its task has not noticed yet
                queue.popleft()
            while queue and self._has_turn(client):
                queue.popleft().set_result(None)
                self.taken += 1
                self._by_holder.update(self._holders(client))
                self._waiting.move_to_end(client)
            if not queue:
                del self._waiting[client]
            if self.taken >= self._most:
                return

    def _has_turn(self, client: Client) -> bool:
        return (
            self.taken < self._most
            and self._by_holder[client.name] < self._client_most
            and all(self._by_holder[each.holder] < each.most for each in self._quotas(client))
        )

    def _holders(self, client: Client) -> list[str]:
        return [client.name, *(each.holder for each in self._quotas(client))]

    def _withdraw(self, client: Client, asked: asyncio.Future[None]) -> None:
        queue = self._waiting.get(client)
        if queue is not None and asked in queue:
            queue.remove(asked)
            if not queue:
                del self._waiting[client]
