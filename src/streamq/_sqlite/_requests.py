"""The SQL statements of the driver: one function each, blocking, for the driver's own threads.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

from streamq.driver import (
    Entry,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    encode_position,
    new_entries,
    stored_stream,
    within_bounds,
)

from ._errors import BACKEND
from ._removal import bury_keys
from ._schema import now_ms, transaction

Key: TypeAlias = tuple[int, int]
"""Epoch and index of a record."""


def append(
    connection: sqlite3.Connection, stream: StreamId, entries: Sequence[Entry], ttl: timedelta
) -> bool:
    """Store the entries that are new, within a write transaction; return whether any was.

    Raises:
        FencedError: A newer epoch has been opened; nothing was written.
    """
    if not entries:
        return False
    now = now_ms()
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
        bury_keys(connection, [row[0]])
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


def select(
    connection: sqlite3.Connection, stream: StreamId, after: Key, max_records: int, max_bytes: int
) -> list[Stored]:
    """Return the records after a key, within the bounds of a read."""
    cursor = connection.execute(
        "SELECT epoch, idx, data FROM records WHERE stream ="
        " (SELECT id FROM streams WHERE tenant = ? AND name = ? AND expires_ms > ?)"
        " AND (epoch, idx) > (?, ?) ORDER BY epoch, idx",
        (stream.tenant, stream.name, now_ms(), *after),
    )
    rows = (Stored(encode_position((epoch, index)), data) for epoch, index, data in cursor)
    found = within_bounds(rows, max_records, max_bytes)
    cursor.close()  # ends the read transaction, during which SQLite cannot reuse its log
    return found


def describe(connection: sqlite3.Connection, stream: StreamId, last: int) -> StreamInfo:
    """Return what is known of a stream, all of it as of one moment.

    Raises:
        StreamNotFoundError: It does not exist, or has expired.
    """
    now = now_ms()
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
    connection: sqlite3.Connection, tenant: str, prefix: str, after: bytes, limit: int
) -> tuple[list[StreamInfo], bytes | None]:
    """Return up to ``limit`` streams in order of name, from the one after ``after``.

    Returns:
        The streams, and where the next page continues; ``None`` after the last one.
    """
    now, start = now_ms(), prefix.encode()
    # Names are compared by their UTF-8 bytes, so that names with the prefix follow each other.
    # As bytes, because Python's module fails at text that is not UTF-8.
    rows = connection.execute(
        "SELECT CAST(name AS BLOB), records, size_bytes, expires_ms FROM streams"
        " WHERE tenant = ? AND name >= ? AND name > CAST(? AS TEXT) AND typeof(name) = 'text'"
        " AND expires_ms > ? ORDER BY name LIMIT ?",
        (tenant, prefix, after, now, limit),
    ).fetchall()
    found: list[StreamInfo] = []
    for name, records, size, expires in rows:
        if not name.startswith(start):
            return found, None
        stream = _stored(tenant, name)
        if stream is not None:
            left = timedelta(milliseconds=expires - now)
            found.append(StreamInfo(stream, (), records, size, left))
    return found, rows[-1][0] if len(rows) == limit else None


def newest_record(connection: sqlite3.Connection) -> int:
    """Return the id of the newest record that was ever stored."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return 0 if row is None else int(row[0])


def changed_since(connection: sqlite3.Connection, record: int) -> tuple[int, list[StreamId]]:
    """Return the newest record's id, and the streams with records after the given one."""
    rows = connection.execute(
        # NOT INDEXED: find records by id; grouping would walk the whole index of all streams.
        "SELECT max(r.id), CAST(s.tenant AS BLOB), CAST(s.name AS BLOB)"
        " FROM records AS r NOT INDEXED"
        " LEFT JOIN streams AS s ON s.id = r.stream WHERE r.id > ? GROUP BY r.stream",
        (record,),
    ).fetchall()
    newest = max((row[0] for row in rows), default=record)
    found = (_stored(tenant, name) for _, tenant, name in rows if name is not None)
    return newest, [stream for stream in found if stream is not None]


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes whenever another connection commits."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _stored(tenant: str | bytes, name: bytes) -> StreamId | None:
    return stored_stream(
        tenant,
        name,
        backend=BACKEND,
        place=lambda: f"table streams, name {name.decode(errors='backslashreplace')}",
    )
