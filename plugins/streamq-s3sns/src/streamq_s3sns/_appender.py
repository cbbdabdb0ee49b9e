"""Storing entries: whoever gets the next number has the stream.

An append is one conditional request, and no other when the stream's end is known from the append
before. Two attempts that write at once ask for the same number; S3 gives it to one of them, and the
other learns from the winner's segment what to do: stop, go on behind it, or be content because the
segment is its own, whose acknowledgement was lost.

That alone would not be fair. A writer that is busy needs one request for each number, a newcomer
two, so that a stale attempt could keep its successor out for as long as it has something to say.
Therefore who has lost a race announces its epoch beside the segments, and who is busy looks with
every fourth append whether somebody has: a newer epoch than its own makes it stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from streamq.driver import BackendUnavailableError, Entry, FencedError, StreamId, new_entries
from streamq_aws import together

from ._flows import Flow
from ._packing import Packer
from ._segment import BACKEND, FRAME_BYTES, Tail, encode_entries
from ._store import Store

SEGMENT_BYTES = 8 * 2**20
"""A segment is closed before it gets larger than this, unless it has one entry."""

_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.02
_LOOK_APPENDS = 4
_BUSY_SECONDS = 0.25
_MEMORY_SECONDS = 3_600.0  # a day later a lifecycle rule may have freed the number that follows


class Appender:
    """Appends for all streams of one queue."""

    def __init__(self, store: Store, ttl: timedelta, packer: Packer) -> None:
        self._store = store
        self._ttl = ttl
        self._packer = packer
        self._clock = asyncio.get_running_loop().time

    async def append(
        self,
        stream: StreamId,
        directory: str,
        flow: Flow,
        entries: Sequence[Entry],
        ttl: timedelta | None,
    ) -> Tail:
        """Store entries, as :meth:`streamq.driver.ChunkQueue.append`; return where it then stands.

        Where nothing had to be stored, too: if an answer was lost, nobody has been told of what
        the call before stored.
        """
        async with flow.lock:
            if flow.rival > entries[-1].epoch:
                raise FencedError(
                    f"epoch {flow.rival} is taking stream {stream} over; epoch "
                    f"{entries[-1].epoch} must stop",
                    backend=BACKEND,
                    stream=str(stream),
                )
            # What it says may be old, for we may have been interrupted: asking for a number that
            # is taken shows that.
            is_recent = self._clock() < flow.appended_at + _MEMORY_SECONDS
            known = flow.tail if is_recent else None
            is_announced = False
            losses, give_up = 0, self._clock() + _PATIENCE_SECONDS
            while True:
                is_fresh = known is None or losses > 0
                tail = known or await self._store.newest(directory) or Tail()
                base = self._living(tail)
                try:
                    fresh = new_entries(entries, base.newest, backend=BACKEND, stream=stream)
                except FencedError:
                    if is_fresh:
                        raise
                    fresh = []
                if not is_fresh and (not fresh or base is not tail):
                    # By memory alone nothing is refused, skipped or begun.
                    known = None
                    continue
                if fresh or base.ttl != _ms(ttl or self._ttl):
                    stored = await self._put(stream, directory, flow, base, fresh, ttl)
                else:
                    stored = base
                if stored is not None:
                    break
                losses += 1
                if self._clock() >= give_up:
                    raise BackendUnavailableError(
                        f"stream {stream} is being appended to by others: this writer has lost "
                        f"{losses} races for the next segment",
                        backend=BACKEND,
                        stream=str(stream),
                    )
                known = await self._store.head(directory, tail.number + 1)
                if not is_announced and known is not None and known.epoch < entries[-1].epoch:
                    await self._store.announce(directory, entries[-1].epoch)
                    is_announced = True
                elif losses > 1:
                    await asyncio.sleep(_PAUSE_SECONDS)
            if is_announced:
                await self._store.withdraw(directory)
            flow.tail = stored
            flow.appended_at = self._clock()
            flow.tell(stored.number)
            if ttl is not None:
                # Only the record that ends a stream has a time to live of its own.
                self._packer.finish(directory)
            return stored

    def _living(self, tail: Tail) -> Tail:
        """Return what a new segment follows: the newest one, or nothing if that has expired."""
        if not tail.number or tail.expires > self._store.clock.now_ms():
            return tail
        return Tail(number=tail.number, begin=tail.number + 1)

    async def _put(
        self,
        stream: StreamId,
        directory: str,
        flow: Flow,
        base: Tail,
        fresh: Sequence[Entry],
        ttl: timedelta | None,
    ) -> Tail | None:
        """Store new entries; ``None`` if somebody else was quicker."""
        groups = list(_segments(fresh))
        for i, group in enumerate(groups):
            is_last = i == len(groups) - 1
            base = self._next(base, group, (ttl if is_last else None) or self._ttl)
            body = encode_entries(group)
            put = self._store.put(directory, base, body, stream)
            is_busy = self._clock() < flow.appended_at + _BUSY_SECONDS
            flow.busy_appends = flow.busy_appends + 1 if is_busy else 0
            if flow.busy_appends >= _LOOK_APPENDS:
                flow.busy_appends = 0
                # What is stored is stored: it is the next append that is refused.
                tag, _ = await together((put, self._look_for_rival(directory, flow)))
            else:
                tag = await put
            if tag is None:
                return None
            self._packer.add(stream, directory, base, body, tag=tag, count=len(group))
        return base

    async def _look_for_rival(self, directory: str, flow: Flow) -> None:
        flow.rival = max(flow.rival, await self._store.announced(directory))

    def _next(self, base: Tail, entries: Sequence[Entry], ttl: timedelta) -> Tail:
        newest = (entries[-1].epoch, entries[-1].index) if entries else base.newest
        return replace(
            base,
            number=base.number + 1,
            epoch=newest[0],
            index=newest[1],
            expires=self._store.clock.now_ms() + _ms(ttl),
            ttl=_ms(ttl),
            records=base.records + len(entries),
            size=base.size + sum(len(entry.data) for entry in entries),
        )


def _segments(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut entries into segments; without any there is one, which only sets the time to live."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        size += FRAME_BYTES + len(entry.data)
        if group and size > SEGMENT_BYTES:
            yield group
            group, size = [], FRAME_BYTES + len(entry.data)
        group.append(entry)
    yield group


def _ms(ttl: timedelta) -> int:
    return max(1, ttl // timedelta(milliseconds=1))
