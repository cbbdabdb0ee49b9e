"""A thread with a SQLite connection of its own; results return to the event loop in batches.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
    closed_error,
    for_stream,
)

from ._doorbells import Doorbells
from ._errors import BACKEND, sqlite_errors
from ._file import Change, DatabaseFile
from ._open_files import close, open_files
from ._shares import Result

_log = logging.getLogger("streamq.sqlite")
_OPEN_TRIES = 5
_CHECK_SECONDS = 0.01  # a commit is checked in any case, and each poll of a blocked read
_MERGE_SECONDS = 1.0

T = TypeVar("T")
Answer: TypeAlias = tuple[Result[Any], Any, StreamqError | None]
"""Where a result goes, and the result or an error."""


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """Work for a thread's connection, and where its result goes.

    Attributes:
        name: Stream that it is about, for errors.
    """

    run: Callable[[sqlite3.Connection], T]
    future: Result[T]
    name: str | None


class RemovalJob(Job[T]):
    """A job that may use the disk space that is kept in reserve, because it frees some."""


class Waiting(Protocol):
    """A call that waits for its answer."""

    @property
    def name(self) -> str | None: ...

    @property
    def future(self) -> Result[Any]: ...


class ConnectionThread(abc.ABC):
    """A daemon thread with a connection of its own, which it opens, uses and closes.

    It opens the file anew if another one is at the path.

    Args:
        path: The database, as an absolute path.
        connect: Opens a connection to an existing file.
        loop: Where the calls wait.

    Attributes:
        file: The files that the connection has open.
        connection: The connection, unless it cannot be opened.
        working: Held while the thread may be inside SQLite.
        doorbells: Those of the processes that wait for commits to the file.
        lost_records: Whether the file that is open is another one than at the beginning.
        opened: Resolved when the thread has a connection, or has failed to open one.
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
        self._refusal: StreamqError | None = None
        self._checked_at = -math.inf
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(
            target=self._main, name=f"streamq-sqlite-{self.role}", daemon=True
        )
        self._thread.start()

    def _main(self) -> None:
        reason: StreamqError = closed_error(BACKEND)
        try:
            with self.working, sqlite_errors(self.file.given):
                try:
                    self._open_if_there_is_room()
                    self._deliver((self.opened, None, None))
                    self._serve()
                finally:
                    self._disconnect()
        except StreamqError as exc:
            reason = exc
        self._refusal = reason  # later calls look at it after they have submitted their job
        left = [refused(job, reason) for job in self._end()]
        self._deliver((self.opened, None, reason), *left, (self.ended, None, None))

    def _open_if_there_is_room(self) -> None:
        with contextlib.suppress(StorageFullError):
            self._connected()

    @contextlib.contextmanager
    def _resting(self) -> Iterator[None]:
        """Wait in the context, outside of SQLite: this process may be forked meanwhile."""
        self.working.release()
        try:
            yield
        finally:
            self.working.acquire()

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
        if self.doorbells is not None:
            self.doorbells.close()
        if connection is not None:
            if change is None:
                with contextlib.suppress(StreamqError):
                    change = self.file.change()
            close(connection, change)

    def submit(self, job: Waiting) -> None:
        """Let the thread answer a call; for the event loop."""
        self._put(job)
        self._refuse_if_ended(job)

    def _refuse_if_ended(self, job: Waiting) -> None:
        """Answer a call that the thread may not have seen any more."""
        if self._refusal is not None:
            _resolve([refused(job, self._refusal)])

    def _deliver(self, *answers: Answer) -> None:
        if answers:
            # The loop may have been closed, and all its tasks with it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, answers)

    @abc.abstractmethod
    def _put(self, call: Any) -> None:
        """Hand a call to the thread."""

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
    def _end(self) -> Sequence[Waiting]:
        """Release what the thread has made; return the calls that still wait."""


def refused(call: Waiting, error: StreamqError) -> Answer:
    """Return an error, which several calls may share, as the answer of one of them."""
    return call.future, None, for_stream(error, call.name)


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


def _resolve(answers: Iterable[Answer]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
