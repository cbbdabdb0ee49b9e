"""A thread with a SQLite connection of its own; results go back to the event loop in batches."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from streamq._errors import ClosedError, StreamqError

from ._errors import BACKEND, translated
from ._wakeup import Doorbells

_DELIVER_AT_ONCE = 16

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """Something to do on a thread's connection, and who waits for the result."""

    run: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    stream: str = ""


class QueueThread(abc.ABC):
    """A daemon thread with a connection of its own, opened, used and closed in it."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        doorbells: Doorbells,
    ) -> None:
        self._path = path
        self._connect = connect
        self._loop = loop
        self._doorbells = doorbells
        self._replies: list[tuple[asyncio.Future[Any], Any, StreamqError | None]] = []
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(
            target=self._main, name=f"streamq-sqlite-{type(self).__name__.lower()}", daemon=True
        )
        self._thread.start()

    def _main(self) -> None:
        error: StreamqError | None = None
        try:
            with translated(self._path):
                connection = self._connect()
                try:
                    self._reply(self.opened, None)
                    self._deliver()
                    self._serve(connection)
                finally:
                    connection.close()
        except StreamqError as exc:
            error = exc
        reason = error or ClosedError("this sqlite queue has been closed", backend=BACKEND)
        self._reply(self.opened, error=reason)
        self._abandon(reason)
        self._reply(self.ended, None)
        self._deliver()

    def _reply(
        self, future: asyncio.Future[Any], result: object = None, error: StreamqError | None = None
    ) -> None:
        self._replies.append((future, result, error))
        if len(self._replies) >= _DELIVER_AT_ONCE:
            self._deliver()

    def _deliver(self) -> None:
        replies, self._replies = self._replies, []
        if replies:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
                self._loop.call_soon_threadsafe(_resolve, replies)

    @abc.abstractmethod
    def _serve(self, connection: sqlite3.Connection) -> None:
        """Work until told to stop."""

    @abc.abstractmethod
    def _abandon(self, reason: StreamqError) -> None:
        """Refuse everything that is still to be done, and all that comes."""


def _resolve(replies: list[tuple[asyncio.Future[Any], Any, StreamqError | None]]) -> None:
    for future, result, error in replies:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
