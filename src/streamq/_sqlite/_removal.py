"""Removes streams in steps: a stream is buried first, then its records go a few at a time.

A buried stream can no longer be read, listed or written to. Whoever removes it may be killed
at any moment: another process goes on.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice

from streamq.driver import StreamId

from ._schema import now_ms

_STREAMS = 100
_RECORDS = 1_000
_BYTES = 1_048_576


def bury(connection: sqlite3.Connection, stream: StreamId) -> int | None:
    """Hide a stream for good, within a write transaction; return its key if there was one."""
    row = connection.execute(
        "SELECT id FROM streams WHERE tenant = ? AND name = ?", (stream.tenant, stream.name)
    ).fetchone()
    if row is None:
        return None
    (key,) = row
    _bury(connection, key)
    return int(key)


def has_expired(connection: sqlite3.Connection) -> bool:
    """Whether :func:`sweep` would remove anything."""
    return bool(_buried(connection, 1) or _expired(connection, 1))


def sweep(connection: sqlite3.Connection) -> int:
    """Take one step of removing what has expired, within a write transaction.

    Returns:
        How many streams are completely gone now.
    """
    for (key,) in _expired(connection, _STREAMS):
        _bury(connection, key)
    return _erase(connection, [key for (key,) in _buried(connection, _STREAMS)])


def erase_step(connection: sqlite3.Connection, key: int | None) -> bool:
    """Take one step of removing one buried stream, within a write transaction.

    Returns:
        Whether something may be left of it.
    """
    _erase(connection, [key])
    left = connection.execute("SELECT 1 FROM buried WHERE stream = ?", (key,)).fetchone()
    return left is not None


def _expired(connection: sqlite3.Connection, most: int) -> list[tuple[int]]:
    sql = "SELECT id FROM streams WHERE expires_ms <= ?"
    return connection.execute(sql, (now_ms(),)).fetchmany(most)


def _buried(connection: sqlite3.Connection, most: int) -> list[tuple[int]]:
    return connection.execute("SELECT stream FROM buried").fetchmany(most)


def _bury(connection: sqlite3.Connection, key: int) -> None:
    connection.execute("INSERT INTO buried SELECT id FROM streams WHERE id = ?", (key,))
    connection.execute("DELETE FROM streams WHERE id = ?", (key,))


def _erase(connection: sqlite3.Connection, keys: list[int | None]) -> int:
    """Remove records of buried streams, and the streams that have none left; return their number.

    Of limited size: those who write to the file wait for it.
    """
    marks = ", ".join("?" * len(keys))
    # length() of a blob reads no more than the first page of the record.
    records = connection.execute(
        f"SELECT id, length(data) FROM records WHERE stream IN ({marks})", keys
    )
    connection.executemany("DELETE FROM records WHERE id = ?", list(_in_one_step(records)))
    gone = connection.execute(
        f"DELETE FROM buried WHERE stream IN ({marks})"
        " AND NOT EXISTS (SELECT 1 FROM records WHERE records.stream = buried.stream)",
        keys,
    )
    return gone.rowcount


def _in_one_step(records: Iterable[tuple[int, int]]) -> Iterator[tuple[int]]:
    """Yield the keys of the first records, as many as one transaction removes."""
    room = _BYTES
    for key, size in islice(records, _RECORDS):
        if room < _BYTES and size > room:
            return
        room -= size
        yield (key,)
