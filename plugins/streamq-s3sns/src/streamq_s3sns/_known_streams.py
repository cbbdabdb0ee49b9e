"""Remembers what a queue knows of streams: bounded, and only used to make fewer requests.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from ._segment import Checkpoint, Segment

_REMEMBERED = 10_000
_TRUSTED_SECONDS = 3_600.0  # a day later a lifecycle rule may have freed the number that follows
_BUSY_SECONDS = 0.25
_CHECK_APPENDS = 4


class WriterMemory:
    """State of one stream as its last append in this queue left it.

    A pure state machine: no clock, no I/O. Times are those of one monotonic clock, in seconds.

    Attributes:
        checkpoint: State of the stream after the append; ``None`` if that is not known for sure.
        appended_at: When the append ended.
        rival: Largest epoch that has announced that it takes the stream over.
        busy_appends: Number of segments written in quick succession since announcements were last
            checked.
    """

    __slots__ = ("appended_at", "busy_appends", "checkpoint", "rival")

    def __init__(self) -> None:
        self.checkpoint: Checkpoint | None = None
        self.appended_at = float("-inf")
        self.rival = 0
        self.busy_appends = 0

    def recent(self, now: float) -> Checkpoint | None:
        """Return the checkpoint unless it is too old to be useful."""
        return self.checkpoint if now < self.appended_at + _TRUSTED_SECONDS else None

    def is_check_due(self, now: float) -> bool:
        """Count a segment that is being written; return whether to check announcements with it.

        Every fourth segment in quick succession is due.
        """
        is_busy = now < self.appended_at + _BUSY_SECONDS
        self.busy_appends = self.busy_appends + 1 if is_busy else 0
        if self.busy_appends < _CHECK_APPENDS:
            return False
        self.busy_appends = 0
        return True

    def announced(self, epoch: int) -> None:
        """Note an announcement."""
        self.rival = max(self.rival, epoch)

    def appended(self, checkpoint: Checkpoint, now: float) -> None:
        """Note where an append has left the stream."""
        self.checkpoint = checkpoint
        self.appended_at = now

    def forget(self) -> None:
        """Forget the stream: it has been deleted."""
        self.checkpoint = None
        self.rival = 0


class KnownStream:
    """What a queue knows of one stream.

    Attributes:
        lock: Held by an append, so that the queue's appends to the stream take turns.
        writer: State after the last append.
        newest: Largest segment number that has been seen, or reported by a notification.
        seen: The newest checkpoint that a reader or an append has seen; with the number 0 if none
            has. It shows when the stream expires, and where it begins.
        listed_at: When a reader last requested a listing.
        news: Events of the readers that wait, set when a segment may have come.
    """

    __slots__ = ("listed_at", "lock", "newest", "news", "seen", "users", "writer")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.writer = WriterMemory()
        self.newest = 0
        self.seen = Checkpoint()
        self.listed_at = float("-inf")
        self.news: set[asyncio.Event] = set()
        self.users = 0

    def notify(self, number: int) -> None:
        """Wake the readers that wait: a segment may exist."""
        self.newest = max(self.newest, number)
        for event in self.news:
            event.set()

    def read(self, segment: Segment) -> None:
        """Note a segment that a reader has seen."""
        self.newest = max(self.newest, segment.through)
        self.note(segment.checkpoint)

    def note(self, checkpoint: Checkpoint) -> None:
        """Note a checkpoint, unless a newer one has been seen."""
        if checkpoint.number >= self.seen.number:
            self.seen = checkpoint

    def listed(self, newest: Checkpoint | None, now: float, *, before: Checkpoint) -> None:
        """Note the newest checkpoint by a listing, which may lie before one seen long ago.

        Args:
            newest: The checkpoint; ``None`` if there is none.
            now: The time, by the clock of ``listed_at``.
            before: What had been seen when the listing was requested.
        """
        self.listed_at = now
        self.newest = newest.number if newest else 0
        if self.seen is before:
            self.seen = newest or Checkpoint()
        elif newest is not None:
            self.note(newest)  # what was seen meanwhile may be newer than the listing

    def forget(self) -> None:
        """Forget the stream: it has been deleted."""
        self.writer.forget()
        self.newest = 0
        self.seen = Checkpoint()
        self.listed_at = float("-inf")


class KnownStreams:
    """The streams that a queue knows, by directory; beyond a limit, unused ones are dropped."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, KnownStream] = OrderedDict()

    @contextlib.contextmanager
    def use(self, directory: str) -> Iterator[KnownStream]:
        """Give a stream, which is kept while it is used."""
        known = self._streams.get(directory)
        if known is None:
            known = self._streams[directory] = KnownStream()
        known.users += 1
        self._streams.move_to_end(directory)
        try:
            yield known
        finally:
            known.users -= 1
            self._shrink()

    def _shrink(self) -> None:
        excess = len(self._streams) - _REMEMBERED
        if excess > 0:
            for directory in list(islice(self._streams, excess)):
                if not self._streams[directory].users:
                    del self._streams[directory]

    def notify(self, directory: str, number: int) -> None:
        """Wake the readers of a stream, if there are any."""
        known = self._streams.get(directory)
        if known is not None:
            known.notify(number)
