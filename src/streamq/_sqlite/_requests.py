"""The SQL statements of the driver: one function each, blocking, for the driver's own threads.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

from streamq.driver import (
    BEFORE_ALL,
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
from ._removal import bury
from ._schema import now_ms, transaction

_PAGE = 500  # streams

_FIND = "SELECT id FROM streams WHERE tenant = ? AND name = ? AND expires_ms > ?"

Key: TypeAlias = tuple[int, int]
"""Epoch and index of a record."""


def append(
    connection: sqlite3.Connection, stream: StreamId, entries: Sequence[Entry], ttl: timedelta
) -> None:
    """Store the entries that are new, within a write transaction.

    Raises:
        FencedError: A newer epoch has been opened; nothing was written.
    """
    if not entries:
        return
    now = now_ms()
    row = connection.execute(
        f"SELECT id, epoch, idx FROM streams WHERE id = ({_FIND})",
        (stream.tenant, stream.name, now),
    ).fetchone()
    newest: Key = BEFORE_ALL if row is None else row[1:]
    fresh = new_entries(entries, newest, backend=BACKEND, stream=stream)
    if fresh:
        newest = (fresh[-1].epoch, fresh[-1].index)
    key = _begin(connection, stream) if row is None else row[0]
    connection.execute(
        "UPDATE streams SET epoch = ?, idx = ?, records = records + ?,"
        " size_bytes = size_bytes + ?, expires_ms = ? WHERE id = ?",
        (
            *newest,
            len(fresh),
            sum(len(entry.data) for entry in fresh),
            now + int(ttl.total_seconds() * 1000),
            key,
        ),
    )
    connection.executemany(
        "INSERT INTO records (stream, epoch, idx, data) VALUES (?, ?, ?, ?)",
        ((key, entry.epoch, entry.index, entry.data) for entry in fresh),
    )


def _begin(connection: sqlite3.Connection, stream: StreamId) -> int | None:
    """Create a stream in the place of one that has expired, if there is one; return its key."""
    bury(connection, stream)
    cursor = connection.execute(
        "INSERT INTO streams (tenant, name, epoch, idx, records, size_bytes, expires_ms)"
        " VALUES (?, ?, 0, 0, 0, 0, 0)",
        (stream.tenant, stream.name),
    )
    return cursor.lastrowid


def select(
    connection: sqlite3.Connection, stream: StreamId, after: Key, max_records: int, max_bytes: int
) -> list[Stored]:
    """Return the records after a key, within the bounds of a read."""
    # Closing ends the read transaction, during which SQLite cannot reuse its log.
    with contextlib.closing(
        connection.execute(
            f"SELECT epoch, idx, data FROM records WHERE stream = ({_FIND})"
            " AND (epoch, idx) > (?, ?) ORDER BY epoch, idx",
            (stream.tenant, stream.name, now_ms(), *after),
        )
    ) as cursor:
        rows = (Stored(encode_position((epoch, index)), data) for epoch, index, data in cursor)
        return within_bounds(rows, max_records, max_bytes)


def describe(connection: sqlite3.Connection, stream: StreamId, last: int) -> StreamInfo:
    """Return what is known of a stream, all of it as of one moment.

    Raises:
        StreamNotFoundError: It does not exist, or has expired.
    """
    now = now_ms()
    with transaction(connection, "BEGIN"):
        row = connection.execute(
            f"SELECT id, records, size_bytes, expires_ms FROM streams WHERE id = ({_FIND})",
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
    connection: sqlite3.Connection, tenant: str, prefix: str, after: bytes
) -> tuple[list[StreamInfo], bytes | None]:
    """Return a page of streams in order of name, from the one after ``after``.

    Returns:
        The streams, and where the next page continues; ``None`` after the last one.
    """
    now, start = now_ms(), prefix.encode()
    # Names are compared by their UTF-8 bytes, so that names with the prefix follow each other.
    # As bytes, because Python's module fails at text that is not UTF-8.
    rows = connection.execute(
        "SELECT CAST(name AS BLOB), records, size_bytes, expires_ms FROM streams"
        " WHERE tenant = ? AND name >= ? AND name > CAST(? AS TEXT) AND typeof(name) = 'text'"
        " AND expires_ms > ? ORDER BY name",
        (tenant, prefix, after, now),
    ).fetchmany(_PAGE)
    found: list[StreamInfo] = []
    for name, records, size, expires in rows:
        if not name.startswith(start):
            return found, None
        stream = _stored(tenant, name)
        if stream is not None:
            left = timedelta(milliseconds=expires - now)
            found.append(StreamInfo(stream, (), records, size, left))
    return found, rows[-1][0] if len(rows) == _PAGE else None


def newest_record(connection: sqlite3.Connection) -> int:
    """Return the id of the newest record that was ever stored."""
    (newest,) = connection.execute(
        "SELECT total(seq) FROM sqlite_sequence WHERE name = 'records'"
    ).fetchone()
    return int(newest)


def changed_since(connection: sqlite3.Connection, record: int) -> list[StreamId]:
    """Return the streams with records after the given one."""
    rows = connection.execute(
        # NOT INDEXED: find records by id, instead of walking the whole index of all streams.
        "SELECT DISTINCT CAST(s.tenant AS BLOB), CAST(s.name AS BLOB)"
        " FROM records AS r NOT INDEXED"
        " CROSS JOIN streams AS s ON s.id = r.stream WHERE r.id > ?",
        (record,),
    )
    found = [_stored(tenant, name) for tenant, name in rows]
    return [stream for stream in found if stream is not None]


def _stored(tenant: str | bytes, name: bytes) -> StreamId | None:
    return stored_stream(
        tenant,
        name,
        backend=BACKEND,
        place=lambda: f"table streams, name {name.decode(errors='backslashreplace')}",
    )
