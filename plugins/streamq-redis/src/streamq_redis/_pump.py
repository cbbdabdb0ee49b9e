"""One blocking read for all streams that the process follows.

A single connection carries ``XREAD BLOCK`` over every tap. A tap that is added interrupts it with
``CLIENT UNBLOCK`` from another connection; since that may overtake the read that it is meant for,
it is repeated while the read without the new tap is still out. Without permission for that the
blocks are short instead. Everything happens in callbacks of the connection: there is no further
task that could die unnoticed.
"""

from __future__ import annotations

import asyncio
from functools import partial

import redis.exceptions as rx

from streamq.driver import Stored

from ._errors import is_wrong_type
from ._link import Link
from ._taps import Id, Tap, parse_entries
from ._wire import Command, Reply, Wire, closed_error

_ENTRIES_AT_ONCE = 16  # at most, of each stream
_LINGER_SECONDS = 3.0
_SHORT_BLOCK_SECONDS = 0.1
_UNBLOCK_AGAIN_SECONDS, _UNBLOCK_SLOWEST_SECONDS = 0.001, 0.05
_UNBLOCK_GIVE_UP_SECONDS = 1.0
_READ_BYTES = 1_048_576


class Pump:
    """Feeds taps from one blocking connection.

    Args:
        link: The connection for blocking reads.
        commands: Another connection, for interrupting.
        tail_bytes: Bound of what a tap keeps.
        block_seconds: Longest single block, after which a dead connection is noticed.
    """

    def __init__(
        self, link: Link, commands: Link, *, tail_bytes: int, block_seconds: float
    ) -> None:
        self._link = link
        self._commands = commands
        self._tail_bytes = tail_bytes
        self._block_seconds = block_seconds
        self._taps: dict[bytes, Tap] = {}
        self._issued = 0
        self._interrupting = 0
        self._record_bytes = 1_024
        self._is_reading = False
        self._is_scheduled = False
        self._is_closed = False
        self._next_sweep = 0.0
        self._loop = asyncio.get_running_loop()

    def tap(self, key: bytes) -> Tap | None:
        """Return the tap of a stream that is being followed."""
        return self._taps.get(key)

    async def attach(self, key: bytes, after: Id) -> Tap:
        """Follow a stream from a place above which the server has just said there is nothing.

        Raises:
            redis.exceptions.RedisError: Cannot connect.
            OSError: Cannot connect.
        """
        if self._link.current is None:
            await self._link.wire()
        if self._is_closed:
            raise closed_error()
        tap = self._taps.get(key)
        if tap is None:
            tap = self._taps[key] = Tap(key, after, self._tail_bytes)
        elif tap.last > after:
            # What the tap knows was deleted, or came just now: reading it again is right for both.
            tap.reset(after)
        else:
            return tap
        tap.used = self._loop.time()
        tap.valid_from = self._issued + 1
        self._schedule()
        return tap

    def drop(self, key: bytes) -> None:
        """Stop following a stream that has been deleted; its readers start over."""
        tap = self._taps.pop(key, None)
        if tap is not None:
            tap.retire()

    def close(self) -> None:
        """Fail all readers with ``ClosedError``."""
        self._is_closed = True
        self._retire_all(closed_error())

    # -- inside: the read ----------------------------------------------------------------------

    def _schedule(self) -> None:
        # After the readers that were just woken have run: they often bring the next wish.
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._act)

    def _act(self) -> None:
        self._is_scheduled = False
        if self._is_closed or not self._taps:
            return
        if self._is_reading:
            wire = self._link.current
            if wire is not None and self._interrupting != self._issued:
                self._interrupting = self._issued
                until = self._loop.time() + _UNBLOCK_GIVE_UP_SECONDS
                self._interrupt(wire, self._issued, _UNBLOCK_AGAIN_SECONDS, until)
            return
        wire = self._link.current
        if wire is None:
            self._retire_all(rx.ConnectionError("connection lost"))
            return
        block = self._block_seconds if wire.may_unblock else _SHORT_BLOCK_SECONDS
        taps = self._taps.values()
        # Many streams, or large records: fewer of each, so that one reply stays small.
        count = max(1, min(_ENTRIES_AT_ONCE, _READ_BYTES // (len(taps) * self._record_bytes)))
        read: Command = (
            *("XREAD", "COUNT", count, "BLOCK", int(block * 1000), "STREAMS"),
            *[tap.key for tap in taps],
            *[tap.cursor for tap in taps],
        )
        self._issued += 1
        self._is_reading = True
        wire.submit([read], partial(self._on_reply, self._issued), extra=block)

    def _on_reply(self, number: int, replies: list[Reply], error: Exception | None) -> None:
        self._is_reading = False
        try:
            self._take(number, replies, error)
        except Exception as exc:  # noqa: BLE001 - whatever it is, no reader may wait on in silence
            self._retire_all(rx.InvalidResponse(f"XREAD: {type(exc).__name__}: {exc}"))
        self._sweep()
        if self._taps:
            self._schedule()

    def _take(self, number: int, replies: list[Reply], error: Exception | None) -> None:
        reply = replies[0] if replies else None
        if error is not None:
            self._retire_all(error)
        elif isinstance(reply, rx.RedisError):
            # One key of another type fails the read of all: each reader asks for its own.
            self._retire_all(None if is_wrong_type(reply) else reply)
        elif isinstance(reply, list):
            records = size = 0
            for key, entries in reply:  # type: ignore[misc]
                found: list[Stored] = parse_entries(entries)
                records += len(found)
                size += sum(len(each.data) for each in found)
                tap = self._taps.get(key)  # type: ignore[arg-type]
                if tap is not None and tap.valid_from <= number and found:
                    tap.push(found)
            if records:
                self._record_bytes = max(1, size // records, self._record_bytes // 2)

    def _sweep(self) -> None:
        now = self._loop.time()
        if now < self._next_sweep:
            return
        self._next_sweep = now + 1.0
        for key in [
            key
            for key, tap in self._taps.items()
            if not tap.is_waited_for and now - tap.used > _LINGER_SECONDS
        ]:
            self._taps.pop(key).retire()

    def _retire_all(self, error: Exception | None) -> None:
        taps, self._taps = self._taps, {}
        for tap in taps.values():
            tap.retire(error)

    # -- inside: interrupting it ---------------------------------------------------------------

    def _interrupt(self, wire: Wire, number: int, delay: float, until: float) -> None:
        if not self._is_reading or number != self._issued:
            return
        commands = self._commands.current
        if not wire.is_open or not wire.may_unblock:
            return
        if commands is None:
            # It has gone since the reader asked over it: the server is most likely gone, too.
            wire.abort(rx.ConnectionError("connection lost"))
            return
        unblock: Command = ("CLIENT", "UNBLOCK", wire.server.client_id)
        commands.submit([unblock], partial(self._on_unblocked, wire, number, delay, until))

    def _on_unblocked(
        self,
        wire: Wire,
        number: int,
        delay: float,
        until: float,
        replies: list[Reply],
        error: Exception | None,
    ) -> None:
        if error is not None:
            wire.abort(rx.ConnectionError("connection lost"))
        elif isinstance(replies[0], rx.RedisError):
            wire.may_unblock = False
        elif replies[0] == 0 and self._is_reading and number == self._issued:
            if self._loop.time() >= until:
                # The server knows nothing of a read that we wait for: half-open.
                wire.abort(rx.ConnectionError("connection lost"))
                return
            slower = min(2 * delay, _UNBLOCK_SLOWEST_SECONDS)
            self._loop.call_later(delay, self._interrupt, wire, number, slower, until)
