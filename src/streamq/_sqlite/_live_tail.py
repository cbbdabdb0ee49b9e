"""Keeps the blocked reads of a queue, and finds the streams that have new records.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
import time
from dataclasses import dataclass, field

from streamq.driver import Stored, StreamId

from . import _requests as requests
from ._doorbells import Doorbell, Doorbells
from ._requests import Key

_POLL_SECONDS = 1.0  # in case a wake-up was lost
_POLL_SECONDS_WITHOUT_BELL = 0.05
_KEEP_BELL_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class PendingRead:
    """A read that the thread keeps until there are records to return, or until it is recalled."""

    stream: StreamId
    after: Key
    max_records: int
    max_bytes: int
    waits: bool
    future: asyncio.Future[list[Stored]]


@dataclass(slots=True)
class LiveTail:
    """The blocked reads of a queue, and how far its thread has looked for new records.

    Attributes:
        waiting: Blocked reads by stream.
        bell: Wakes the thread when another process has stored records.
        newest: Id of the newest record that has been examined.
        version: SQLite's data version at that time.
        is_active: Whether commits of this queue are to be announced; set before looking.
        is_dirty: Whether a commit was announced, by this queue or by the bell.
        looks_at_all: Whether all blocked reads have to look once, because the file is another one.
        next_poll: When to look without an announcement.
        idle_since: When the last blocked read ended.
    """

    waiting: dict[StreamId, set[PendingRead]] = field(default_factory=dict)
    bell: Doorbell | None = None
    newest: int = 0
    version: int = 0
    is_active: bool = False
    is_dirty: bool = False
    looks_at_all: bool = False
    next_poll: float = 0.0
    idle_since: float = 0.0

    def start(
        self,
        connection: sqlite3.Connection,
        doorbells: Doorbells | None,
        selector: selectors.BaseSelector,
    ) -> None:
        """Have every commit announced from now on, and note which records exist."""
        self.is_active = True
        self.renew_bell(doorbells, selector)
        self.idle_since = time.monotonic()
        self.version = requests.data_version(connection)
        self.newest = requests.newest_record(connection)

    def renew_bell(self, doorbells: Doorbells | None, selector: selectors.BaseSelector) -> None:
        """Install a bell unless there is one that :meth:`Doorbells.ring` reaches."""
        if self.bell is not None and doorbells is not None and self.bell.is_in(doorbells):
            return
        self._drop_bell(selector)
        self.bell = None if doorbells is None else doorbells.install()
        if self.bell is not None:
            selector.register(self.bell, selectors.EVENT_READ)

    def drop_idle_bell(self, selector: selectors.BaseSelector) -> None:
        """Remove the bell after a while without blocked reads, so that writers need not ring it."""
        idle = self.is_active and not self.waiting
        if idle and time.monotonic() - self.idle_since >= _KEEP_BELL_SECONDS:
            self.is_active = False
            self._drop_bell(selector)

    def _drop_bell(self, selector: selectors.BaseSelector) -> None:
        if self.bell is not None:
            selector.unregister(self.bell)
            self.bell.close()
            self.bell = None

    def timeout(self) -> float | None:
        """Return how many seconds the thread may sleep; ``None`` means without end."""
        if self.waiting:
            return max(0.0, self.next_poll - time.monotonic())
        return _KEEP_BELL_SECONDS if self.is_active else None

    def is_due(self) -> bool:
        """Whether to look: after an announcement, or for a poll. Begins the next interval."""
        now = time.monotonic()
        if now < self.next_poll and not self.is_dirty:
            return False
        interval = _POLL_SECONDS if self.bell is not None else _POLL_SECONDS_WITHOUT_BELL
        self.next_poll = now + interval
        return True

    def changed_streams(self, connection: sqlite3.Connection) -> list[StreamId]:
        """Return the streams that may have records which their blocked reads have not seen."""
        if not self.is_dirty:
            version = requests.data_version(connection)
            if version == self.version:
                return []
            self.version = version
        self.is_dirty = False  # before looking: a later announcement causes another look
        self.newest, streams = requests.changed_since(connection, self.newest)
        if self.looks_at_all:
            self.looks_at_all = False
            return list(self.waiting)
        return streams

    def add(self, read: PendingRead) -> None:
        """Keep a read that has found nothing."""
        self.waiting.setdefault(read.stream, set()).add(read)

    def discard(self, read: PendingRead) -> bool:
        """Remove a read; return whether it was still waiting."""
        reads = self.waiting.get(read.stream, set())
        if read not in reads:
            return False
        reads.discard(read)
        if not reads:
            del self.waiting[read.stream]
            self.idle_since = time.monotonic()
        return True

    def clear(self) -> list[PendingRead]:
        """Remove and return all reads."""
        reads = [read for reads in self.waiting.values() for read in reads]
        self.waiting.clear()
        self.idle_since = time.monotonic()
        return reads
