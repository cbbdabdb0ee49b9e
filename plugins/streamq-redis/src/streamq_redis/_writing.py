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

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta

import redis.exceptions as rx

from streamq.driver import BackendUnavailableError, Entry, StreamAppend, StreamId, fenced_error

from ._errors import BACKEND, is_rejected_id
from ._naming import KeySpace
from .requests._commands import (
    Command,
    Reply,
    add_all,
    add_if_exists,
    checked,
    executed,
    expire,
    index_name,
    last_id,
    milliseconds,
    parse_last_id,
)
from .requests._connection import Connection
from .requests._connection_group import SharedConnection

_REMEMBERED_STREAMS = 10_000
# The hosts of writers note and drop names by their own clocks, which may differ by this much.
_NAMES_OUTLIVE_SECONDS = 86_400


def lag_of(ttl: timedelta) -> timedelta:
    """Return how much longer the time to live is set than asked for, and how seldom."""
    return min(ttl / 8, timedelta(seconds=30))


def rejected(entries: Sequence[Entry], replies: Sequence[Reply]) -> list[Entry]:
    """Return the entries whose ids were too small.

    Raises:
        redis.exceptions.RedisError: Something else was refused, such as a key of another type.
    """
    for reply in replies:
        if not is_rejected_id(reply):
            checked(reply)
    pairs = zip(entries, replies, strict=False)
    return [entry for entry, reply in pairs if is_rejected_id(reply)]


class Appender:
    """Appends for all streams of one queue.

    Args:
        connection: The connection for appends.
        keys: Names of keys.
        ttl: Time to live of a stream after its last append.

    Attributes:
        lag: Longest time by which a stream may live longer than asked for.
    """

    def __init__(self, connection: SharedConnection, keys: KeySpace, ttl: timedelta) -> None:
        self._connection = connection
        self._keys = keys
        # The time to live is renewed now and then, and set longer by that lag: never too short.
        self.lag = lag_of(ttl)
        self._ttl_ms = milliseconds(ttl + self.lag)
        self._due: OrderedDict[bytes, float] = OrderedDict()

    async def append(
        self, stream: StreamId, key: bytes, entries: Sequence[Entry], ttl: timedelta | None = None
    ) -> None:
        """Store entries; as :meth:`streamq.driver.ChunkQueue.append`, with the client's errors."""
        if not entries:
            return
        connection = await self._connection.writable()
        if self._will_bare_add_do(key, entries, ttl):
            (reply,) = await connection.call(add_if_exists(key, entries[0]))
            if reply is not None:
                await self._settle(connection, stream, key, entries, [reply])
                return
        asked = time.monotonic()  # the server sets the time to live after this, never before
        replies = await connection.call(
            *add_all(key, entries, self._ttl_ms, *self._naming(stream, ttl))
        )
        done = executed(replies)
        self._remember(key, asked)
        await self._settle(connection, stream, key, entries, done)
        if ttl is not None:
            # Not inside the transaction: a stale writer, which is refused there, must not shorten
            # the life of a stream that goes on.
            checked(*await connection.call(expire(key, milliseconds(ttl))))
            self._due.pop(key, None)  # an append without a time of its own sets the usual one

    async def append_many(
        self, appends: Sequence[tuple[bytes, StreamAppend]]
    ) -> list[Exception | None]:
        """Make appends of several streams, given with their keys; return the error of each.

        Those for which a bare ``XADD`` will do share one request, since each of them stands for
        itself. All others, and those that the server does not accept at once, are appended alone.
        """
        outcomes: list[Exception | None] = [None] * len(appends)
        connection = await self._connection.writable()
        bare: list[int] = []
        others: list[int] = []
        for at, (key, each) in enumerate(appends):
            will_do = self._will_bare_add_do(key, each.entries, each.ttl)
            (bare if will_do else others).append(at)

        async def append_alone(at: int) -> None:
            key, each = appends[at]
            try:
                await self.append(each.stream, key, each.entries, each.ttl)
            except Exception as exc:  # noqa: BLE001 - returned
                outcomes[at] = exc

        async def append_bare() -> None:
            commands = [
                add_if_exists(key, each.entries[0]) for key, each in map(appends.__getitem__, bare)
            ]
            again: list[int] = []
            for at, reply in zip(bare, await connection.call(*commands), strict=True):
                if reply is None or is_rejected_id(reply):
                    again.append(at)
                elif isinstance(reply, rx.RedisError):
                    outcomes[at] = reply
            await asyncio.gather(*map(append_alone, again))

        if bare and not others:
            await append_bare()
        else:
            shared = [append_bare()] if bare else []
            await asyncio.gather(*shared, *map(append_alone, others))
        return outcomes

    def _will_bare_add_do(
        self, key: bytes, entries: Sequence[Entry], ttl: timedelta | None
    ) -> bool:
        """Whether the cheapest request there is does all that an append has to do."""
        if len(entries) != 1 or ttl is not None or entries[0].index == 0:
            return False
        return self._due.get(key, 0.0) > time.monotonic()

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
        refused = rejected(entries, replies)
        if refused:
            # One that is not fenced is a repeat, which was stored before.
            newest = await self._newest_epoch(connection, stream, key)
            if newest > refused[0].epoch:
                raise fenced_error(BACKEND, stream, epoch=refused[0].epoch, newest=newest)

    async def _newest_epoch(self, connection: Connection, stream: StreamId, key: bytes) -> int:
        """Return the epoch of the newest entry that a stream has or had."""
        last = parse_last_id(await connection.call(*last_id(key)))
        if last is None:
            raise BackendUnavailableError(
                f"stream {stream} was deleted during an append; append again",
                backend=BACKEND,
                stream=str(stream),
            )
        return int(last.partition("-")[0])

    def _remember(self, key: bytes, asked: float) -> None:
        self._due[key] = asked + self.lag.total_seconds()
        self._due.move_to_end(key)
        if len(self._due) > _REMEMBERED_STREAMS:
            self._due.popitem(last=False)
