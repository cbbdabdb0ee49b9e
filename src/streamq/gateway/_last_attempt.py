"""Finds the last reset that is stored of a stream, and follows the stream from there.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from ._catch_up import CatchUp
from ._clients import Client, Hold
from ._follower import Follower
from ._hub import Hub
from ._pages import ReadPlace
from ._places import EventPlace

_RESET = b"\nevent: reset\n"


class LastAttemptFollower(Follower):
    """Delivers events without the attempts that a reset has voided before the client came.

    A client without a place begins after the last reset that is stored. One with a place gets that
    reset, if there is one after the place, since it makes void what the client has, and none of
    the events between. Resets that come later are delivered as always.

    The search reads pages of the log as any follower does, and sends nothing meanwhile. Whoever
    searched last has left on the hub how far; the reader task of the hub notes live resets there.

    Args:
        hub: As for :class:`Follower`, as are the others.
        place: The last event that the client has; 0 for none.
        read_place: As for :class:`Follower`.
        catch_up: As for :class:`Follower`.
        client: As for :class:`Follower`.
        held: As for :class:`Follower`.
        waiting: As for :class:`Follower`.
        until: Offset of the newest event to search; by default the newest one that is known.
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
        *,
        until: int | None = None,
    ) -> None:
        super().__init__(hub, place, read_place, catch_up, client, held, waiting)
        self._until = hub.newest if until is None else until
        self._is_new = not place.offset
        self._found: EventPlace | None = None
        begin, known = place.offset, hub.resets
        if self._is_new and (known.last is None or known.last.offset <= self._until):
            self._found = known.last
            begin = min(self._searched_to(), self._until)
        self._search: Follower | None = None
        if begin < self._until:
            start = EventPlace(begin) if begin > place.offset else place
            self._search = Follower(hub, start, None, catch_up, client, ExitStack())
        else:
            self._begin_at_reset()

    def _searched_to(self) -> int:
        """Return the offset up to which the last known reset is the last one that is stored."""
        hub = self.hub
        if hub.place.attempt == 1 and hub.resets.last is None:
            return hub.newest
        return hub.ring.offset if hub.resets.is_live else hub.resets.searched_to

    async def read(self, max_wait: float) -> bytes:
        """Return the next frames, as :meth:`Follower.read` does; none when the search ends."""
        until = time.monotonic() + max_wait
        while (search := self._search) is not None:
            self._note(await search.read(max(until - time.monotonic(), 0.0)))
            if search.is_ended or search.offset >= self._until:
                self._end_search(search)
                return b""  # now ``offset`` says where it goes on: there may be nothing to wait for
            if time.monotonic() >= until:
                return b""
        return await super().read(max_wait)

    def close(self) -> None:
        """Give up the search, and what the client waits for and holds. Idempotent."""
        if self._search is not None:
            self._search.close()
            self._search = None
        super().close()

    def _note(self, frames: bytes) -> None:
        for place in resets_in(frames):
            if place.offset <= self._until:
                self._found = place

    def _end_search(self, search: Follower) -> None:
        self._search = None
        search.close()
        if self._is_new:
            self.hub.resets.searched(self._found, self._until)
        self._begin_at_reset()

    def _begin_at_reset(self) -> None:
        """Go on after the reset that was found, or before it if the client has to get it."""
        found = self._found
        if found is None:
            return
        if self._is_new:
            self._go_to(found)
        elif found.offset - 1 > self.offset:
            self._go_to(EventPlace(found.offset - 1))


def resets_in(frames: bytes) -> Iterator[EventPlace]:
    """Yield the places of the resets among whole frames, in order."""
    at = frames.find(_RESET)
    while at >= 0:
        start = frames.rfind(b"\n", 0, at) + len(b"\nid: ")
        offset, _, epoch = frames[start:at].partition(b"@")
        yield EventPlace(int(offset), int(epoch or 0))
        at = frames.find(_RESET, at + len(_RESET))
