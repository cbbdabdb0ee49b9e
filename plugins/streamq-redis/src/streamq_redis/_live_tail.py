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
from dataclasses import dataclass
from functools import partial

import redis.exceptions as rx

from streamq.driver import Stored, Tap, encode_position

from ._errors import is_wrong_type
from .requests._commands import (
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
        tap: Its newest records, and its readers.
        cursor: Position of the newest record that has been read.
    """

    tap: Tap[Id, Stored]
    cursor: str

    def take(self, records: list[Stored]) -> None:
        """Give records of the server to the readers."""
        push = self.tap.push
        for record in records:
            epoch, _, index = record.position.partition("-")
            push((int(epoch), int(index)), record)
        self.cursor = records[-1].position
        self.tap.wake()


@dataclass(slots=True, eq=False)
class _BlockingRead:
    """The read that is under way.

    Attributes:
        followed: What it reads, by key.
        is_interrupted: Whether it is being interrupted.
    """

    followed: dict[bytes, _Followed]
    is_interrupted: bool = False


class ReplySize:
    """Decides how many records of each stream one read asks for, so that its reply stays small.

    It decides how often the server is asked, and nothing else.
    """

    def __init__(self) -> None:
        self._record_bytes = 1_024

    def count(self, streams: int) -> int:
        """Return the count for so many streams: fewer for many streams, or large records."""
        return max(1, min(_ENTRIES_AT_ONCE, _READ_BYTES // (streams * self._record_bytes)))

    def learnt(self, records: list[Stored]) -> list[Stored]:
        """Remember the size of the records of a reply; a smaller size is believed step by step."""
        size = sum(len(each.data) for each in records) // len(records)
        self._record_bytes = max(1, size, self._record_bytes // 2)
        return records


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
        self._read: _BlockingRead | None = None
        self._reply_size = ReplySize()
        self._is_scheduled = False
        self._loop = asyncio.get_running_loop()
        self._next_sweep = self._next_greeting = self._loop.time()

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
        await self._connection.get()
        followed = self._followed.get(key)
        if followed is None:
            tap: Tap[Id, Stored] = Tap(after, max_bytes=self._tail_bytes)
        elif followed.tap.is_at_end(after):
            return followed.tap
        else:
            # The newer records of the tap were deleted, or came just now. Reading them again is
            # right in both cases.
            tap = followed.tap
            tap.restart(after)
        # A new one: the read under way, if there is one, reads for the one before.
        self._followed[key] = _Followed(tap, encode_position(after))
        self._schedule()
        return tap

    # -- inside: the read ----------------------------------------------------------------------

    def _schedule(self) -> None:
        """Look soon what is to be read: after the readers that were just woken have run.

        They often ask for the next stream, and one read follows all of them.
        """
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._read_next)

    def _read_next(self) -> None:
        """Begin the next read, or interrupt the present one because it lacks a stream."""
        self._is_scheduled = False
        connection = self._connection.latest
        assert connection is not None  # what is followed was attached to it
        if self._read is not None:
            self._begin_interrupt(connection, self._read)
        elif self._followed:
            self._read = _BlockingRead({**self._followed})
            self._send(connection, self._read)

    def _send(self, connection: Connection, read: _BlockingRead) -> None:
        """Send a read, and now and then the question for the server's role."""
        followed = read.followed.values()
        block = self._longest_block(connection)
        command = follow(
            [*read.followed],
            [each.cursor for each in followed],
            self._reply_size.count(len(followed)),
            block,
        )
        greeting = [greet()] if self._loop.time() >= self._next_greeting else []
        done = partial(self._on_replies, connection, read)
        connection.submit([*greeting, command], done, connection.patience + block)

    def _on_replies(
        self,
        connection: Connection,
        read: _BlockingRead,
        replies: list[Reply],
        error: Exception | None,
    ) -> None:
        self._drop_idle()
        if error is None and isinstance(replies[-1], rx.RedisError):
            error = replies[-1]
        if error is not None:
            self._on_reply(read, None)
            # What another connection has met is no error of these readers, and one key of another
            # type fails the read of all: each reader asks for its own key.
            is_of_others = connection.was_dropped or is_wrong_type(error)
            self._retire_all(None if is_of_others else error)
            return
        self._on_reply(read, replies[-1])
        self._check_role(connection, replies)

    def _on_reply(self, read: _BlockingRead, reply: Reply) -> None:
        self._read = None
        self._schedule()  # whatever comes: no reader may wait for ever
        for key, entries in reply or ():  # type: ignore[union-attr, misc]
            found: list[Stored] = self._reply_size.learnt(parse_entries(entries))
            followed = read.followed[key]  # type: ignore[index]
            if self._followed.get(key) is followed:  # type: ignore[arg-type]
                followed.take(found)

    def _check_role(self, connection: Connection, replies: list[Reply]) -> None:
        """Leave a primary that has become a replica: its name leads elsewhere now, or will soon."""
        for reply in replies[:-1]:
            self._next_greeting = self._loop.time() + _GREETING_SECONDS
            if is_replica(parse_greeting(checked(reply))) and not connection.server.is_replica:
                self._retire_all(None)
                connection.abort(rx.ReadOnlyError("it has become a replica"))

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

    def _begin_interrupt(self, connection: Connection, read: _BlockingRead) -> None:
        """Interrupt the present read, unless this has begun."""
        if not read.is_interrupted:
            read.is_interrupted = True
            until = self._loop.time() + _UNBLOCK_GIVE_UP_SECONDS
            self._interrupt(connection, read, _UNBLOCK_AGAIN_SECONDS, until)

    def _interrupt(
        self, connection: Connection, read: _BlockingRead, delay: float, until: float
    ) -> None:
        commands = self._commands.current
        if self._read is not read or not connection.is_open or not connection.may_unblock:
            return
        if commands is None:
            # It was lost since the reader used it: the server is most likely gone, too.
            connection.abort(rx.ConnectionError("connection lost"))
            return
        commands.submit(
            [unblock(connection.server.client_id)],
            partial(self._on_unblocked, connection, read, delay, until),
            commands.patience,
        )

    def _on_unblocked(
        self,
        connection: Connection,
        read: _BlockingRead,
        delay: float,
        until: float,
        replies: list[Reply],
        error: Exception | None,
    ) -> None:
        if error is not None:
            connection.abort(rx.ConnectionError("connection lost"))
        elif isinstance(replies[0], rx.RedisError):
            connection.may_unblock = False
        elif replies[0] == 0 and self._read is read:
            if self._loop.time() >= until:
                # The server does not know the read that we wait for: half open.
                connection.abort(rx.ConnectionError("connection lost"))
                return
            slower = min(2 * delay, _UNBLOCK_SLOWEST_SECONDS)
            self._loop.call_later(delay, self._interrupt, connection, read, slower, until)
