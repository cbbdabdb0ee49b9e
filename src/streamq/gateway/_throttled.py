"""Delays the frames of a follower as the quotas of its tenant and its subject demand.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from streamq.quotas import Throttle

from ._follower import Follower
from ._places import EventPlace


@dataclass(frozen=True, slots=True)
class _Delayed:
    """Frames that wait, and the place before them."""

    data: bytes
    before: EventPlace
    due_at: float


class ThrottledFollower:
    """Delivers what a follower reads, no sooner than its throttles permit.

    What is delayed does not count as delivered: whoever goes on after :attr:`place` reads it again.

    Args:
        follower: Reads the stream.
        throttles: All of them count what is delivered.
    """

    def __init__(self, follower: Follower, throttles: Sequence[Throttle]) -> None:
        self.hub = follower.hub
        """The stream."""
        self.client = follower.client
        """The client."""
        self.offset = follower.offset
        """Offset of the last event delivered."""
        self.is_ended = follower.is_ended
        """Whether that event was the seal."""
        self._follower = follower
        self._throttles = throttles
        self._delayed: _Delayed | None = None

    @property
    def place(self) -> EventPlace:
        """The last event delivered, with its epoch as far as it is known."""
        return self._follower.place if self._delayed is None else self._delayed.before

    async def read(self, max_wait: float) -> bytes:
        """Return the next frames, as :meth:`Follower.read` does; delayed ones when they are due."""
        if self._delayed is not None:
            return await self._when_due(self._delayed, time.monotonic() + max_wait)
        follower = self._follower
        epoch = follower.epoch
        data = await follower.read(max_wait)
        wait = 0.0
        if data:
            size = len(data)
            for each in self._throttles:
                if (own := each.book(size)) > wait:
                    wait = own
        if wait:
            before = EventPlace(self.offset, self.hub.epochs.at(self.offset) or epoch)
            self._delayed = _Delayed(data, before, time.monotonic() + wait)
            return b""
        return self._deliver(data)

    def close(self) -> None:
        """Give up what the client waits for and holds. Idempotent."""
        self._drop()
        self._follower.close()

    async def _when_due(self, delayed: _Delayed, until: float) -> bytes:
        """Return delayed frames if they are due in time, else nothing.

        Raises:
            StreamqError: The stream was deleted, or its reader has failed.
        """
        hub = self.hub
        while (now := time.monotonic()) < min(delayed.due_at, until):
            changed = hub.changed
            if hub.failure is not None:
                self._drop()
                hub.raise_failure()
            try:
                async with asyncio.timeout(min(delayed.due_at, until) - now):
                    await changed.wait()
            except TimeoutError:
                pass
        if now < delayed.due_at:
            return b""
        self._delayed = None
        return self._deliver(delayed.data)

    def _deliver(self, data: bytes) -> bytes:
        self.offset, self.is_ended = self._follower.offset, self._follower.is_ended
        return data

    def _drop(self) -> None:
        delayed, self._delayed = self._delayed, None
        if delayed is not None:
            for each in self._throttles:
                each.refund(len(delayed.data))


AnyFollower: TypeAlias = Follower | ThrottledFollower
"""What reads a stream for one client, with quotas or without."""
