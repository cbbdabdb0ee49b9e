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
        self.sealed_by = ""
        self.stale_records = 0
        self.duplicate_records = 0
        self._gaps_as_events = gaps_as_events
        self._reorder_bytes = reorder_bytes
        self._early: dict[int, Record] = {}
        self._early_bytes = 0
        self._taken_over_at = 0

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
        before = self.progress, self._taken_over_at
        if record.epoch > self.epoch:
            self._take_over(record)
        if record.kind is RecordKind.OPEN:
            return []
        try:
            events = self._tell(record)
        except (TrimmedError, CursorError):
            progress, self._taken_over_at = before
            self.epoch, self.attempt = progress.epoch, progress.attempt
            self.next_seq = progress.next_seq
            raise
        while self._early and self.seal is None:
            early = self._early.pop(self.offset + 1, None)
            if early is None:
                break
            self._early_bytes -= _size(early)
            events += self._tell(early)
        return events

    def _take_over(self, record: Record) -> None:
        """Begin a new epoch; older ones are stale from here on."""
        self.epoch = record.epoch
        self.attempt += 1
        if record.restarts:
            self.next_seq = 0
        self._taken_over_at = self.offset
        self._early.clear()
        self._early_bytes = 0

    def _tell(self, record: Record) -> list[Event]:
        """Return the events of a DATA record of the current epoch that have not been told."""
        first, expected = record.offset, self.offset + 1
        if first <= self._taken_over_at:
            raise CursorError(
                f"the stream began again: event {first} of a newer attempt comes after event "
                f"{self._taken_over_at}. It was deleted or had expired since; read it from the "
                "beginning"
            )
        if record.last_offset < expected:
            self.duplicate_records += 1
            return []
        events: list[Event] = []
        if first > expected:
            if self._hold_back(record):
                return []
            if not self._gaps_as_events:
                raise TrimmedError(
                    f"events {expected} to {first - 1} are no longer stored; the oldest that can "
                    f"be read is {first}",
                    oldest=first,
                )
            events.append(Gap(expected, first - 1, record.attempt))
        self.attempt = record.attempt
        if record.resets and first >= expected:
            events.append(Reset(first, record.attempt))
        # Chunk i has the offset first_chunk + i; those before ``expected`` have been told.
        first_chunk = first + record.resets
        for i in range(max(expected - first_chunk, 0), len(record.chunks)):
            encoding, data = record.chunks[i]
            events.append(Chunk(first_chunk + i, record.attempt, record.seq + i, encoding, data))
        self.next_seq = record.seq + len(record.chunks)
        self.offset = record.last_offset
        if record.seal is not None:
            body = record.seal
            self.sealed_by = body.producer
            self.seal = Seal(
                self.offset,
                record.attempt,
                body.state,
                body.error_type,
                body.message,
                body.retryable,
            )
            events.append(self.seal)
        return events

    def _hold_back(self, record: Record) -> bool:
        """Keep an early record for later, if the backend may reorder and there is room."""
        size = _size(record)
        if self._early_bytes + size > self._reorder_bytes:
            return False
        if record.offset not in self._early:
            self._early[record.offset] = record
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
