"""Who waits for what, and whether there is anything new to look at."""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
import time
from dataclasses import dataclass, field

from streamq._events import StreamId
from streamq._position import Key
from streamq.driver import Stored

from . import _store as store
from ._wakeup import Doorbell, Doorbells

_POLL_SECONDS = 1.0  # in case a ring was lost
_POLL_SECONDS_WITHOUT_BELL = 0.05
_KEEP_BELL_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class Read:
    """A read, which stays with the thread until there is something to return or it is recalled."""

    stream: StreamId
    after: Key
    max_records: int
    max_bytes: int
    waits: bool
    future: asyncio.Future[list[Stored]]


@dataclass(slots=True)
class Tail:
    """What the reader's thread knows about who waits and what is new.

    Attributes:
        waiting: Blocked reads by stream.
        bell: Rings when another process has stored something.
        newest: Id of the newest record that has been looked at.
        version: SQLite's data version at that time.
        is_active: Whether commits of this process are to be announced; set before looking.
        is_dirty: Whether something has been announced, by this process or by the bell.
        next_poll: When to look without having been told.
        idle_since: When the last blocked read went away.
    """

    waiting: dict[StreamId, set[Read]] = field(default_factory=dict)
    bell: Doorbell | None = None
    newest: int = 0
    version: int = 0
    is_active: bool = False
    is_dirty: bool = False
    next_poll: float = 0.0
    idle_since: float = 0.0

    def start(
        self,
        connection: sqlite3.Connection,
        doorbells: Doorbells,
        selector: selectors.BaseSelector,
    ) -> None:
        self.is_active = True
        self.bell = doorbells.install()
        if self.bell is not None:
            selector.register(self.bell, selectors.EVENT_READ)
        self.idle_since = time.monotonic()
        self.version = store.data_version(connection)
        self.newest = store.newest_record(connection)

    def rest(self, selector: selectors.BaseSelector) -> None:
        """Take the bell away when nobody has waited for a while, so that writers need not ring."""
        idle = self.is_active and not self.waiting
        if idle and time.monotonic() - self.idle_since >= _KEEP_BELL_SECONDS:
            self.is_active = False
            if self.bell is not None:
                selector.unregister(self.bell)
                self.bell.close()
                self.bell = None

    def timeout(self) -> float | None:
        if self.waiting:
            return max(0.0, self.next_poll - time.monotonic())
        return _KEEP_BELL_SECONDS if self.is_active else None

    def changed(self, connection: sqlite3.Connection) -> list[StreamId]:
        """Return the streams with records that have not been looked at, if there is a reason."""
        now = time.monotonic()
        if not self.is_dirty:
            if now < self.next_poll:
                return []
            interval = _POLL_SECONDS if self.bell is not None else _POLL_SECONDS_WITHOUT_BELL
            self.next_poll = now + interval
            version = store.data_version(connection)
            if version == self.version:
                return []
            self.version = version
        self.is_dirty = False  # before looking: what is announced from now on is looked at again
        self.newest, streams = store.changed_since(connection, self.newest)
        return streams

    def add(self, read: Read) -> None:
        self.waiting.setdefault(read.stream, set()).add(read)

    def discard(self, read: Read) -> bool:
        """Remove a read, and tell whether it was still waiting."""
        reads = self.waiting.get(read.stream, set())
        if read not in reads:
            return False
        reads.discard(read)
        if not reads:
            del self.waiting[read.stream]
            self.idle_since = time.monotonic()
        return True

    def clear(self) -> list[Read]:
        reads = [read for reads in self.waiting.values() for read in reads]
        self.waiting.clear()
        self.idle_since = time.monotonic()
        return reads
