"""Holds events that were read and not yet delivered, with the cursor after each of them.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from streamq._events import Chunk, EventOrGap, Seal
from streamq.records._values import T

from ._cursor import Cursor, Progress


@dataclass(slots=True)
class _RecordEvents:
    """The undelivered events of one record, and the places before and after the record."""

    events: deque[EventOrGap[Any]]
    before: str
    after: str
    progress: Progress
    end: Progress  # that of ``after``, which later records without events may have moved on


class ReadAhead(Generic[T]):
    """Delivers events in order, and keeps the cursor and the counters of what it delivered.

    Args:
        cursor: The place after the last event that was delivered before.
        consumes: Whether reading removes records (a backend without replay): a record without
            events is then acknowledged with the last event before it.
    """

    def __init__(self, cursor: Cursor, *, consumes: bool) -> None:
        self.cursor = cursor
        """The place after the last event delivered, or before the seal."""
        self.seal: Seal | None = None
        """The ending, once it has been delivered."""
        self.pending: deque[_RecordEvents] = deque()
        """Records with events that are not delivered yet."""
        self.events = self.chunks = self.chunk_bytes = 0
        self.buffered_bytes = 0
        self._consumes = consumes

    def add(
        self,
        events: Sequence[EventOrGap[T]],
        *,
        before: str,
        after: str,
        progress: Progress,
        is_complete: bool,
    ) -> None:
        """Add the events of the next record, often none.

        Args:
            events: In order.
            before: Position before the record, and before any parts that belong to it.
            after: Position after it.
            progress: What has been delivered once these events are.
            is_complete: Whether the sequencer holds back nothing after this record.
        """
        if events:
            self.buffered_bytes += sum(len(e.data) for e in events if isinstance(e, Chunk))
            self.pending.append(_RecordEvents(deque(events), before, after, progress, progress))
        elif not self.pending:
            # An OPEN or a duplicate has no events: the cursor moves past it.
            self.cursor = Cursor(progress, after)
        elif self._consumes and is_complete:
            # The record is acknowledged with the last event before it, since the backend may send
            # nothing more until it is.
            last = self.pending[-1]
            last.after, last.end = after, progress

    def discard(self) -> None:
        """Drop the events that were not delivered: they cannot be trusted."""
        self.pending.clear()
        self.buffered_bytes = 0

    def take(self, max_events: int, max_bytes: int) -> list[EventOrGap[T]]:
        """Deliver events up to both limits; at least one if there is one."""
        batch: list[EventOrGap[T]] = []
        size = 0
        while self.pending and len(batch) < max_events:
            event = self.pending[0].events[0]
            if isinstance(event, Chunk):
                size += len(event.data)
                if batch and size > max_bytes:
                    break
            batch.append(self.deliver())
        return batch

    def deliver(self) -> EventOrGap[T]:
        """Deliver the next event; there has to be one."""
        record = self.pending[0]
        event: EventOrGap[T] = record.events.popleft()
        self.events += 1
        if isinstance(event, Chunk):
            self.chunks += 1
            self.chunk_bytes += len(event.data)
            self.buffered_bytes -= len(event.data)
        if isinstance(event, Seal):
            # The cursor stays before the seal: a reader that resumes there gets the ending again
            # at once, instead of waiting for an event that never comes.
            self.pending.clear()
            self.seal = event
            return event
        next_seq = event.seq + 1 if isinstance(event, Chunk) else 0
        after = record.progress
        progress = Progress(after.epoch, event.attempt, next_seq, event.offset, after.base)
        if record.events:
            self.cursor = Cursor(progress, record.before)
        else:
            self.pending.popleft()
            self.cursor = Cursor(record.end if self._consumes else progress, record.after)
        return event
