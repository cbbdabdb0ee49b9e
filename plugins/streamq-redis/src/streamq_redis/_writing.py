"""Appends entries: ids that fence, transactions that leave no hole, and a time to live.

The id of an entry is ``epoch-index``. The server accepts only ids above the newest one. One atomic
rule therefore refuses both stale attempts and repeated entries, without a script or a lock.

There are two forms of request. Each takes one round trip:

* *One entry that opens no epoch, time to live known to be set*: a bare ``XADD NOMKSTREAM``, the
  cheapest request there is. The stream may have been deleted or have expired meanwhile. Then the
  server answers nil and stores nothing, and the entry is sent again in the other form. A plain
  ``XADD`` would create the stream without a time to live. An entry that opens an epoch may follow
  an attempt that has shortened the time to live in another process.
* *Everything else*: ``MULTI, XADD..., PEXPIRE, EXEC``. The server refuses a transaction as a whole:
  it checks memory, disk and permissions when commands are queued and again at EXEC. If the
  connection is cut in the middle of the bytes, nothing is stored. Inside EXEC only a prefix of the
  entries can fail: those whose ids are too small. A transaction takes 10 to 20 us longer in each
  round trip than bare commands; for a batch the difference cannot be measured.

If streams are listed by an index, the transaction also notes the name of the stream there.

Two other forms were rejected. In a plain pipeline the server could refuse an entry for lack of
memory and store a later one after memory was freed; nothing could fill that hole. A script needs
permission to run scripts and a way to load them.

The appends of all writers of the process share one connection. Each is sent at once, those of the
same turn of the event loop in one packet, and none waits for the reply of another.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta

import redis.exceptions as rx

from streamq.driver import BackendUnavailableError, Entry, FencedError, StreamId

from ._errors import BACKEND, is_rejected_id
from ._naming import KeySpace
from .requests._commands import (
    Command,
    Reply,
    add_all,
    add_if_exists,
    checked,
    expire,
    index_name,
    last_id,
    milliseconds,
    parse_last_id,
)
from .requests._connection import Connection
from .requests._connection_group import SharedConnection

_LONGEST_LAG_SECONDS = 30.0
_REMEMBERED_STREAMS = 10_000
# The hosts of writers note and drop names by their own clocks, which may differ by this much.
_NAMES_OUTLIVE_SECONDS = 86_400


class Appender:
    """Appends for all streams of one queue.

    Args:
        connection: The connection for appends.
        keys: Names of keys.
        ttl: Time to live of a stream after its last append.
    """

    def __init__(self, connection: SharedConnection, keys: KeySpace, ttl: timedelta) -> None:
        self._connection = connection
        self._keys = keys
        seconds = ttl.total_seconds()
        # The time to live is renewed now and then, and set longer by that lag: never too short.
        self._lag = min(seconds / 8, _LONGEST_LAG_SECONDS)
        self._ttl_ms = milliseconds(ttl + self.lag)
        self._due: OrderedDict[bytes, float] = OrderedDict()

    @property
    def lag(self) -> timedelta:
        """Longest time by which a stream may live longer than asked for."""
        return timedelta(seconds=self._lag)

    def forget(self, key: bytes) -> None:
        """Set the time to live with the next append; for a stream that was deleted."""
        self._due.pop(key, None)

    async def append(
        self, stream: StreamId, key: bytes, entries: Sequence[Entry], ttl: timedelta | None = None
    ) -> None:
        """Store entries; as :meth:`streamq.driver.ChunkQueue.append`, with the client's errors."""
        if not entries:
            return
        connection = self._connection.current or await self._connection.get()
        await connection.writable()
        is_due = ttl is not None or self._due.get(key, 0.0) <= time.monotonic()
        if len(entries) == 1 and not is_due and entries[0].index > 0:
            (reply,) = await connection.call(add_if_exists(key, entries[0]))
            if reply is not None:
                await self._settle(connection, stream, key, entries, [reply])
                return
        asked = time.monotonic()  # the server sets the time to live after this, never before
        replies = await connection.call(
            *add_all(key, entries, self._ttl_ms, *self._naming(stream, ttl))
        )
        done = replies[-1]
        if not isinstance(done, list):
            # EXECABORT only says that a command was refused; that command's own error says why.
            raise next(reply for reply in replies if isinstance(reply, rx.RedisError))
        self._remember(key, asked)
        await self._settle(connection, stream, key, entries, done)
        for reply in done[len(entries) :]:
            checked(reply)
        if ttl is not None:
            # Not inside the transaction: a stale writer, which is refused there, must not shorten
            # the life of a stream that goes on.
            (reply,) = await connection.call(expire(key, milliseconds(ttl)))
            checked(reply)
            self.forget(key)  # the next append without a time of its own sets the usual one

    def _naming(self, stream: StreamId, ttl: timedelta | None) -> list[Command]:
        """Return the commands that note the name of a stream for as long as it may live."""
        if not self._keys.is_indexed:
            return []
        now = int(time.time())
        longest = max(milliseconds(ttl) if ttl is not None else 0, self._ttl_ms) // 1000 + 1
        return index_name(
            self._keys.index(stream.tenant),
            self._keys.member(stream),
            until=now + longest + _NAMES_OUTLIVE_SECONDS,
            now=now,
        )

    async def _settle(
        self,
        connection: Connection,
        stream: StreamId,
        key: bytes,
        entries: Sequence[Entry],
        replies: Sequence[Reply],
    ) -> None:
        """Raise the error of an append whose entries were not all stored."""
        refused = None
        for entry, reply in zip(entries, replies, strict=False):
            if is_rejected_id(reply):
                refused = refused or entry
            elif isinstance(reply, rx.RedisError):
                raise reply
        if refused is not None:
            await self._check_refused(connection, stream, key, refused)

    async def _check_refused(
        self, connection: Connection, stream: StreamId, key: bytes, entry: Entry
    ) -> None:
        """Raise if a refused entry is fenced; one that is repeated was stored before."""
        last = parse_last_id(await connection.call(*last_id(key)))
        if last is None:
            raise BackendUnavailableError(
                f"stream {stream} was deleted during an append; append again",
                backend=BACKEND,
                stream=str(stream),
            )
        epoch = int(last.partition("-")[0])
        if epoch > entry.epoch:
            raise FencedError(
                f"stream {stream} has been taken over: it holds records of epoch {epoch}, this "
                f"writer has {entry.epoch} and must stop",
                backend=BACKEND,
                stream=str(stream),
            )

    def _remember(self, key: bytes, asked: float) -> None:
        self._due[key] = asked + self._lag
        self._due.move_to_end(key)
        if len(self._due) > _REMEMBERED_STREAMS:
            self._due.popitem(last=False)
