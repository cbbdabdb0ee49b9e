"""Follows all streams that the process reads at their end, over one connection.

The connection listens. A notification says which streams have changed, and nothing else; the
records are then read with one statement for all of them. A notification may be lost, or may never
come, as behind a pooler in transaction mode and on a standby. Every stream that is waited for is
therefore read now and then as well.

One task does all of this. It begins with the first stream that is followed, and ends with the last.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from psycopg import sql

from streamq.driver import Stored, StreamId, Tap, closed_error, encode_position

from ._errors import BACKEND
from ._naming import Names, Place, names_of, token
from .requests._connection import Connection, Row
from .requests._connection_group import SharedConnection
from .requests._statements import Statements

_STREAMS_AT_ONCE = 200
_RECORDS_AT_ONCE = 16  # at most, of each stream
_READ_BYTES = 1_048_576
_LINGER_SECONDS = 3.0


@dataclass(slots=True, eq=False)
class Followed:
    """A stream that is followed.

    Attributes:
        stream: Which stream.
        names: Its columns.
        tap: Its newest records, and its readers.
        place: Of the newest record that has been read.
    """

    stream: StreamId
    names: Names
    tap: Tap[Place, Stored]
    place: Place

    def restart(self, after: Place) -> None:
        """Drop all records and go on from a place."""
        self.tap.restart(after)
        self.place = after


class LiveTail:
    """Fills the taps of all followed streams from one connection.

    Args:
        connection: The connection that listens.
        statements: The statements for the schema.
        channel: The channel of notifications.
        tail_bytes: Bytes that each tap keeps.
        poll_seconds: Pause between two polls where notifications come.
        poll_without_listen_seconds: Pause between two polls where they do not.
    """

    def __init__(
        self,
        connection: SharedConnection,
        statements: Statements,
        *,
        channel: str,
        tail_bytes: int,
        poll_seconds: float,
        poll_without_listen_seconds: float,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
        self._tail_bytes = tail_bytes
        self._poll_seconds = poll_seconds
        self._poll_without_listen_seconds = poll_without_listen_seconds
        self._followed: dict[StreamId, Followed] = {}
        self._by_token: dict[str, list[Followed]] = {}
        self._changed: dict[Followed, None] = {}
        self._wake = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._listening: Connection | None = None
        self._record_bytes = 1_024
        self._next_poll = self._next_cleanup = 0.0
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    def tap(self, stream: StreamId, place: Place) -> Tap[Place, Stored] | None:
        """Return the tap of a stream, if a reader at this place can wait there."""
        followed = self._followed.get(stream)
        return followed.tap if followed is not None and followed.tap.is_at_end(place) else None

    async def attach(self, stream: StreamId, after: Place) -> Tap[Place, Stored]:
        """Follow a stream from a place after which the server has just reported no records.

        Raises:
            psycopg.Error: Connecting has failed.
        """
        if self._connection.current is None:
            await self._connection.get()
        if self._is_closed:
            raise closed_error(BACKEND)
        followed = self._followed.get(stream)
        if followed is None:
            tap: Tap[Place, Stored] = Tap(after, max_bytes=self._tail_bytes)
            followed = self._followed[stream] = Followed(stream, names_of(stream), tap, after)
            self._by_token.setdefault(token(stream), []).append(followed)
        elif followed.tap.last > after:
            # The newer records of the tap were deleted, or came just now. Reading them again is
            # right in both cases.
            followed.restart(after)
        followed.tap.used = self._loop.time()
        self._changed[followed] = None  # what came since then has been notified already
        self._wake.set()
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="streamq-postgres-tail")
        return followed.tap

    def drop(self, stream: StreamId) -> None:
        """Stop following a stream that was deleted; its readers find their place again."""
        self._forget(self._followed.get(stream))

    def close(self) -> None:
        """Raise ``ClosedError`` to all readers, and follow nothing more."""
        self._is_closed = True
        self._retire_all(closed_error(BACKEND))
        self._wake.set()

    async def gone(self) -> None:
        """Wait until nothing is followed, after :meth:`close`."""
        if self._following is not None:
            await asyncio.wait({self._following})

    # -- inside --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while self._followed:
            try:
                connection = await self._connection.get()
                if self._listening is not connection:
                    await self._begin(connection)
                if self._changed:
                    await self._read(connection)
                else:
                    self._wake.clear()
                    pause = max(0.0, self._next_poll - self._loop.time())
                    await connection.wait(self._wake, pause, self._on_notification)
                    self._poll(connection)
            except Exception as exc:  # noqa: BLE001 - no reader may wait for ever
                current = self._listening
                # What another connection has learnt is no error of the readers of this one.
                is_quiet = current is not None and current.was_given_up
                self._listening = None
                self._retire_all(None if is_quiet else exc)

    async def _begin(self, connection: Connection) -> None:
        """Listen on a new connection. Whatever came before may have been missed."""
        self._listening = connection
        if self._hears(connection):
            connection.client.add_notify_handler(lambda each: self._on_notification(each.payload))
            await connection.run(self._listen)
        self._changed = dict.fromkeys(self._followed.values())
        self._schedule_poll(connection)

    def _hears(self, connection: Connection) -> bool:
        return not (connection.server.is_pooled or connection.server.is_standby)

    def _on_notification(self, payload: str) -> None:
        for each in payload.split(","):
            if found := self._by_token.get(each):
                self._changed.update(dict.fromkeys(found))
                self._wake.set()

    def _poll(self, connection: Connection) -> None:
        """If it is time, look at every stream that is waited for."""
        now = self._loop.time()
        if now >= self._next_cleanup:
            self._next_cleanup = now + 1.0
            for each in [*self._followed.values()]:
                if each.tap.is_idle(now, _LINGER_SECONDS):
                    self._forget(each)
        if now >= self._next_poll:
            waited_for = (each for each in self._followed.values() if each.tap.is_waited_for)
            self._changed.update(dict.fromkeys(waited_for))
            self._schedule_poll(connection)

    def _schedule_poll(self, connection: Connection) -> None:
        hears = self._hears(connection)
        pause = self._poll_seconds if hears else self._poll_without_listen_seconds
        self._next_poll = self._loop.time() + pause

    async def _read(self, connection: Connection) -> None:
        """Read what some of the changed streams have that their taps have not."""
        reads = [(each, each.place) for each in [*self._changed][:_STREAMS_AT_ONCE]]
        for each, _ in reads:
            del self._changed[each]
        most = _READ_BYTES // (len(reads) * self._record_bytes)
        most = max(1, min(_RECORDS_AT_ONCE, most))
        found: list[list[Row]] = [[] for _ in reads]
        for row in await self._rows(connection, reads, most):
            found[row[0]].append(row)
        for (each, place), rows in zip(reads, found, strict=True):
            if rows and self._followed.get(each.stream) is each:
                if each.place == place:
                    self._push(each, sorted(rows, key=_place_of))
                if each.place != _place_of(rows[-1]) or len(rows) == most:
                    self._changed[each] = None  # there may be more

    async def _rows(
        self, connection: Connection, reads: list[tuple[Followed, Place]], most: int
    ) -> list[Row]:
        if len(reads) == 1:
            ((each, place),) = reads
            return await connection.run(self._statements.follow_one, [*place, most, *each.names])
        values = [
            [*range(len(reads))],
            [each.names[0] for each, _ in reads],
            [each.names[1] for each, _ in reads],
            [place[0] for _, place in reads],
            [place[1] for _, place in reads],
            most,
        ]
        return await connection.run(self._statements.follow, values)

    def _push(self, followed: Followed, rows: list[Row]) -> None:
        size = 0
        for _, epoch, idx, data in rows:
            place = epoch, idx
            followed.tap.push(place, Stored(encode_position(place), data))
            size += len(data)
        followed.place = _place_of(rows[-1])
        followed.tap.wake()
        self._record_bytes = max(1, size // len(rows), self._record_bytes // 2)

    def _forget(self, followed: Followed | None) -> None:
        if followed is not None and self._followed.pop(followed.stream, None) is not None:
            self._changed.pop(followed, None)
            name = token(followed.stream)
            self._by_token[name].remove(followed)
            if not self._by_token[name]:
                del self._by_token[name]
            followed.tap.retire()

    def _retire_all(self, error: Exception | None) -> None:
        retired, self._followed = self._followed, {}
        self._by_token, self._changed = {}, {}
        for followed in retired.values():
            followed.tap.retire(error)


def _place_of(row: Row) -> Place:
    return row[1], row[2]
