"""Asks the backend about streams: a bounded number of questions at once, in turn for each client.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamq.driver import ChunkQueue

from ._clients import Client
from ._options import GatewayOptions
from ._queues import Queues
from ._reader_quotas import ReaderQuotas
from ._turns import Turns

_LISTS = 2


class Questions:
    """Hands out the queue for questions that are not about live events.

    Args:
        queues: Opens the queue.
        options: How many questions at once, and how long they may wait.
        quotas: Bounds the lists of each tenant and subject.
    """

    def __init__(self, queues: Queues, options: GatewayOptions, quotas: ReaderQuotas) -> None:
        self._queues = queues
        self._options = options
        self._lists = Turns(_LISTS, 1, quotas.allowances("lists"))
        self._others: Turns | None = None  # as many as suit the backend, once it is open

    async def most_of_client(self) -> int:
        """Return how many questions of one client are asked at once, besides lists.

        Raises:
            StreamqError: As for :meth:`Queues.open`.
        """
        queue = await self._queues.open_for_the_past()
        return self._options.share(self._options.queries(queue.capabilities))

    @asynccontextmanager
    async def ask(self, client: Client, *, is_list: bool = False) -> AsyncIterator[ChunkQueue]:
        """Return the queue when the turn of the question comes.

        Args:
            client: Who asks.
            is_list: Whether all streams are listed, which is done for few clients at once.

        Raises:
            GatewayLimitError: No turn came within ``queue_seconds``.
            StreamqError: As for :meth:`Queues.open`.
        """
        queue = await self._queues.open_for_the_past()
        if self._others is None:
            at_once = self._options.queries(queue.capabilities)
            self._others = Turns(at_once, self._options.share(at_once))
        turns = self._lists if is_list else self._others
        async with turns.turn(client, self._options.queue_seconds):
            yield queue
