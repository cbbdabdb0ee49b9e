"""Follows all streams that the process reads at their end, with one blocking read.

One connection carries ``XREAD BLOCK`` over every stream that is followed. When a stream is added,
``CLIENT UNBLOCK`` from another connection interrupts that read, and a read with the new stream
follows. The interruption may reach the server before the read does, and then has no effect. It is
therefore repeated until the read has returned. Without permission to interrupt, each read blocks
for a short time only. Everything happens in callbacks of the connection: there is no further task
that could fail unnoticed.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import redis.exceptions as rx

from streamq.driver import Stored, Tap, closed_error, encode_position

from ._errors import BACKEND, is_wrong_type
from .requests._commands import (
    Command,
    Id,
    Reply,
    checked,
    follow,
    greet,
    is_replica,
    parse_entries,
    parse_greeting,
    unblock,
)
from .requests._connection import Connection
from .requests._connection_group import SharedConnection

_ENTRIES_AT_ONCE = 16  # at most, of each stream
_LINGER_SECONDS = 3.0
_SHORT_BLOCK_SECONDS = 0.1
_UNBLOCK_AGAIN_SECONDS, _UNBLOCK_SLOWEST_SECONDS = 0.001, 0.05
_UNBLOCK_GIVE_UP_SECONDS = 1.0
_READ_BYTES = 1_048_576
_GREETING_SECONDS = 1.0  # at least, between two questions for the server's role


@dataclass(slots=True, eq=False)
class _Followed:
    """A stream that is followed.

    Attributes:
        key: Its key.
        tap: Its newest records, and its readers.
        cursor: Position of the newest record that has been read.
        valid_from: Number of the first read whose records belong into the tap.
    """

    key: bytes
    tap: Tap[Id, Stored]
    cursor: str
    valid_from: int = 0

    def restart(self, after: Id) -> None:
        """Drop all records and go on from an id."""
        self.tap.restart(after)
        self.cursor = encode_position(after)

    def take(self, records: list[Stored]) -> None:
        """Give records of the server to the readers."""
        push = self.tap.push
        for record in records:
            epoch, _, index = record.position.partition("-")
            push((int(epoch), int(index)), record)
        self.cursor = records[-1].position
        self.tap.wake()


class ReplySize:
    """Decides how many records of each stream one read asks for, so that its reply stays small.

    It decides how often the server is asked, and nothing else.
    """

    def __init__(self) -> None:
        self._record_bytes = 1_024

    def count(self, streams: int) -> int:
        """Return the count for so many streams: fewer for many streams, or large records."""
        return max(1, min(_ENTRIES_AT_ONCE, _READ_BYTES // (streams * self._record_bytes)))

    def learn(self, records: Sequence[Stored]) -> None:
        """Remember the size of the records of a reply; a smaller size is believed step by step."""
        if records:
            size = sum(len(each.data) for each in records) // len(records)
            self._record_bytes = max(1, size, self._record_bytes // 2)


class LiveTail:
    """Fills the taps of all followed streams from one blocking connection.

    Args:
        connection: The connection for blocking reads.
        commands: Another connection, for interrupting them.
        tail_bytes: Bytes that each tap keeps.
        block_seconds: Longest single block, after which a dead connection is noticed.
    """

    def __init__(
        self,
        connection: SharedConnection,
        commands: SharedConnection,
        *,
        tail_bytes: int,
        block_seconds: float,
    ) -> None:
        self._connection = connection
        self._commands = commands
        self._tail_bytes = tail_bytes
        self._block_seconds = block_seconds
        self._followed: dict[bytes, _Followed] = {}
        self._issued = 0
        self._interrupting = 0
        self._reply_size = ReplySize()
        self._is_reading = False
        self._is_scheduled = False
        self._is_closed = False
        self._next_sweep = 0.0
        self._next_greeting = 0.0
        self._loop = asyncio.get_running_loop()

    def tap(self, key: bytes, place: Id) -> Tap[Id, Stored] | None:
        """Return the tap of a stream, if a reader at this place can wait there."""
        followed = self._followed.get(key)
        return followed.tap if followed is not None and followed.tap.is_at_end(place) else None

    async def attach(self, key: bytes, after: Id) -> Tap[Id, Stored]:
        """Follow a stream from an id after which the server has just reported no records.

        Raises:
            redis.exceptions.RedisError: Connecting has failed.
            OSError: Connecting has failed.
        """
        if self._connection.current is None:
            await self._connection.get()
        if self._is_closed:
            raise closed_error(BACKEND)
        followed = self._followed.get(key)
        if followed is None:
            tap: Tap[Id, Stored] = Tap(after, max_bytes=self._tail_bytes)
            followed = _Followed(key, tap, encode_position(after))
            self._followed[key] = followed
        elif followed.tap.last > after:
            # The newer records of the tap were deleted, or came just now. Reading them again is
            # right in both cases.
            followed.restart(after)
        else:
            return followed.tap
        followed.tap.used = self._loop.time()
        followed.valid_from = self._issued + 1
        self._schedule()
        return followed.tap

    def drop(self, key: bytes) -> None:
        """Stop following a stream that was deleted; its readers find their place again."""
        followed = self._followed.pop(key, None)
        if followed is not None:
            followed.tap.retire()

    def close(self) -> None:
        """Raise ``ClosedError`` to all readers, and follow nothing more."""
        self._is_closed = True
        self._retire_all(closed_error(BACKEND))

    # -- inside: the read ----------------------------------------------------------------------

    def _schedule(self) -> None:
        # After the readers that were just woken have run: they often ask for the next stream.
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._read_next)

    def _read_next(self) -> None:
        """Begin the next read, or interrupt the present one because it lacks a stream."""
        self._is_scheduled = False
        if self._is_closed or not self._followed:
            return
        connection = self._connection.current
        if self._is_reading:
            self._begin_interrupt(connection)
            return
        if connection is None:
            lost = rx.ConnectionError("connection lost")
            self._retire_all(_blamed(lost, was_dropped=self._connection.was_dropped))
            return
        block = self._longest_block(connection)
        followed = self._followed.values()
        count = self._reply_size.count(len(followed))
        command = follow(
            [each.key for each in followed], [each.cursor for each in followed], count, block
        )
        self._issued += 1
        self._is_reading = True
        done = partial(self._on_reply, connection, self._issued)
        connection.submit([*self._greeting(), command], done, extra=block)

    def _on_reply(
        self, connection: Connection, number: int, replies: list[Reply], error: Exception | None
    ) -> None:
        self._is_reading = False
        try:
            if error is not None:
                self._retire_all(_blamed(error, was_dropped=connection.was_dropped))
            else:
                self._take(number, replies[-1])
                self._check_role(connection, replies[:-1])
        except Exception as exc:  # noqa: BLE001 - no reader may wait for ever
            self._retire_all(rx.InvalidResponse(f"XREAD: {type(exc).__name__}: {exc}"))
        self._drop_idle()
        if self._followed:
            self._schedule()

    def _greeting(self) -> list[Command]:
        """Return the command that asks for the server's role, if it is time."""
        return [greet()] if self._loop.time() >= self._next_greeting else []

    def _check_role(self, connection: Connection, replies: list[Reply]) -> None:
        """Leave a primary that has become a replica: its name leads elsewhere now, or will soon."""
        for reply in replies:
            self._next_greeting = self._loop.time() + _GREETING_SECONDS
            if is_replica(parse_greeting(checked(reply))) and not connection.server.is_replica:
                self._retire_all(None)
                connection.abort(rx.ReadOnlyError("it has become a replica"))

    def _take(self, number: int, reply: Reply) -> None:
        if isinstance(reply, rx.RedisError):
            # One key of another type fails the read of all: each reader asks for its own key.
            self._retire_all(None if is_wrong_type(reply) else reply)
        elif isinstance(reply, list):
            for key, entries in reply:  # type: ignore[misc]
                found: list[Stored] = parse_entries(entries)
                self._reply_size.learn(found)
                followed = self._followed.get(key)  # type: ignore[arg-type]
                if followed is not None and followed.valid_from <= number:
                    followed.take(found)

    def _drop_idle(self) -> None:
        now = self._loop.time()
        if now < self._next_sweep:
            return
        self._next_sweep = now + 1.0
        idle = [
            key
            for key, followed in self._followed.items()
            if followed.tap.is_idle(now, _LINGER_SECONDS)
        ]
        for key in idle:
            self._followed.pop(key).tap.retire()

    def _retire_all(self, error: Exception | None) -> None:
        retired, self._followed = self._followed, {}
        for followed in retired.values():
            followed.tap.retire(error)

    # -- inside: interrupting it ---------------------------------------------------------------

    def _longest_block(self, connection: Connection) -> float:
        return self._block_seconds if connection.may_unblock else _SHORT_BLOCK_SECONDS

    def _begin_interrupt(self, connection: Connection | None) -> None:
        """Interrupt the present read, unless this has begun."""
        if connection is not None and self._interrupting != self._issued:
            self._interrupting = self._issued
            until = self._loop.time() + _UNBLOCK_GIVE_UP_SECONDS
            self._interrupt(connection, self._issued, _UNBLOCK_AGAIN_SECONDS, until)

    def _interrupt(self, connection: Connection, number: int, delay: float, until: float) -> None:
        if not self._is_reading or number != self._issued:
            return
        commands = self._commands.current
        if not connection.is_open or not connection.may_unblock:
            return
        if commands is None:
            # It was lost since the reader used it: the server is most likely gone, too.
            connection.abort(rx.ConnectionError("connection lost"))
            return
        commands.submit(
            [unblock(connection.server.client_id)],
            partial(self._on_unblocked, connection, number, delay, until),
        )

    def _on_unblocked(
        self,
        connection: Connection,
        number: int,
        delay: float,
        until: float,
        replies: list[Reply],
        error: Exception | None,
    ) -> None:
        if error is not None:
            connection.abort(rx.ConnectionError("connection lost"))
        elif isinstance(replies[0], rx.RedisError):
            connection.may_unblock = False
        elif replies[0] == 0 and self._is_reading and number == self._issued:
            if self._loop.time() >= until:
                # The server does not know the read that we wait for: half open.
                connection.abort(rx.ConnectionError("connection lost"))
                return
            slower = min(2 * delay, _UNBLOCK_SLOWEST_SECONDS)
            self._loop.call_later(delay, self._interrupt, connection, number, slower, until)


def _blamed(error: Exception, *, was_dropped: bool) -> Exception | None:
    """Return the error for the readers of a connection that is lost.

    An error that another connection has met is not raised to them: they ask their server again.
    """
    return None if was_dropped else error
