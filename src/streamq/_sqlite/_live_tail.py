"""Keeps the blocked reads of a queue, and finds the streams that have new records.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from streamq.driver import Stored, StreamId

from . import _requests as requests


@dataclass(slots=True, eq=False)
class PendingRead:
    """A read that the thread keeps until there are records to return, or until it is recalled."""

    stream: StreamId
    run: Callable[[sqlite3.Connection], list[Stored]]
    future: asyncio.Future[list[Stored]]

    @property
    def name(self) -> str:
        """The stream, for errors."""
        return str(self.stream)


@dataclass(slots=True)
class LiveTail:
    """The blocked reads of a queue, and how far its thread has looked for new records.

    Attributes:
        waiting: Blocked reads by stream.
        newest: Id of the newest record that has been examined.
    """

    waiting: dict[StreamId, set[PendingRead]] = field(default_factory=dict)
    newest: int = field(init=False)

    def begin(self, connection: sqlite3.Connection) -> None:
        """Note which records exist, before a read looks that may have to wait.

        Not while others wait: they have still to look at what is new since.
        """
        if not self.waiting:
            self.newest = requests.newest_record(connection)

    def changed_streams(self, connection: sqlite3.Connection) -> list[StreamId]:
        """Return the streams that may have records which their blocked reads have not seen."""
        since, self.newest = self.newest, requests.newest_record(connection)
        return requests.changed_since(connection, since)

    def add(self, read: PendingRead) -> None:
        """Keep a read that has found nothing."""
        self.waiting.setdefault(read.stream, set()).add(read)

    def discard(self, read: PendingRead) -> None:
        """Remove a read, if it is still waiting."""
        reads = self.waiting.get(read.stream, set())
        reads.discard(read)
        if not reads:
            self.waiting.pop(read.stream, None)

    def take_all(self) -> list[PendingRead]:
        """Remove and return all reads."""
        reads, self.waiting = self.waiting, {}
        return [read for each in reads.values() for read in each]
