"""What the SQLite driver stores and how: schema and SQL, blocking, for the driver's own threads."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from streamq._errors import ConfigurationError, StreamNotFoundError
from streamq._events import StreamId
from streamq._position import Key, encode_position
from streamq.driver import Entry, Stored, StreamInfo, new_entries

from ._errors import BACKEND

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x73747271  # "strq": tells our files from other people's
_WAL_LIMIT_BYTES = 64 * 2**20
_JANITOR_STREAMS = 100
_JANITOR_RECORDS = 1000

# Ids are never used twice (AUTOINCREMENT): the tail relies on it, and so do buried streams.
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


def connect(path: Path, *, synchronous: str, busy_seconds: float) -> sqlite3.Connection:
    """Open the database, creating it if need be.

    Raises:
        ConfigurationError: The file belongs to something else, to a newer streamq, or is on a file
            system without shared memory.
        sqlite3.Error: Anything else.
    """
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    try:
        with transaction(connection, "BEGIN"):  # one look at one moment: others may be creating it
            exists = _is_current(connection, path)
        _use_wal(connection, path, busy_seconds)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        if not exists:
            with transaction(connection):
                if not _is_current(connection, path):  # else another process was first
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


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
    """Tell whether the schema is there; refuse files that are not ours to touch."""
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
    """Commit at the end, or roll back on any exception."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("ROLLBACK")
        raise


def append(
    connection: sqlite3.Connection, stream: StreamId, entries: Sequence[Entry], ttl: timedelta
) -> bool:
    """Store what is new, within a write transaction, and tell whether anything was.

    Raises:
        FencedError: Raised before anything is written.
    """
    if not entries:
        return False
    now = _now_ms()
    row = connection.execute(
        "SELECT id, epoch, idx, expires_ms FROM streams WHERE tenant = ? AND name = ?",
        (stream.tenant, stream.name),
    ).fetchone()
    expired = row is not None and row[3] <= now
    newest: Key = (0, -1) if row is None or expired else (row[1], row[2])
    fresh = new_entries(entries, newest, backend=BACKEND, stream=stream)
    if fresh:
        newest = (fresh[-1].epoch, fresh[-1].index)
    expires_ms = now + int(ttl.total_seconds() * 1000)
    if expired:
        _bury(connection, [row[0]])
        row = None
    if row is None:
        cursor = connection.execute(
            "INSERT INTO streams (tenant, name, epoch, idx, records, size_bytes, expires_ms)"
            " VALUES (?, ?, 0, 0, 0, 0, 0)",
            (stream.tenant, stream.name),
        )
        stream_key = cursor.lastrowid
    else:
        stream_key = row[0]
    connection.execute(
        "UPDATE streams SET epoch = ?, idx = ?, records = records + ?,"
        " size_bytes = size_bytes + ?, expires_ms = ? WHERE id = ?",
        (*newest, len(fresh), sum(len(e.data) for e in fresh), expires_ms, stream_key),
    )
    connection.executemany(
        "INSERT INTO records (stream, epoch, idx, data) VALUES (?, ?, ?, ?)",
        ((stream_key, entry.epoch, entry.index, entry.data) for entry in fresh),
    )
    return bool(fresh)


def delete(connection: sqlite3.Connection, stream: StreamId) -> bool:
    """Remove a stream and its records, within a write transaction; nobody waits for that."""
    row = connection.execute(
        "SELECT id FROM streams WHERE tenant = ? AND name = ?", (stream.tenant, stream.name)
    ).fetchone()
    if row is not None:
        connection.execute("DELETE FROM records WHERE stream = ?", row)
        connection.execute("DELETE FROM streams WHERE id = ?", row)
    return False


def has_expired(connection: sqlite3.Connection) -> bool:
    """Tell whether :func:`sweep` would find something."""
    (work,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM buried)"
        " OR EXISTS (SELECT 1 FROM streams WHERE expires_ms <= ?)",
        (_now_ms(),),
    ).fetchone()
    return bool(work)


def sweep(connection: sqlite3.Connection) -> int:
    """Remove some of what has expired, within a write transaction.

    Returns:
        How many streams are completely gone now.
    """
    expired = connection.execute(
        "SELECT id FROM streams WHERE expires_ms <= ? LIMIT ?", (_now_ms(), _JANITOR_STREAMS)
    ).fetchall()
    _bury(connection, [key for (key,) in expired])
    room, gone = _JANITOR_RECORDS, 0
    for row in connection.execute("SELECT stream FROM buried LIMIT 100").fetchall():
        room -= connection.execute(
            "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE stream = ? LIMIT ?)",
            (*row, room),
        ).rowcount
        if room <= 0:
            break
        connection.execute("DELETE FROM buried WHERE stream = ?", row)
        gone += 1
    return gone


def _bury(connection: sqlite3.Connection, keys: Collection[int]) -> None:
    rows = [(key,) for key in keys]
    connection.executemany("INSERT INTO buried (stream) VALUES (?)", rows)
    connection.executemany("DELETE FROM streams WHERE id = ?", rows)


def select(
    connection: sqlite3.Connection, stream: StreamId, after: Key, max_records: int, max_bytes: int
) -> list[Stored]:
    """Return records after a key, within the bounds but at least one if there is one."""
    cursor = connection.execute(
        "SELECT epoch, idx, data FROM records WHERE stream ="
        " (SELECT id FROM streams WHERE tenant = ? AND name = ? AND expires_ms > ?)"
        " AND (epoch, idx) > (?, ?) ORDER BY epoch, idx LIMIT ?",
        (stream.tenant, stream.name, _now_ms(), *after, max_records),
    )
    found: list[Stored] = []
    size = 0
    for epoch, index, data in cursor:
        size += len(data)
        if found and size > max_bytes:
            break
        found.append(Stored(encode_position((epoch, index)), data))
    cursor.close()  # ends the read transaction, which would keep the log from being recycled
    return found


def describe(connection: sqlite3.Connection, stream: StreamId, last: int) -> StreamInfo:
    """Return what is known of a stream, as of one moment.

    Raises:
        StreamNotFoundError: It does not exist, or has expired.
    """
    now = _now_ms()
    with transaction(connection, "BEGIN"):
        row = connection.execute(
            "SELECT id, records, size_bytes, expires_ms FROM streams"
            " WHERE tenant = ? AND name = ? AND expires_ms > ?",
            (stream.tenant, stream.name, now),
        ).fetchone()
        if row is None:
            raise StreamNotFoundError(
                f"there is no stream {stream}, or it has expired",
                backend=BACKEND,
                stream=str(stream),
            )
        newest = connection.execute(
            "SELECT epoch, idx, data FROM records WHERE stream = ?"
            " ORDER BY epoch DESC, idx DESC LIMIT ?",
            (row[0], last),
        ).fetchall()
    return StreamInfo(
        stream,
        tuple(Stored(encode_position((epoch, index)), data) for epoch, index, data in newest),
        row[1],
        row[2],
        timedelta(milliseconds=row[3] - now),
    )


def list_streams(
    connection: sqlite3.Connection, tenant: str, prefix: str, after: str, limit: int
) -> list[StreamInfo]:
    """Return up to ``limit`` streams in order of name, from the one after ``after``."""
    now = _now_ms()
    # Names are compared by their UTF-8 bytes, so that those with the prefix follow each other.
    rows = connection.execute(
        "SELECT name, records, size_bytes, expires_ms FROM streams"
        " WHERE tenant = ? AND name >= ? AND name > ? AND expires_ms > ? ORDER BY name LIMIT ?",
        (tenant, prefix, after, now, limit),
    ).fetchall()
    return [
        StreamInfo(StreamId(tenant, name), (), records, size, timedelta(milliseconds=expires - now))
        for name, records, size, expires in rows
        if name.startswith(prefix)
    ]


def newest_record(connection: sqlite3.Connection) -> int:
    """Return the id of the newest record that was ever stored."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return 0 if row is None else int(row[0])


def changed_since(connection: sqlite3.Connection, record: int) -> tuple[int, list[StreamId]]:
    """Return the newest record's id, and the streams with records after the given one."""
    rows = connection.execute(
        # NOT INDEXED: by id, or grouping would walk the whole index of all streams.
        "SELECT max(r.id), s.tenant, s.name FROM records AS r NOT INDEXED"
        " LEFT JOIN streams AS s ON s.id = r.stream WHERE r.id > ? GROUP BY r.stream",
        (record,),
    ).fetchall()
    newest = max((row[0] for row in rows), default=record)
    return newest, [StreamId(tenant, name) for _, tenant, name in rows if name is not None]


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that differs whenever another connection has committed in between."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
