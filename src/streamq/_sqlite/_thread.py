"""A thread with a SQLite connection of its own; results return to the event loop in batches.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from streamq.driver import StreamqError, closed_error

from ._doorbells import Doorbells
from ._errors import BACKEND, sqlite_errors

_DELIVER_AT_ONCE = 16

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """Work for a thread's connection, and the future of its result."""

    run: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    stream: str = ""


class ConnectionThread(abc.ABC):
    """A daemon thread with a connection of its own, which it opens, uses and closes.

    Args:
        path: The database.
        connect: Opens a connection to it.
        loop: The event loop of the queue.
        doorbells: Of all processes that use the database.

    Attributes:
        opened: Resolved when the connection is open; fails if it cannot be opened.
        ended: Resolved when the thread has ended.
    """

    role: ClassVar[str]
    """The end of the thread's name."""

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
            target=self._main, name=f"streamq-sqlite-{self.role}", daemon=True
        )
        self._thread.start()

    def _main(self) -> None:
        error: StreamqError | None = None
        try:
            with sqlite_errors(self._path):
                connection = self._connect()
                try:
                    self._reply(self.opened, None)
                    self._deliver()
                    self._serve(connection)
                finally:
                    connection.close()
        except StreamqError as exc:
            error = exc
        reason = error or closed_error(BACKEND)
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
            with contextlib.suppress(
                RuntimeError
            ):  # the loop has been closed, and all its tasks with it
                self._loop.call_soon_threadsafe(_resolve, replies)

    @abc.abstractmethod
    def stop(self) -> None:
        """End the thread soon."""

    @abc.abstractmethod
    def _serve(self, connection: sqlite3.Connection) -> None:
        """Work until :meth:`stop` is called."""

    @abc.abstractmethod
    def _abandon(self, reason: StreamqError) -> None:
        """Raise an error to every call that waits, and to every later one."""


def _resolve(replies: list[tuple[asyncio.Future[Any], Any, StreamqError | None]]) -> None:
    for future, result, error in replies:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
