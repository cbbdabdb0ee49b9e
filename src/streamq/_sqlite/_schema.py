"""Opens the database, and creates its tables.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamq.driver import ConfigurationError, StorageFullError

from ._errors import BACKEND

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x73747271  # "strq": marks files of streamq
LOG_LIMIT_BYTES = 67_108_864
"""SQLite shortens its log to this size when it begins anew."""

# Ids are never used twice (AUTOINCREMENT): the live tail relies on it, and so do buried streams.
_SCHEMA = """
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,        -- newest record: what fences, and where repeats are found out
    idx INTEGER NOT NULL,
    records INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,   -- Unix time
    UNIQUE (tenant, name)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stream INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (stream, epoch, idx)
);
CREATE TABLE buried (              -- expired streams whose records are still to be removed
    stream INTEGER PRIMARY KEY
);
"""


def now_ms() -> int:
    """Return the wall clock in the unit of the column ``expires_ms``."""
    return time.time_ns() // 1_000_000


def connect(path: Path, *, synchronous: str, busy_seconds: float) -> sqlite3.Connection:
    """Open the database; create it if there is none.

    Raises:
        ConfigurationError: The file belongs to another application or to a newer streamq, or is on
            a file system without shared memory.
        sqlite3.Error: SQLite cannot open it for another reason.
    """
    with contextlib.ExitStack() as on_failure:
        connection = _connection(path, busy_seconds)
        on_failure.callback(connection.close)
        exists = _exists(connection, path)
        _use_wal(connection, path, busy_seconds)
        _tune(connection, synchronous)
        if not exists:
            _create(connection, path)
        on_failure.pop_all()
    return connection


def _exists(connection: sqlite3.Connection, path: Path) -> bool:
    """Look as of one moment: others may be creating it."""
    with transaction(connection, "BEGIN"):
        return _is_current(connection, path)


def _tune(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables, unless another process is first."""
    with transaction(connection):
        if not _is_current(connection, path):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def connect_alone(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """Open the database for a moment of reading, without taking any disk space.

    SQLite's index of its log is in memory then and not in a file, and no other process can have the
    database open.

    Raises:
        ConfigurationError: As for :func:`connect`.
        StorageFullError: There is no database yet.
        sqlite3.Error: Another process has it open, or SQLite cannot open it for another reason.
    """
    connection = _connection(path, busy_seconds)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if not _is_current(connection, path):
            raise StorageFullError(
                f"there is no room for a new database at {path}; free some disk space",
                backend=BACKEND,
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _connection(path: Path, busy_seconds: float) -> sqlite3.Connection:
    # Its thread alone uses it; a child process closes it after a fork, in another thread.
    return sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )


def _use_wal(connection: sqlite3.Connection, path: Path, busy_seconds: float) -> None:
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as exc:
            # SQLite does not honour its own busy timeout for the switch to WAL.
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise ConfigurationError(
            f"{path} is on a file system where SQLite cannot use its write-ahead log (it offers "
            f"{mode!r}); set STREAMQ_SQLITE_PATH to a local disk",
            backend=BACKEND,
        )


def _is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the schema is there; raises for files that are not ours to change."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == _APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"{path} has schema version {version}, this streamq knows {SCHEMA_VERSION}; "
                "upgrade streamq, or set STREAMQ_SQLITE_PATH to another file",
                backend=BACKEND,
            )
        return True
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application or version or tables:
        raise ConfigurationError(
            f"{path} is a SQLite database of another application; set STREAMQ_SQLITE_PATH to "
            "another file",
            backend=BACKEND,
        )
    return False


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commit at the end; roll back on any exception."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise
