"""Reads a stream for one client: from the hub's ring, or in pages of the log while it is behind.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

from ._catch_up import CatchUp, PageRequest
from ._clients import Client, Hold
from ._hub import Hub
from ._pages import ReadPlace
from ._places import EventPlace, began_again

_EMPTY_PAGE_SECONDS = 1.0


class Follower:
    """Delivers every event after ``offset`` once, as encoded frames, at the pace of the client.

    Args:
        hub: The stream.
        place: The last event that the client has.
        read_place: Where the log is read for it, if that is known; by default the last place that
            the hub knows.
        catch_up: Reads pages of the log.
        client: The client, whose pages are read in turn with those of others.
        held: What the client holds while it follows.
        waiting: What it holds until the stream exists.
    """

    def __init__(
        self,
        hub: Hub,
        place: EventPlace,
        read_place: ReadPlace | None,
        catch_up: CatchUp,
        client: Client,
        held: ExitStack,
        waiting: Hold | None = None,
    ) -> None:
        self.hub = hub
        self.offset = place.offset
        """Offset of the last event delivered."""
        self.epoch = place.epoch
        """Epoch of that event as far as its page or its client has named it, else 0."""
        self._begin: EventPlace | None = place if place.epoch else None
        self.is_ended = False
        """Whether that event was the seal."""
        self._catch_up = catch_up
        self.client = client
        """The client."""
        self._held = held
        self._waiting = waiting
        self._place = read_place
        self._request: PageRequest | None = None
        self._is_behind = False

    @property
    def place(self) -> EventPlace:
        """The last event delivered, with its epoch as far as it is known."""
        return EventPlace(self.offset, self.hub.epochs.at(self.offset) or self.epoch)

    async def read(self, max_wait: float) -> bytes:
        """Return the next frames, about 64 KiB at most.

        Returns:
            Whole frames; ``b""`` after ``max_wait`` without events, and after the seal.

        Raises:
            CursorError: The client's place belongs to an earlier stream of this name.
            StreamqError: The reader of the hub, or a page for this client, has failed.
        """
        self.hub.start()
        until = time.monotonic() + max_wait
        while not self.is_ended:
            if self.hub.is_cut:
                self.hub.raise_failure()
            left = max(until - time.monotonic(), 0.0)
            data = await self._read(left)
            if self._waiting is not None and self.hub.has_appeared:
                self._waiting.release()
                self._waiting = None
            if data or time.monotonic() >= until:
                return data
        return b""

    def close(self) -> None:
        """Give up what the client waits for and holds. Idempotent."""
        if self._request is not None:
            self._request.drop()
            self._request = None
        if self._waiting is not None:
            self._waiting.release()
        self._held.close()

    async def _read(self, max_wait: float) -> bytes:
        hub = self.hub
        if self._is_behind:
            await self._catch_up.turn(self.client)
        changed = hub.changed  # taken before the ring is read, so that no change is missed
        if self._request is None:
            self._compare(hub.epochs.at(self.offset))
            # A place that is not compared yet is read with the event before it.
            found = hub.ring.after(self.offset) if self._begin is None else None
            if found is not None:
                self._place = None
                data, offset = found
                if data:
                    self._advance(offset, 0)
                self._is_behind = self.offset < hub.ring.offset
                if hub.is_ended and self.offset >= hub.ring.offset:
                    self.is_ended = True
                elif not data:
                    hub.raise_failure()
                    await _wait(changed, max_wait)
                return data
        self._is_behind = False  # a page has turns of its own
        return await self._read_page(max_wait, changed)

    async def _read_page(self, max_wait: float, changed: asyncio.Event) -> bytes:
        """Return frames of the page that has the next event; ``b""`` if it is not there yet."""
        if self._place is None:
            # If the client has named an epoch, its last event is read again, to compare it.
            first = self.offset if self._begin is None else self.offset - 1
            self._place = self.hub.places.before(first)
        place = self._place
        if self._request is None:
            self._request = self._catch_up.request(self.hub, place, self.client)
        request = self._request
        if not await request.wait(max_wait) or self.hub.is_cut:
            return b""
        try:
            page = request.result()
        finally:
            self._request = None
            request.drop()
        if page is None:  # the log ends here, before the events in the ring
            self.hub.raise_failure()
            self._place = None
            await _wait(changed, min(max_wait, _EMPTY_PAGE_SECONDS))
            return b""
        await self._catch_up.turn(self.client)
        data = b""
        self._compare(page.epochs.at(self.offset))
        if page.last >= self.offset:  # who wrote the event is not stored any more
            self._begin = None
        if page.last > self.offset:
            data, offset = page.after(self.offset)
            self._advance(offset, page.epochs.at(offset))
            self.is_ended = page.is_end and self.offset == page.last
        if self.offset >= page.last:
            self._place = page.end
        return data

    def _go_to(self, place: EventPlace) -> None:
        """Go on after another event, of which nothing has been delivered yet."""
        self._advance(place.offset, place.epoch)
        self._place = None

    def _advance(self, offset: int, epoch: int) -> None:
        self.offset, self.epoch, self._begin = offset, epoch, None

    def _compare(self, epoch: int) -> None:
        """Compare the epoch that the client named with that of the event at its place."""
        if epoch and self._begin is not None:
            if self._begin.epoch != epoch:
                raise began_again(self.hub.stream, self._begin)
            self._begin = None


async def _wait(changed: asyncio.Event, max_wait: float) -> None:
    try:
        async with asyncio.timeout(max_wait):
            await changed.wait()
    except TimeoutError:
        pass
