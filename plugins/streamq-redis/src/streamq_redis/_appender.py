"""Storing entries: ids that fence, transactions that leave no hole, and a time to live.

An entry's id is ``epoch-index``. The server accepts only ids above the newest one, so a stale
attempt and a repeated entry are refused by the same atomic rule, without a script or a lock.

Two shapes of request, each one round trip, decided by measuring and by these failures:

* *One entry, time to live known to be set*: a bare ``XADD NOMKSTREAM``, the cheapest there is.
  ``NOMKSTREAM`` because a stream that was deleted or has expired meanwhile would otherwise be
  created without a time to live; the server answers nil and the other shape is used.
* *Everything else*: ``MULTI, XADD..., PEXPIRE, EXEC``. In a plain pipeline an entry in the middle
  could be refused for want of memory and a later one be stored after memory was freed: a hole that
  nothing could fill. A transaction is refused as a whole (the server checks memory, disk and
  permissions when commands are queued and again at EXEC), and a connection cut in the middle of the
  bytes stores nothing. What may fail inside EXEC is only a prefix with ids that are too small.
  It costs 10 to 20 us a round trip more than bare commands, for a batch nothing that can be
  measured; a script would need permission to run scripts and a way to load them.

The appends of all writers of the process share one connection: each is sent at once, those of the
same turn of the event loop in one packet, and none waits for another's reply.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta

import redis.exceptions as rx

from streamq.driver import (
    BackendUnavailableError,
    Entry,
    FencedError,
    StreamId,
    encode_position,
)

from ._errors import BACKEND, is_rejected_id
from ._link import Link
from ._taps import parse_entries
from ._wire import Command, Reply, Wire

_FIELD = "r"
_LONGEST_LAG_SECONDS = 30.0
_REMEMBERED_STREAMS = 10_000


class Appender:
    """Appends for all streams of one queue."""

    def __init__(self, link: Link, ttl: timedelta) -> None:
        self._link = link
        seconds = ttl.total_seconds()
        # The time to live is renewed now and then, and set longer by that lag: never too short.
        self._lag = min(seconds / 8, _LONGEST_LAG_SECONDS)
        self._pexpire = _milliseconds(ttl + self.lag)
        self._due: OrderedDict[bytes, float] = OrderedDict()

    @property
    def lag(self) -> timedelta:
        """By how much the time to live may be set longer than asked for."""
        return timedelta(seconds=self._lag)

    def forget(self, key: bytes) -> None:
        """Set the time to live with the next append: the stream has been deleted, say."""
        self._due.pop(key, None)

    async def append(
        self, stream: StreamId, key: bytes, entries: Sequence[Entry], ttl: timedelta | None = None
    ) -> None:
        """Store entries; as :meth:`streamq.driver.ChunkQueue.append`, with the client's errors."""
        if not entries:
            return
        wire = self._link.current or await self._link.wire()
        await wire.writable()
        is_due = ttl is not None or self._due.get(key, 0.0) <= time.monotonic()
        if len(entries) == 1 and not is_due:
            (reply,) = await wire.call(_xadd(key, entries[0], "NOMKSTREAM"))
            if reply is not None:
                await self._settle(wire, stream, key, entries, [reply])
                return
        asked = time.monotonic()  # the server sets the time to live after this, never before
        replies = await wire.call(
            ("MULTI",),
            *(_xadd(key, entry) for entry in entries),
            ("PEXPIRE", key, self._pexpire),
            ("EXEC",),
        )
        done = replies[-1]
        if not isinstance(done, list):
            # EXECABORT only says that a command was refused; that command's own error says why.
            raise next(reply for reply in replies if isinstance(reply, rx.RedisError))
        self._remember(key, asked)
        await self._settle(wire, stream, key, entries, done)
        if ttl is not None:
            # Not inside the transaction: a stale writer, which is refused there, must not shorten
            # the life of a stream that goes on.
            (reply,) = await wire.call(("PEXPIRE", key, _milliseconds(ttl)))
            if isinstance(reply, rx.RedisError):
                raise reply
            self.forget(key)  # the next append without a time of its own sets the usual one

    async def _settle(
        self,
        wire: Wire,
        stream: StreamId,
        key: bytes,
        entries: Sequence[Entry],
        replies: Sequence[Reply],
    ) -> None:
        refused = None
        for entry, reply in zip(entries, replies, strict=False):
            if is_rejected_id(reply):
                refused = refused or entry
            elif isinstance(reply, rx.RedisError):
                raise reply
        if refused is not None:
            await self._check_refused(wire, stream, key, refused)

    async def _check_refused(self, wire: Wire, stream: StreamId, key: bytes, entry: Entry) -> None:
        """Tell an entry that is repeated, which is success, from one that is fenced."""
        # An operator may have removed the newest entries; the server remembers the last id, if the
        # ACL lets us ask for it.
        facts, newest = await wire.call(
            ("XINFO", "STREAM", key), ("XREVRANGE", key, "+", "-", "COUNT", 1)
        )
        if isinstance(newest, rx.RedisError):
            raise newest
        last = [each.position for each in parse_entries(newest)]
        if isinstance(facts, list) and b"last-generated-id" in facts:
            number = facts[facts.index(b"last-generated-id") + 1]
            assert isinstance(number, bytes)
            last = [number.decode()]
        if not last:
            raise BackendUnavailableError(
                f"stream {stream} was deleted during an append; append again",
                backend=BACKEND,
                stream=str(stream),
            )
        epoch = int(last[0].partition("-")[0])
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


def _milliseconds(ttl: timedelta) -> int:
    return max(1, ttl // timedelta(milliseconds=1))


def _xadd(key: bytes, entry: Entry, *options: str) -> Command:
    number = encode_position((entry.epoch, entry.index))
    return ("XADD", key, *options, number, _FIELD, entry.data)
