"""Makes the requests of appends, as :class:`~._append.Append` decides them.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import Entry, StreamId, together
from streamq_s3sns._known_streams import KnownStream
from streamq_s3sns._packing import Packer
from streamq_s3sns._segment import Checkpoint, encode_entries
from streamq_s3sns.requests._segments import SegmentStore

from ._append import (
    PAUSE_SECONDS,
    Announce,
    Append,
    Appended,
    FindEnd,
    Pause,
    ReadWinner,
    Withdraw,
    Write,
)

_PATIENCE_SECONDS = 5.0


class Appender:
    """Appends for all streams of one queue.

    Args:
        store: The segments.
        ttl: Default time to live of a stream.
        packer: Gets every segment that is stored.
    """

    def __init__(self, store: SegmentStore, ttl: timedelta, packer: Packer) -> None:
        self._store = store
        self._ttl_ms = _ms(ttl)
        self._packer = packer
        self._clock = asyncio.get_running_loop().time

    async def append(
        self,
        stream: StreamId,
        directory: str,
        known: KnownStream,
        entries: Sequence[Entry],
        ttl: timedelta | None,
    ) -> Checkpoint:
        """Store entries, as :meth:`streamq.driver.ChunkQueue.append`; return the state afterwards.

        It is returned also if nothing had to be stored.
        """
        async with known.lock:
            append = Append(
                stream,
                entries,
                ttl_ms=self._ttl_ms,
                last_ttl_ms=_ms(ttl) if ttl else self._ttl_ms,
                remembered=known.writer.recent(self._clock()),
                rival=known.writer.rival,
                now_ms=self._now_ms(),
            )
            checkpoint = await self._run(append, stream, directory, known)
            known.writer.appended(checkpoint, self._clock())
            known.note(checkpoint)
            known.notify(checkpoint.number)
            if ttl is not None:
                # Only the record that ends a stream has a time to live of its own.
                self._packer.finish(directory)
            return checkpoint

    async def _run(
        self, append: Append, stream: StreamId, directory: str, known: KnownStream
    ) -> Checkpoint:
        """Take the steps of an append to the last one."""
        store = self._store
        give_up = self._clock() + _PATIENCE_SECONDS
        while True:
            match append.step:
                case Appended(checkpoint):
                    return checkpoint
                case FindEnd():
                    append.found_end(await store.newest(directory), self._now_ms())
                case Write() as step:
                    is_won = await self._write(stream, directory, known, step)
                    has_time = self._clock() < give_up
                    append.wrote(is_won, self._now_ms(), has_time=has_time)
                case ReadWinner(number):
                    winner = await store.checkpoint(directory, number)
                    append.read_winner(winner, self._now_ms())
                case Announce(epoch):
                    await store.announce(directory, epoch)
                    append.announced(self._now_ms())
                case Pause():
                    await asyncio.sleep(PAUSE_SECONDS)
                    append.paused(self._now_ms())
                case Withdraw():
                    await store.withdraw(directory)
                    append.withdrew()

    async def _write(
        self, stream: StreamId, directory: str, known: KnownStream, step: Write
    ) -> bool:
        """Store a segment; return whether its number was free."""
        body = encode_entries(step.entries)
        put = self._store.put(directory, step.checkpoint, body, stream)
        if known.writer.is_check_due(self._clock()):
            # An announcement refuses the next append: this segment is stored all the same.
            tag, _ = await together((put, self._check_announcement(directory, known)))
        else:
            tag = await put
        if tag is None:
            return False
        count = len(step.entries)
        self._packer.add(stream, directory, step.checkpoint, body, tag=tag, count=count)
        return True

    async def _check_announcement(self, directory: str, known: KnownStream) -> None:
        known.writer.announced(await self._store.announced(directory))

    def _now_ms(self) -> int:
        return self._store.clock.now_ms()


def _ms(ttl: timedelta) -> int:
    return max(1, ttl // timedelta(milliseconds=1))
