"""A thread with a SQLite connection of its own; results return to the event loop in batches.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
    closed_error,
)

from ._doorbells import Doorbells
from ._errors import BACKEND, sqlite_errors
from ._file import Change, DatabaseFile
from ._open_files import close, open_files

_log = logging.getLogger("streamq.sqlite")
_DELIVER_AT_ONCE = 16
_OPEN_TRIES = 3
_CHECK_SECONDS = 0.01  # a commit is checked in any case, and each poll of a blocked read
_MERGE_SECONDS = 1.0

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """Work for a thread's connection, and the future of its result.

    Attributes:
        frees_room: Whether it may use the disk space that is kept in reserve.
    """

    run: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    stream: str = ""
    frees_room: bool = False


class ConnectionThread(abc.ABC):
    """A daemon thread with a connection of its own, which it opens, uses and closes.

    It opens the file anew if another one is at the path.

    Args:
        path: The database, as it was set.
        connect: Opens a connection to the real path.
        loop: The event loop of the queue.

    Attributes:
        file: The files of the connection.
        connection: ``None`` until it is open, and after it was closed.
        working: Held while the thread may be inside SQLite.
        doorbells: Of all processes that use the database, once it was opened.
        lost_records: Whether a database that was open was removed or replaced.
        opened: Resolved when the connection is open, or the disk is too full for that; fails if it
            cannot be opened.
        ended: Resolved when the thread has ended.
    """

    role: ClassVar[str]
    """The end of the thread's name."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[Path], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.file = DatabaseFile(path)
        self.connection: sqlite3.Connection | None = None
        self.working = threading.Lock()
        self.doorbells: Doorbells | None = None
        self.lost_records = False
        self._connect = connect
        self._loop = loop
        self._spoilt: StreamqError | None = None
        self._checked_at = 0.0
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
            with sqlite_errors(self.file.given):
                with self.working, contextlib.suppress(StorageFullError):
                    self._connected()
                try:
                    self._reply(self.opened, None)
                    self._deliver()
                    self._serve()
                finally:
                    with self.working:
                        self._disconnect()
        except StreamqError as exc:
            error = exc
        reason = error or closed_error(BACKEND)
        self._reply(self.opened, error=reason)
        self._abandon(reason)
        self._reply(self.ended, None)
        self._deliver()

    def _connected(self) -> sqlite3.Connection:
        """Return a connection to the file that is at the path now; open it if necessary.

        Raises:
            StorageFullError: The disk is too full to open it.
            StreamqError: It cannot be opened for another reason; a later call tries again.
        """
        if time.monotonic() - self._checked_at > _CHECK_SECONDS:
            self._check_file()
        if self.connection is not None:
            return self.connection
        if self._spoilt is not None:
            raise self._spoilt
        with sqlite_errors(self.file.given):
            for _ in range(_OPEN_TRIES):
                if (connection := self._open()) is not None:
                    return connection
        raise BackendUnavailableError(
            f"{self.file.given} was replaced again and again while it was opened", backend=BACKEND
        )

    def _open(self) -> sqlite3.Connection | None:
        """Open a connection; return ``None`` if the file was replaced meanwhile."""
        self.file.prepare()
        with sqlite_errors(self.file.path), open_files.opening(self):
            connection = self._connect(self.file.path)
            if not self.file.note():
                connection.close()
                return None
            self.connection = connection
        if self.doorbells is not None:
            self.doorbells.close()
        self.doorbells = Doorbells(self.file.path)
        return connection

    def _check_file(self) -> None:
        """Close the connection if another file is at the path, or none."""
        connection = self.connection
        if connection is None or (change := self.file.change()) is None:
            self._checked_at = time.monotonic()
            return
        _log.warning("%s %s while it was open", self.file.given, change.value)
        if change is not Change.LOG_REMOVED or not _merge_log(connection):
            self.lost_records = True
        if change is Change.LOG_REPLACED:
            self._spoilt = BackendError(
                f"the write-ahead log of {self.file.given} was removed while it was open, and "
                "another process has begun a new one; restart this process",
                backend=BACKEND,
            )
        self._disconnect(change)
        open_files.nudge_others(self)

    def _disconnect(self, change: Change | None = None) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            if change is None:
                with contextlib.suppress(StreamqError):
                    change = self.file.change()
            close(connection, change)

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
    def nudge(self) -> None:
        """Let the thread call :meth:`_check_file` soon; from any thread."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End the thread soon."""

    @abc.abstractmethod
    def _serve(self) -> None:
        """Work until :meth:`stop` is called."""

    @abc.abstractmethod
    def _abandon(self, reason: StreamqError) -> None:
        """Raise an error to every call that waits, and to every later one."""


def _merge_log(connection: sqlite3.Connection) -> bool:
    """Save what is in a log that was removed: nobody else can have begun another one yet."""
    give_up = time.monotonic() + _MERGE_SECONDS
    while True:
        try:
            busy, pages, merged = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:
            return False
        if busy == 0 and pages == merged:
            return True
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)  # another thread is merging it, or about to end a read


def _resolve(replies: list[tuple[asyncio.Future[Any], Any, StreamqError | None]]) -> None:
    for future, result, error in replies:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
