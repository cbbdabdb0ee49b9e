"""The rule that turns stored records into events: order, once each, attempts never blended.

A pure state machine: no clock, no I/O. Every reader of a stream runs the same machine over the same
records, so all agree on every offset; a writer runs it over the tail to learn where to go on.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._cursor import Progress
from ._errors import CursorError, TrimmedError
from ._events import Chunk, Event, Gap, Reset, Seal
from ._wire import Record, RecordKind


class Sequencer:
    """Judges records one by one.

    Args:
        progress: What has been told already; the default is a reader at the very beginning.
        gaps_as_events: Tell missing events as :class:`Gap` instead of raising.
        reorder_bytes: Bytes of early records to hold back until those before them arrive; 0 for
            backends that keep order, where an early record proves that something is missing.
    """

    def __init__(
        self,
        progress: Progress = Progress(),  # noqa: B008 - frozen value
        *,
        gaps_as_events: bool = False,
        reorder_bytes: int = 0,
    ) -> None:
        self.epoch = progress.epoch
        self.attempt = progress.attempt
        self.next_seq = progress.next_seq
        self.offset = progress.offset
        self.seal: Seal | None = None
        self.stale_records = 0
        self.duplicate_records = 0
        self._gaps_as_events = gaps_as_events
        self._reorder_bytes = reorder_bytes
        self._early: dict[int, Record] = {}
        self._early_bytes = 0

    @property
    def progress(self) -> Progress:
        """What has been told, as a value."""
        return Progress(self.epoch, self.attempt, self.next_seq, self.offset)

    def feed(self, record: Record) -> list[Event]:
        """Judge the next record and return the events it tells, often none.

        Raises:
            TrimmedError: Events before this record are missing and gaps are not wanted as events.
                The state is as before; feeding the same record raises again.
            CursorError: The stream was deleted or expired and began again under the same name.
        """
        if self.seal is not None:
            return []
        if record.epoch < self.epoch:
            self.stale_records += 1
            return []
        if record.kind is RecordKind.OPEN:
            return self._takeover(record) if record.epoch > self.epoch else []
        before = self.progress
        resets = self._takeover(record) if record.epoch > self.epoch else []
        try:
            events = self._data(record, resets, before.offset)
        except (TrimmedError, CursorError):
            self._restore(before)
            raise
        while self._early and self.seal is None:
            early = self._early.pop(self.next_seq, None)
            if early is None:
                break
            self._early_bytes -= _size(early)
            events += self._data(early, [], self.offset)
        return events

    def _restore(self, before: Progress) -> None:
        self.epoch, self.attempt = before.epoch, before.attempt
        self.next_seq, self.offset = before.next_seq, before.offset

    def _takeover(self, record: Record) -> list[Event]:
        """Begin a new epoch; older ones are stale from here on."""
        self.epoch = record.epoch
        self.attempt += 1
        self._early.clear()
        self._early_bytes = 0
        if not record.restarts:
            return []
        self.next_seq = 0
        if self.offset == 0:
            return []
        self.offset += 1
        return [Reset(self.offset, self.attempt)]

    def _data(self, record: Record, resets: list[Event], told: int) -> list[Event]:
        """Tell a DATA record of the current epoch.

        Args:
            record: The record.
            resets: What its takeover told, if it began the epoch.
            told: Offset of the last event before that.
        """
        if record.index <= self.next_seq:
            self.duplicate_records += 1
            return resets
        skip = max(self.next_seq - record.seq, 0)
        found = record.offset + skip
        events = resets
        if found != self.offset + 1:
            if found > self.offset + 1 and self._hold_back(record):
                return resets
            events = self._gap(record, told + 1, found)
        attempt = self.attempt = record.attempt
        seq, offset = record.seq, record.offset
        for i in range(skip, len(record.chunks)):
            encoding, data = record.chunks[i]
            events.append(Chunk(offset + i, attempt, seq + i, encoding, data))
        self.next_seq = seq + len(record.chunks)
        self.offset = offset + len(record.chunks) - 1
        if record.seal is not None:
            body = record.seal
            self.offset += 1
            self.seal = Seal(
                self.offset, attempt, body.state, body.error_type, body.message, body.retryable
            )
            events.append(self.seal)
        return events

    def _gap(self, record: Record, expected: int, found: int) -> list[Event]:
        """Tell that events are missing. A reset that might be among them is part of the gap."""
        if found <= expected:
            raise CursorError(
                f"the stream began again: event {found} follows event {expected - 1}. It was "
                "deleted or had expired since; read it from the beginning"
            )
        if not self._gaps_as_events:
            raise TrimmedError(
                f"events {expected} to {found - 1} are no longer stored; the oldest that can be "
                f"read is {found}",
                oldest=found,
            )
        self.next_seq = max(self.next_seq, record.seq)
        return [Gap(expected, found - 1, record.attempt)]

    def _hold_back(self, record: Record) -> bool:
        """Keep an early record for later, if the backend may reorder and there is room."""
        size = _size(record)
        if self._early_bytes + size > self._reorder_bytes:
            return False
        if record.seq not in self._early:
            self._early[record.seq] = record
            self._early_bytes += size
        return True


def _size(record: Record) -> int:
    return sum(len(data) for _, data in record.chunks) + 64


def fold_tail(newest_first: Iterable[Record]) -> Sequencer | None:
    """Return the sequencer as it stands after the newest record, from the tail alone.

    Only for backends that fence (``capabilities.fenced``), where nothing stale follows an OPEN.

    Args:
        newest_first: The newest records, newest first; consumed as far as needed.

    Returns:
        The state, or ``None`` if the records given hold no DATA record to count from.
    """
    opens: list[Record] = []
    for record in newest_first:
        if record.kind is RecordKind.OPEN:
            opens.append(record)
            continue
        base = Progress(record.epoch, record.attempt, record.seq, record.offset - 1)
        sequencer = Sequencer(base)
        sequencer.feed(record)
        for opened in reversed(opens):
            sequencer.feed(opened)
        return sequencer
    return None
