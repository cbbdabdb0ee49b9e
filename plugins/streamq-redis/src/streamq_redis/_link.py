"""A connection that is made when it is needed and made again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ._wire import Wire, closed_error


class Link:
    """Keeps one :class:`Wire`: connects when asked, once for all who wait, never by itself."""

    def __init__(self, opener: Callable[[], Awaitable[Wire]]) -> None:
        self._opener = opener
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None
        self._is_closed = False

    @property
    def current(self) -> Wire | None:
        """The connection if there is one now."""
        wire = self._wire
        return wire if wire is not None and wire.is_open else None

    async def wire(self) -> Wire:
        """Return the connection; connect if there is none.

        Raises:
            ClosedError: :meth:`close` has been called.
        """
        wire = self._wire
        if wire is not None and wire.is_open:
            return wire
        if self._is_closed:
            raise closed_error()
        task = self._connecting
        if task is None or task.done():
            task = self._connecting = asyncio.ensure_future(self._connect())
            task.add_done_callback(_mark_retrieved)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._is_closed and task.cancelled():
                raise closed_error() from None
            raise

    def close(self) -> None:
        """Close it for good; whatever waits fails with ``ClosedError``."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.abort(closed_error())

    async def gone(self) -> None:
        """Wait until what :meth:`close` has ended is gone; cancelling only stops the wait."""
        if self._connecting is not None:
            await asyncio.wait({self._connecting})
        if self._wire is not None:
            await self._wire.gone()

    async def _connect(self) -> Wire:
        wire = await self._opener()
        self._wire = wire
        return wire


def _mark_retrieved(task: asyncio.Task[Wire]) -> None:
    if not task.cancelled():
        task.exception()
