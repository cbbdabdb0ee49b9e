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

from ._clients import Client
from ._follower import Follower
from ._hub import Hub
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
        self._follower = follower
        self._throttles = throttles
        self._delayed: _Delayed | None = None

    @property
    def hub(self) -> Hub:
        """The stream."""
        return self._follower.hub

    @property
    def client(self) -> Client:
        """The client."""
        return self._follower.client

    @property
    def place(self) -> EventPlace:
        """The last event delivered, with its epoch as far as it is known."""
        return self._follower.place if self._delayed is None else self._delayed.before

    @property
    def offset(self) -> int:
        """Offset of the last event delivered."""
        return self.place.offset

    @property
    def is_ended(self) -> bool:
        """Whether that event was the seal."""
        return self._delayed is None and self._follower.is_ended

    async def read(self, max_wait: float) -> bytes:
        """Return the next frames, as :meth:`Follower.read` does; delayed ones when they are due."""
        until = time.monotonic() + max_wait
        if self._delayed is None:
            before = self.place
            data = await self._follower.read(max_wait)
            if not data:
                return data
            wait = max([each.book(len(data)) for each in self._throttles])
            if wait <= 0:
                return data
            self._delayed = _Delayed(data, before, time.monotonic() + wait)
        return await self._when_due(self._delayed, until)

    def close(self) -> None:
        """Give up what the client waits for and holds. Idempotent."""
        self._drop()
        self._follower.close()

    async def _when_due(self, delayed: _Delayed, until: float) -> bytes:
        """Return delayed frames if they are due in time, else nothing.

        Raises:
            StreamqError: The stream was deleted, or its reader has failed.
        """
        hub = self._follower.hub
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
        return delayed.data

    def _drop(self) -> None:
        delayed, self._delayed = self._delayed, None
        if delayed is not None:
            for each in self._throttles:
                each.refund(len(delayed.data))


AnyFollower: TypeAlias = Follower | ThrottledFollower
"""What reads a stream for one client, with quotas or without."""
