"""Reads what the server stores: records of a stream, and facts about streams.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import Stored, StreamId, StreamInfo, encode_position

from ._naming import Place, end_of_prefix, names_of, stream_of
from .requests._connection import Connection, Row
from .requests._connection_group import SharedConnection
from .requests._statements import Statements

PAGE = 500
"""Streams that are listed with one statement."""

_ABOVE_ALL_NAMES = b"\xff"  # no name in UTF-8 has this byte


class RecordReader:
    """Reads the records of streams.

    Args:
        connection: The connection for requests.
        statements: The statements for the schema.
    """

    def __init__(self, connection: SharedConnection, statements: Statements) -> None:
        self._connection = connection
        self._statements = statements

    async def read(
        self, stream: StreamId, start: Place, max_records: int, max_bytes: int
    ) -> list[Stored]:
        """Return the records after a place, within the bounds of a read.

        Each statement returns what fits into the bounds, of as many rows as the server expects to
        fit. Where the stream's newest records are smaller than the older ones, another one follows.

        Raises:
            psycopg.Error: The server has refused, or cannot be reached.
        """

        async def job(connection: Connection) -> list[Stored]:
            found: list[Stored] = []
            place, room = start, max_bytes
            while True:
                left = max_records - len(found)
                values = [left, room, *place, *names_of(stream), room]
                rows = await connection.run(self._statements.read, values)
                if found and rows and len(rows[0][2]) > room:
                    return found  # the first row comes whatever its size
                found += map(_record, rows)
                room -= sum(len(row[2]) for row in rows)
                is_all = not rows or len(rows) < rows[0][3] or rows[0][3] < rows[0][4]
                if is_all or len(found) >= max_records or room <= 0:
                    return found
                place = rows[-1][:2]

        return await self._connection.run(job)


class StreamLister:
    """Describes and lists streams.

    Args:
        connection: The connection for requests.
        statements: The statements for the schema.
    """

    def __init__(self, connection: SharedConnection, statements: Statements) -> None:
        self._connection = connection
        self._statements = statements

    async def describe(self, stream: StreamId, last: int) -> StreamInfo | None:
        """Return what is known of a stream, with its newest records; ``None`` if there is none."""
        values = [max(0, last), *names_of(stream)]
        rows = await self._connection.run(lambda to: to.run(self._statements.describe, values))
        if not rows:
            return None
        newest = tuple(_record(row[3:]) for row in rows if row[3] is not None)
        return _info(stream, rows[0][:3], newest)

    async def page(
        self, tenant: str, prefix: bytes, after: bytes
    ) -> tuple[list[StreamInfo], bytes | None]:
        """Return the streams of the next page, and the last name of it if there may be more."""
        end = end_of_prefix(prefix) or _ABOVE_ALL_NAMES
        values = [tenant, after, prefix, end, PAGE]
        rows = await self._connection.run(lambda to: to.run(self._statements.list, values))
        found = [
            _info(stream, row[1:])
            for row in rows
            if (stream := stream_of(tenant, row[0])) is not None
        ]
        return found, rows[-1][0] if len(rows) == PAGE else None


def _record(row: Row) -> Stored:
    return Stored(encode_position((row[0], row[1])), row[2])


def _info(stream: StreamId, facts: Sequence[object], newest: tuple[Stored, ...] = ()) -> StreamInfo:
    records, size, seconds = facts
    assert isinstance(records, int)
    assert isinstance(size, int)
    assert isinstance(seconds, float)
    return StreamInfo(
        stream,
        last=newest,
        records=records,
        size_bytes=size,
        expires_in=timedelta(seconds=max(0.0, seconds)),
    )
