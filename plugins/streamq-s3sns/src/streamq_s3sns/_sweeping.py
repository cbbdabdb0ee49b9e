"""Removing streams: one that somebody names, and those that have expired."""

from __future__ import annotations

import contextlib

from streamq.driver import BackendError, BackendUnavailableError, StreamId
from streamq_aws import together

from ._keys import ANNOUNCEMENT, segment_name
from ._objects import Objects
from ._segment import BACKEND, Tail
from ._store import Described, Store

_AT_ONCE = 8
_CLAIMED = 0  # when a stream expired that a sweep is deleting; never that of a real one
_LOOKS = 4


class Sweeper:
    """Deletes what a queue's streams are made of, and the objects beside them."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    async def delete(self, directory: str) -> None:
        """Delete every segment of a stream; the oldest first.

        If it is interrupted, what is left looks like a stream whose beginning is gone, and never
        like one that ended earlier.

        One that has objects expires first, for everybody, so that nobody finds a reference to what
        has gone already; what an interruption leaves of it is removed by a sweep.
        """
        upto = None
        if await self._objects.of(directory):
            with contextlib.suppress(BackendError):  # what cannot be read is deleted all the same
                upto = await self._expire(directory)
            await self._delete_objects(directory, upto)
        await self._delete_segments(directory, upto)

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
        # Objects first: while there is a segment, a sweep comes by again.
        await self._delete_objects(directory, found.tail.number + 1)
        await self._delete_segments(directory, found.tail.number + 1)
        return bool(is_ours)

    async def _expire(self, directory: str) -> int | None:
        """Let a stream expire; return the number of its last segment, if it has any."""
        for _ in range(_LOOKS):
            number = await self._store.newest_number(directory)
            if number is None:
                return None
            found = await self._store.describe(directory, number)
            if found is not None and await self._claim(found):
                return number + 1
        raise BackendUnavailableError(
            f"{directory} is written to as fast as it can be looked at; end the stream before it "
            "is deleted, or try again",
            backend=BACKEND,
        )

    async def _claim(self, found: Described) -> bool:
        """Take the number after the newest one, so that neither a writer nor a sweep goes on."""
        stream: StreamId = found.stream
        number = found.tail.number + 1
        grave = Tail(number=number, begin=number, expires=_CLAIMED)
        return await self._store.put(found.directory, grave, b"", stream) is not None

    async def _delete_objects(self, directory: str, upto: int | None) -> None:
        await self._objects.delete(await self._objects.of(directory, upto=upto))

    async def _delete_segments(self, directory: str, upto: int | None) -> None:
        numbers = [number async for number in self._store.numbers(directory)]
        if upto is not None:
            numbers = [number for number in numbers if number <= upto]
        names = (ANNOUNCEMENT, *map(segment_name, numbers[::-1]))
        await self._objects.delete([f"{directory}{name}" for name in names])
