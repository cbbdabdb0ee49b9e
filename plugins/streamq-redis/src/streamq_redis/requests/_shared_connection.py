"""A connection that is made when it is needed, and made again after it was lost."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from streamq.driver import SingleFlight, closed_error
from streamq_redis._errors import BACKEND

from ._connection import Connection


class SharedConnection:
    """Keeps one :class:`Connection` for all tasks; connects when asked, and never by itself.

    Args:
        connect: Makes a connection.
    """

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._connecting = SingleFlight(self._replace, closed=partial(closed_error, BACKEND))

    @property
    def current(self) -> Connection | None:
        """The connection, if there is one now."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    async def get(self) -> Connection:
        """Return the connection; connect if there is none.

        Raises:
            ClosedError: :meth:`close` has been called.
            redis.exceptions.RedisError: Connecting has failed.
            OSError: Connecting has failed.
        """
        return self.current or await self._connecting.result()

    def close(self) -> None:
        """Close the connection for good; every waiting caller gets ``ClosedError``."""
        self._connecting.close()
        if self._connection is not None:
            self._connection.abort(closed_error(BACKEND))

    async def gone(self) -> None:
        """Wait until nothing of it is left after :meth:`close`; cancelling only stops the wait."""
        await self._connecting.gone()
        if self._connection is not None:
            await self._connection.gone()

    async def _replace(self) -> Connection:
        connection = await self._connect()
        self._connection = connection
        return connection
