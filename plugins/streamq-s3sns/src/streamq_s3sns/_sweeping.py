"""Deletes streams, one by name or all that have expired, together with their objects.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib

from streamq.driver import BackendError, BackendUnavailableError, together

from ._errors import BACKEND
from ._naming import ANNOUNCEMENT, segment_name
from ._segment import Checkpoint
from .requests._objects import ObjectStore
from .requests._segments import ListedStream, SegmentStore

_AT_ONCE = 8
_CLAIMED = 0  # expiry of a stream that a sweep is deleting; no other stream has it
_ATTEMPTS = 4


class Sweeper:
    """Deletes the segments of a queue's streams, and the objects next to them."""

    def __init__(self, store: SegmentStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    async def delete(self, directory: str) -> None:
        """Delete every segment of a stream, the oldest first.

        If this is interrupted, the rest looks like a stream that has lost its beginning, and never
        like one that ended earlier.

        A stream with objects expires first, for all readers, so that no reader finds a reference to
        an object that is gone. After an interruption a sweep removes the rest.
        """
        upto = None
        if await self._objects.keys(directory):
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
        """Delete a stream if it has expired; return whether this sweep is the one to count it."""
        found = await self._store.describe(directory, number)
        if found is None or found.checkpoint.expires > self._store.clock.now_ms():
            return False
        if not await self._claim(found):
            return False
        # Another sweep may have claimed the stream before this one, or may have deleted it before
        # this claim. Then that sweep counts it, and this one removes the rest.
        is_ours = found.checkpoint.expires > _CLAIMED and await self._store.checkpoint(
            directory, number
        )
        # Objects first: as long as there is a segment, a later sweep finds the stream.
        await self._delete_objects(directory, found.checkpoint.number + 1)
        await self._delete_segments(directory, found.checkpoint.number + 1)
        return bool(is_ours)

    async def _expire(self, directory: str) -> int | None:
        """Let a stream expire; return the number of its last segment, if it has one."""
        for _ in range(_ATTEMPTS):
            number = await self._store.newest_number(directory)
            if number is None:
                return None
            found = await self._store.describe(directory, number)
            if found is not None and await self._claim(found):
                return number + 1
        raise BackendUnavailableError(
            f"{directory} is written to faster than it can be read; end the stream before it is "
            "deleted, or try again",
            backend=BACKEND,
        )

    async def _claim(self, found: ListedStream) -> bool:
        """Take the number after the newest one, so that neither writers nor sweeps continue."""
        number = found.checkpoint.number + 1
        last = Checkpoint(number=number, begin=number, expires=_CLAIMED)
        return await self._store.put(found.directory, last, b"", found.stream) is not None

    async def _delete_objects(self, directory: str, upto: int | None) -> None:
        await self._objects.delete(await self._objects.keys(directory, upto=upto))

    async def _delete_segments(self, directory: str, upto: int | None) -> None:
        numbers = [number async for number in self._store.numbers(directory)]
        if upto is not None:
            numbers = [number for number in numbers if number <= upto]
        names = (ANNOUNCEMENT, *map(segment_name, numbers[::-1]))
        await self._objects.delete([f"{directory}{name}" for name in names])
