"""Reads a stream for one client: from the hub's ring, or from the backend while it is behind."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streamq._events import Gap
from streamq.reading._reader import StreamReader

from ._frames import clip, encode_event
from ._hub import Hub
from ._places import EventPlace, began_again

_BATCH_BYTES = 65_536


class Follower:
    """Delivers every event after ``offset`` once, as encoded frames, at the pace of the client.

    Args:
        hub: The stream.
        place: The last event that the client has.
    """

    def __init__(self, hub: Hub, place: EventPlace) -> None:
        self.hub = hub
        self.offset = place.offset
        """Offset of the last event delivered."""
        self._epoch = place.epoch
        self._begin: EventPlace | None = place if place.epoch else None
        self.is_ended = False
        """Whether that event was the seal."""
        self._log: StreamReader[Any, Gap] | None = None

    @property
    def place(self) -> EventPlace:
        """The last event delivered, with its epoch as far as it is known."""
        return EventPlace(self.offset, self.hub.epochs.at(self.offset) or self._epoch)

    async def read(self, max_wait: float) -> bytes:
        """Return the next frames, about 64 KiB at most.

        Returns:
            Whole frames; ``b""`` after ``max_wait`` without events, and after the seal.

        Raises:
            CursorError: The client's place belongs to an earlier stream of this name.
            StreamqError: The reader of the hub, or of this client, has failed.
        """
        until = time.monotonic() + max_wait
        while not self.is_ended:
            left = max(until - time.monotonic(), 0.0)
            data = await (self._read_ring(left) if self._log is None else self._read_log(left))
            if data or time.monotonic() >= until:
                return data
        return b""

    async def aclose(self) -> None:
        """Close this client's own reader, if there is one. Idempotent."""
        if self._log is not None:
            log, self._log = self._log, None
            await log.aclose()

    async def _read_ring(self, max_wait: float) -> bytes:
        hub = self.hub
        changed = hub.changed  # taken before the ring is read, so that no change is missed
        self._compare(hub.epochs.at(self.offset))
        found = hub.ring.after(self.offset)
        if found is None:
            self._log = await hub.open_log(self.offset)
            return b""
        data, offset = found
        if offset > self.offset:
            self.offset, self._epoch, self._begin = offset, 0, None
        if hub.is_ended and self.offset >= hub.ring.offset:
            self.is_ended = True
        elif not data:
            hub.raise_failure()
            try:
                async with asyncio.timeout(max_wait):
                    await changed.wait()
            except TimeoutError:
                pass
        return data

    async def _read_log(self, max_wait: float) -> bytes:
        log = self._log
        assert log is not None
        events = await log.read_batch(max_bytes=_BATCH_BYTES, max_wait=max_wait)
        frames: list[bytes] = []
        for event in events:
            if event.offset == self.offset and not isinstance(event, Gap):
                self._compare(event.epoch)
            missing = clip(event, self.offset)
            if missing is not None:
                frame = encode_event(missing)
                frames.append(frame.data)
                self.offset, self._epoch, self._begin = frame.offset, frame.epoch, None
        self.is_ended = log.seal is not None
        if self.is_ended or self.hub.ring.after(self.offset) is not None:
            await self.aclose()
        await asyncio.sleep(0)  # a read that never blocks must not starve other clients
        return b"".join(frames)

    def _compare(self, epoch: int) -> None:
        """Compare the epoch that the client named with that of the event at its place."""
        if epoch and self._begin is not None:
            if self._begin.epoch != epoch:
                raise began_again(self.hub.stream, self._begin)
            self._begin = None
