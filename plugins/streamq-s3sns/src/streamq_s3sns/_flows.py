"""What a queue knows of streams: bounded, and only ever used to ask S3 for less."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from ._segment import Tail

_REMEMBERED = 10_000


class Flow:
    """What is known of one stream.

    Attributes:
        lock: Appends of this queue to the stream take turns.
        tail: Where our own last append left the stream; ``None`` if that is not known for sure.
        appended_at: When our last append ended.
        rival: Largest epoch that has announced itself.
        busy_appends: How many there have been in quick succession since that was asked.
        known: Largest number that has been seen or heard of.
        looked_at: When the place of a reader was last compared with a listing.
        news: Set when something may have come.
    """

    __slots__ = (
        *("appended_at", "busy_appends", "known", "lock", "looked_at", "news", "rival"),
        *("tail", "users"),
    )

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.tail: Tail | None = None
        self.appended_at = float("-inf")
        self.rival = 0
        self.busy_appends = 0
        self.known = 0
        self.looked_at = float("-inf")
        self.news: set[asyncio.Event] = set()
        self.users = 0

    def tell(self, number: int) -> None:
        """Wake everybody who waits: a segment may be there."""
        self.known = max(self.known, number)
        for event in self.news:
            event.set()

    def forget(self) -> None:
        """The stream has been deleted."""
        self.tail = None
        self.rival = 0
        self.known = 0
        self.looked_at = float("-inf")


class Flows:
    """The flows of one queue, by directory; those that nobody uses go when there are too many."""

    def __init__(self) -> None:
        self._flows: OrderedDict[str, Flow] = OrderedDict()

    @contextlib.contextmanager
    def use(self, directory: str) -> Iterator[Flow]:
        """Give a flow, which stays as long as somebody uses it."""
        flow = self._flows.get(directory)
        if flow is None:
            flow = self._flows[directory] = Flow()
        flow.users += 1
        self._flows.move_to_end(directory)
        try:
            yield flow
        finally:
            flow.users -= 1
            self._shrink()

    def _shrink(self) -> None:
        excess = len(self._flows) - _REMEMBERED
        if excess > 0:
            for directory in list(islice(self._flows, excess)):
                if not self._flows[directory].users:
                    del self._flows[directory]

    def tell(self, directory: str, number: int) -> None:
        """Wake the readers of a stream, if there are any."""
        flow = self._flows.get(directory)
        if flow is not None:
            flow.tell(number)
