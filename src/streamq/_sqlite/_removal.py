"""Removes streams in steps: a stream is buried first, then its records go a few at a time.

A buried stream can no longer be read, listed or written to. Whoever removes it may be killed
at any moment: another process goes on.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from streamq.driver import StreamId

from ._schema import now_ms

_STREAMS = 100
_RECORDS = 1_000
_BYTES = 2**20


def bury(connection: sqlite3.Connection, stream: StreamId) -> int | None:
    """Hide a stream for good, within a write transaction; return its key if there was one."""
    row = connection.execute(
        "SELECT id FROM streams WHERE tenant = ? AND name = ?", (stream.tenant, stream.name)
    ).fetchone()
    if row is None:
        return None
    bury_keys(connection, [row[0]])
    return int(row[0])


def bury_keys(connection: sqlite3.Connection, keys: Collection[int]) -> None:
    """Hide streams for good, within a write transaction."""
    rows = [(key,) for key in keys]
    connection.executemany("INSERT INTO buried (stream) VALUES (?)", rows)
    connection.executemany("DELETE FROM streams WHERE id = ?", rows)


def is_buried(connection: sqlite3.Connection, key: int) -> bool:
    """Whether records of a buried stream may be left."""
    row = connection.execute("SELECT 1 FROM buried WHERE stream = ?", (key,)).fetchone()
    return row is not None


def has_expired(connection: sqlite3.Connection) -> bool:
    """Whether :func:`sweep` would remove anything."""
    (work,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM buried)"
        " OR EXISTS (SELECT 1 FROM streams WHERE expires_ms <= ?)",
        (now_ms(),),
    ).fetchone()
    return bool(work)


def sweep(connection: sqlite3.Connection, only: int | None = None) -> int:
    """Take one step, of limited size, within a write transaction.

    Args:
        connection: To the database.
        only: Key of the only stream to remove records of; by default of all that have expired.

    Returns:
        How many streams are completely gone now.
    """
    if only is None:
        expired = connection.execute(
            "SELECT id FROM streams WHERE expires_ms <= ? LIMIT ?", (now_ms(), _STREAMS)
        ).fetchall()
        bury_keys(connection, [key for (key,) in expired])
        rows = connection.execute("SELECT stream FROM buried LIMIT ?", (_STREAMS,)).fetchall()
    else:
        rows = [(only,)]
    room_records, room_bytes, gone = _RECORDS, _BYTES, 0
    for row in rows:
        # length() of a blob reads no more than the first page of the record.
        found = connection.execute(
            "SELECT id, length(data) FROM records WHERE stream = ? LIMIT ?", (*row, room_records)
        ).fetchall()
        removed = 0
        for key, size in found:
            if room_bytes < _BYTES and size > room_bytes:
                break
            connection.execute("DELETE FROM records WHERE id = ?", (key,))
            room_bytes -= size
            removed += 1
        room_records -= removed
        if removed < len(found) or room_records <= 0 or room_bytes <= 0:
            break
        connection.execute("DELETE FROM buried WHERE stream = ?", row)
        gone += 1
    return gone
