"""Opens the queues of a gateway: one for live events, one for all that is not live.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from functools import partial

from streamq._errors import BackendUnavailableError, ClosedError, StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.calling import _calls as calling
from streamq.calling._queues import check_queue
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import open_queue

_CHECK_SECONDS = 2.0
_CLOSING = "the gateway is shutting down"


class Queues:
    """Owns the queues that it opens.

    A read of the past, a status or a list may take long in a driver's thread or connection. They
    have a queue of their own, so that no live read waits behind them.

    Args:
        given: An open queue to use for everything; it stays open.
        settings: The configured queue.
    """

    def __init__(self, given: ChunkQueue | None, settings: Settings) -> None:
        self.given = given
        """The queue that was given."""
        self._settings = settings
        self._live: ChunkQueue | None = None
        self._past: ChunkQueue | None = None
        self._opening = asyncio.Lock()
        self._check: asyncio.Task[str] | None = None
        self._closing = 0

    async def open(self) -> ChunkQueue:
        """Return the queue of live events; open it if necessary.

        Raises:
            ClosedError: The gateway is shutting down.
            StreamqError: As for :func:`streamq.open_queue`; the next call tries again.
        """
        self._check_open()
        if self.given is not None:
            check_queue(self.given)
            return self.given
        async with self._opening:
            self._check_open()
            if self._live is None:
                self._live = await self._opened()
            return self._live

    async def open_for_the_past(self) -> ChunkQueue:
        """Return the queue of everything else; open it if necessary.

        Raises:
            StreamqError: As for :meth:`open`.
        """
        self._check_open()
        if self.given is not None:
            return self.given
        async with self._opening:
            self._check_open()
            if self._past is None:
                self._past = await self._opened()
            return self._past

    async def check(self, tenant: str) -> str:
        """Ask the backend whether it answers; all who ask at the same time share one question.

        Returns:
            The name of the backend.

        Raises:
            BackendUnavailableError: There is no answer within 2 s.
            StreamqError: As for :meth:`open`, or what the backend answers.
        """
        check = self._check
        if check is None or check.done():
            check = self._check = asyncio.create_task(self._ask(tenant), name="streamq-readyz")
            check.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait({check})
        if check.cancelled():
            raise ClosedError(_CLOSING)
        return check.result()

    def refuse(self) -> None:
        """Refuse to open or return a queue, until :meth:`allow` was called as often."""
        self._closing += 1

    def allow(self) -> None:
        """Open queues again."""
        self._closing -= 1

    def abandon(self) -> None:
        """Give up the queues of an event loop that has ended."""
        for queue in (self._live, self._past):
            if queue is not None:
                queue.abandon()

    async def aclose(self) -> None:
        """Close the queues that were opened here. One that is being opened is closed, too."""
        if self._check is not None:
            self._check.cancel()
            await asyncio.wait({self._check})
        async with self._opening:
            live, self._live = self._live, None
            past, self._past = self._past, None
            await close_all(
                *(partial(calling.close, queue) for queue in (past, live) if queue is not None)
            )

    async def _ask(self, tenant: str) -> str:
        queue = await self.open()
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await calling.describe(queue, StreamId(tenant, "streamq-readyz"))
        except StreamNotFoundError:
            pass  # the backend has answered
        except TimeoutError as exc:
            raise BackendUnavailableError(
                f"no answer within {_CHECK_SECONDS:g} s", backend=queue.backend
            ) from exc
        return queue.backend

    async def _opened(self) -> ChunkQueue:
        opened = await open_queue(self._settings)
        if self._closing:
            await calling.close(opened)
            raise ClosedError(_CLOSING)
        return opened

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError(_CLOSING)
