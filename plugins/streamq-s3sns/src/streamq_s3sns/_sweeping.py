"""Removing streams: one that somebody names, and those that have expired."""

from __future__ import annotations

from streamq.driver import StreamId
from streamq_aws import together

from ._segment import Tail
from ._store import Described, Store

_AT_ONCE = 8
_CLAIMED = 0  # when a stream expired that a sweep is deleting; never that of a real one


class Sweeper:
    """Deletes what a queue's streams are made of."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def delete(self, directory: str, *, upto: int | None = None) -> None:
        """Delete every segment of a stream, or those up to one; the oldest first.

        If it is interrupted, what is left looks like a stream whose beginning is gone, and never
        like one that ended earlier.
        """
        numbers = [number async for number in self._store.numbers(directory)]
        if upto is not None:
            numbers = [number for number in numbers if number <= upto]
        await self._store.delete(directory, numbers[::-1])

    async def sweep(self) -> int:
        """Delete streams that have expired; return how many."""
        removed = 0
        async for page in self._store.directories(self._store.keys.root):
            for first in range(0, len(page), _AT_ONCE):
                some = page[first : first + _AT_ONCE]
                removed += sum(await together(self._sweep(*each) for each in some))
        return removed

    async def _sweep(self, directory: str, number: int) -> bool:
        found = await self._store.describe(directory, number)
        if found is None or found.tail.expires > self._store.clock.now_ms():
            return False
        if not await self._claim(found):
            return False
        # Another sweep may have claimed it before, or have been through with it before our claim:
        # then that one counts it, and we put away what is left.
        is_ours = found.tail.expires > _CLAIMED and await self._store.head(directory, number)
        await self.delete(directory, upto=found.tail.number + 1)
        return bool(is_ours)

    async def _claim(self, found: Described) -> bool:
        """Take the number after the newest one, so that neither a writer nor a sweep goes on."""
        stream: StreamId = found.stream
        number = found.tail.number + 1
        grave = Tail(number=number, begin=number, expires=_CLAIMED)
        return await self._store.put(found.directory, grave, b"", stream) is not None
