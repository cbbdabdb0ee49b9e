"""Registers the connections of this process: all of one file close before one opens it anew.

SQLite keeps one state for each file and process, which a connection to a file that has lost its
log would share with new ones. It does not survive a fork either: a child closes what it inherits.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import threading
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakSet

from streamq.driver import BackendError, BackendUnavailableError

from ._errors import BACKEND
from ._file import Change, DatabaseFile

_FORK_SECONDS = 6.0


class Holder(Protocol):
    """A thread that keeps a connection."""

    file: DatabaseFile
    connection: sqlite3.Connection | None
    working: threading.Lock
    """Held while the thread may be inside SQLite."""

    def nudge(self) -> None:
        """Let the thread compare its file with the path soon."""


class OpenFiles:
    """The connections of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: WeakSet[Holder] = WeakSet()
        self._held: list[threading.Lock] = []
        self._is_spoilt = False

    @contextlib.contextmanager
    def opening(self, holder: Holder) -> Iterator[None]:
        """Open a connection in the context, alone, unless another one still has a removed log.

        Raises:
            BackendUnavailableError: Another connection has yet to notice; it has been woken.
            BackendError: This process must not open a database any more.
        """
        with self._lock:
            if self._is_spoilt:
                raise BackendError(
                    "this process was forked while its parent was inside SQLite, which cannot be "
                    "used here; start processes with the method 'spawn', or before any queue is "
                    "opened",
                    backend=BACKEND,
                )
            for other in self._others(holder):
                if other.file.shares_database(holder.file) and other.file.change() is not None:
                    other.nudge()
                    raise BackendUnavailableError(
                        f"{holder.file.given}: another connection of this process has yet to close "
                        "the files that were removed",
                        backend=BACKEND,
                    )
            self._holders.add(holder)
            yield

    def nudge_others(self, holder: Holder) -> None:
        """Let all other connections look, because this one has noticed a change."""
        with self._lock:
            for other in self._others(holder):
                other.nudge()

    def _others(self, holder: Holder) -> list[Holder]:
        return [
            other for other in self._holders if other is not holder and other.connection is not None
        ]

    def before_fork(self) -> None:
        """Wait until no thread is inside SQLite, whose locks the child could never release."""
        for holder in list(self._holders):
            if holder.working.acquire(timeout=_FORK_SECONDS):
                self._held.append(holder.working)
            else:
                self._is_spoilt = True

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        self._is_spoilt = False
        while self._held:
            self._held.pop().release()

    def after_fork_in_child(self) -> None:
        """Close the inherited connections, so that the child can open the files itself.

        The parent has them open, too, and its locks keep SQLite from removing the log here.
        """
        for holder in list(self._holders):
            connection, holder.connection = holder.connection, None
            if connection is not None:
                if self._is_spoilt:
                    keep_open(connection)
                else:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
        # Locks may be held by threads that do not exist here.
        self._lock, self._holders, self._held = threading.Lock(), WeakSet(), []


def close(connection: sqlite3.Connection, change: Change | None) -> None:
    """Close a connection, in the way that suits what has happened to its files."""
    if change is Change.LOG_REPLACED:
        keep_open(connection)
    else:
        connection.close()


def keep_open(connection: sqlite3.Connection) -> None:
    """Never close a connection, not at the end of the process either.

    Closing the last one merges its log into the database and removes the file with the log's name,
    which may belong to another process.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


open_files = OpenFiles()
os.register_at_fork(
    before=open_files.before_fork,
    after_in_parent=open_files.after_fork_in_parent,
    after_in_child=open_files.after_fork_in_child,
)
