"""Keeps one connection for all calls of a queue.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from ._cleanup import Closing
from ._single_flight import SingleFlight

C = TypeVar("C")

_logger = logging.getLogger("streamq")


class ConnectOnce(Generic[C]):
    """Connects when the first call needs it, once for all calls, and again after a loss.

    ::

        connection = await self._connection.get()
        try:
            await connection.send(...)
        except ConnectionError:
            self._connection.forget(connection)
            raise

    Connecting runs in a task of its own. It never retries: an error goes to every call that waits,
    and the next call begins anew. For one event loop.

    Args:
        connect: Makes a connection. It limits its own duration. :meth:`aclose` cancels it; like
            any coroutine that fails or is cancelled, it then leaves nothing open.
        disconnect: Ends a connection, also a broken one. It limits its own duration. It runs once
            for each connection, and nothing cancels it.
        closed: Returns the error to raise once closed.
    """

    __slots__ = (
        "_closed",
        "_closing",
        "_connect",
        "_connecting",
        "_connection",
        "_disconnect",
        "_ending",
        "_is_closed",
    )

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, C]],
        disconnect: Callable[[C], Awaitable[object]],
        *,
        closed: Callable[[], Exception],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._closed = closed
        self._connection: C | None = None
        self._connecting = SingleFlight(self._make, closed=closed)
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._closing = Closing(self._connecting.gone, self._all_ended)

    @property
    def current(self) -> C | None:
        """The connection, if there is one now."""
        return self._connection

    async def get(self) -> C:
        """Return the connection; connect if there is none, or wait for the call that does.

        Cancellation: ends the wait and not the connecting, which others may need.

        Raises:
            Exception: The error of ``connect``, or of ``closed`` after :meth:`aclose`.
        """
        connection = self._connection
        return connection if connection is not None else await self._connecting.result()

    def forget(self, connection: C) -> None:
        """Let the next call connect anew, and disconnect a connection that is broken.

        Disconnecting goes on alone; an error of it is logged. Has no effect on a connection that is
        no longer the current one, because another call has found it broken.
        """
        if connection is self._connection:
            self._connection = None
            self._end(connection)

    async def aclose(self) -> None:
        """Disconnect, and refuse to connect again; calls that wait get the error. Idempotent.

        It limits its own duration as ``connect`` and ``disconnect`` do. An error of disconnecting
        is logged.

        Cancellation: everything is disconnected all the same, as by :class:`Closing`. A second
        call, concurrent or later, waits for that.
        """
        self._is_closed = True
        self._connecting.close()
        if self._connection is not None:
            self.forget(self._connection)
        await self._closing.run()

    async def _make(self) -> C:
        connection = await self._connect()
        if self._is_closed:  # it has ended although it was cancelled
            self._end(connection)
            raise self._closed()
        self._connection = connection
        return connection

    def _end(self, connection: C) -> None:
        task = asyncio.create_task(self._ended(connection), name="streamq-disconnecting")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _ended(self, connection: C) -> None:
        try:
            await self._disconnect(connection)
        except Exception as exc:  # noqa: BLE001 - the connection is of no use either way
            _logger.warning("disconnecting failed: %s: %s", type(exc).__name__, exc)

    async def _all_ended(self) -> None:
        while self._ending:
            await asyncio.wait(self._ending)
