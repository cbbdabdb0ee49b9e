"""Turns stored records into events: in order, each one once, attempts never mixed.

A pure state machine: no clock, no I/O. Every reader of a stream runs the same machine over the same
records, so all agree on every offset. A writer runs it over the tail to learn where to continue.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from streamq._errors import CorruptRecordError, CursorError, TrimmedError
from streamq._events import Chunk, EventOrGap, Gap, Reset, Seal
from streamq.records._values import PLAIN, Serializer
from streamq.records._wire import MAX_CHUNK_BYTES, Record, RecordKind

from ._cursor import Progress


class Sequencer:
    """Judges records one by one.

    Args:
        progress: The state of delivery so far; the default is a reader at the very beginning.
        gaps_as_events: Return missing events as :class:`Gap` instead of raising.
        reorder_bytes: Most bytes of early records to hold back until the records before them
            arrive. Beyond that, the records missing before the first of them count as a gap. 0 for
            backends that keep order, where an early record proves that something is missing.
        reorder_records: Most early records to hold back, however small they are.
        relative: Records count from the opening of their attempt. The backend keeps nothing from
            which a producer could learn the offset of earlier attempts; its only reader knows it.
        serializer: Decodes the values of the chunks.
    """

    def __init__(
        self,
        progress: Progress = Progress(),  # noqa: B008 - frozen value
        *,
        gaps_as_events: bool = False,
        reorder_bytes: int = 0,
        reorder_records: int = sys.maxsize,
        relative: bool = False,
        serializer: Serializer[Any] = PLAIN,
    ) -> None:
        self.epoch = progress.epoch
        self.attempt = progress.attempt
        self.next_seq = progress.next_seq
        self.offset = progress.offset
        self._base = progress.base
        self._relative = relative
        self.event_epoch = progress.epoch
        """Epoch of the newest event, not above ``epoch``; 0 if it is not known."""
        self.seal: Seal | None = None
        self.sealed_by = ""
        self.headers: dict[str, str] = {}
        self.stale_records = 0
        self.duplicate_records = 0
        self.gaps = 0
        """How many gaps have been returned as events."""
        self._gaps_as_events = gaps_as_events
        self._reorder_bytes = reorder_bytes
        self._reorder_records = reorder_records
        self._serializer = serializer
        self.newest_epoch = 0
        """The newest epoch that the backend has named; a seal of an older one does not count."""
        self._early: dict[tuple[int, int], Record] = {}
        self._early_bytes = 0
        self._parts: list[bytes] = []  # of the chunk after ``offset``
        self._parts_bytes = 0
        self._taken_over_at = 0

    @property
    def progress(self) -> Progress:
        """The state of delivery, as a value."""
        return Progress(self.epoch, self.attempt, self.next_seq, self.offset, self._base)

    @property
    def holds_back(self) -> bool:
        """Whether records were taken whose events are still to come: parts of a chunk, early ones.

        A reader that continues later has to read them again.
        """
        return bool(self._parts or self._early)

    @property
    def holds_seal(self) -> bool:
        """Whether a seal is held back."""
        return any(record.seal is not None for record in self._early.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of chunks in the records that are held back."""
        early = sum(_chunk_bytes(record) for record in self._early.values())
        return self._parts_bytes + early

    @property
    def is_half_full(self) -> bool:
        """Whether half of the room for early records is used: the missing ones may be lost."""
        return bool(self._early) and self._fullness > 0.5

    @property
    def _fullness(self) -> float:
        return max(
            self._early_bytes / max(self._reorder_bytes, 1),
            len(self._early) / self._reorder_records,
        )

    def feed(self, record: Record) -> list[EventOrGap]:
        """Take the next record and return the events that it completes, often none.

        Raises:
            CorruptRecordError: A chunk in parts is larger than any chunk may be.
            TrimmedError: Events before this record are missing and gaps are not returned as events.
                The state is as before; feeding the same record raises again.
            CursorError: The stream was deleted or expired, and began again under the same name.
        """
        if self.seal is not None:
            return []
        if record.epoch < self.epoch:
            self.stale_records += 1
            return []
        before = self.progress, self._taken_over_at, self.headers
        if record.epoch > self.epoch:
            self._take_over(record)
        if record.kind is RecordKind.OPEN:
            self.headers = dict(record.headers)
            return []
        try:
            events = self._events_of(self._place(record) if self._relative else record)
        except (TrimmedError, CursorError):
            progress, self._taken_over_at, self.headers = before
            self.epoch, self.attempt = progress.epoch, progress.attempt
            self.next_seq, self._base = progress.next_seq, progress.base
            raise
        while self._early and self.seal is None:
            place = self.offset + 1, len(self._parts)
            is_next = place in self._early
            if not is_next:
                if self._fullness <= 1:
                    break
                place = min(self._early)  # no room to wait any longer for those before it
            early = self._early[place]
            events += self._events_of(early, may_wait=is_next)
            del self._early[place]
            self._early_bytes -= _size(early)
        return events

    def _place(self, record: Record) -> Record:
        """Return a record that counts from its opening, with its offset in the whole stream.

        Raises:
            CursorError: Its attempt knows of no earlier one, although events have been delivered.
        """
        if self._base > 0 and record.offset == 1 and not record.resets:
            raise _began_again(f"epoch {record.epoch} is the first of its stream", self._base)
        if not self.offset:
            # Nothing was delivered before: a reset would void nothing, and it takes no offset.
            self._base = -(record.offset + record.resets - record.seq - 1)
        offset = self._base + record.offset
        if offset:
            return replace(record, offset=offset, attempt=self.attempt)
        return replace(record, offset=1, resets=False, attempt=self.attempt)

    def _take_over(self, record: Record) -> None:
        """Begin a new epoch; older ones are stale from here on."""
        self.epoch = record.epoch
        self.attempt += 1
        self.headers = {}  # its OPEN may be trimmed; headers of an older attempt do not apply
        # ``next_seq`` stays: an attempt that starts over may die before its reset is stored.
        self._taken_over_at = self.offset
        self._base = self.offset if self._relative else 0
        self._early.clear()
        self._early_bytes = 0
        self._drop_parts()

    def _events_of(self, record: Record, *, may_wait: bool = True) -> list[EventOrGap]:
        """Return the undelivered events of a DATA record of the current epoch."""
        first, expected = record.offset, self.offset + 1
        if first <= self._taken_over_at:
            raise _began_again(f"event {first} of a newer attempt", self._taken_over_at)
        if record.parts > 1:
            return self._events_of_part(record, expected, may_wait)
        if record.last_offset < expected:
            self.duplicate_records += 1
            return []
        events: list[EventOrGap] = []
        if first > expected:
            if may_wait and self._hold_back(record):
                return []
            events.append(self._gap(expected, first - 1, record))
        self._drop_parts()
        self.attempt = record.attempt
        if record.resets and first >= expected:
            events.append(Reset(first, record.attempt, record.epoch))
        # Chunk i has the offset first_chunk + i; those before ``expected`` have been delivered.
        first_chunk = first + record.resets
        for i in range(max(expected - first_chunk, 0), len(record.chunks)):
            encoding, data = record.chunks[i]
            chunk = Chunk(
                first_chunk + i,
                record.attempt,
                record.seq + i,
                encoding,
                data,
                self._serializer,
                record.epoch,
            )
            events.append(chunk)
        self.next_seq = record.seq + len(record.chunks)
        self.offset, self.event_epoch = record.last_offset, record.epoch
        if record.seal is not None and record.epoch < self.newest_epoch:
            self.stale_records += 1
            self.offset -= 1  # the seal takes none
        elif record.seal is not None:
            body = record.seal
            self.sealed_by = body.producer
            self.seal = Seal(
                self.offset,
                record.attempt,
                body.state,
                body.error_type,
                body.message,
                body.retryable,
                record.epoch,
            )
            events.append(self.seal)
        return events

    def _events_of_part(self, record: Record, expected: int, may_wait: bool) -> list[EventOrGap]:
        """Add a part to the incomplete chunk; return the chunk with its last part."""
        have, (encoding, data) = len(self._parts), record.chunks[0]
        if record.offset < expected or (record.offset == expected and record.part < have):
            self.duplicate_records += 1
            return []
        events: list[EventOrGap] = []
        is_early = record.offset > expected or record.part > have
        if is_early and may_wait and self._hold_back(record):
            return []
        if record.offset > expected:
            events.append(self._gap(expected, record.offset - 1, record))
            self._drop_parts()
            self.attempt, self.next_seq = record.attempt, record.seq
            self.offset = record.offset - 1
        if record.part > len(self._parts):
            # An earlier part is missing, so the chunk is too, if it is ever completed.
            self._drop_parts()
            if record.completes:
                events.append(self._gap(record.offset, record.offset, record))
                self.attempt, self.next_seq = record.attempt, record.seq + 1
                self.offset = record.offset
            return events
        if self._parts_bytes + len(data) > MAX_CHUNK_BYTES:
            raise CorruptRecordError(f"the parts of a chunk exceed {MAX_CHUNK_BYTES} bytes")
        self._parts.append(data)
        self._parts_bytes += len(data)
        self.attempt = record.attempt
        if record.completes:
            whole = b"".join(self._parts)
            self._drop_parts()
            self.offset, self.next_seq = record.offset, record.seq + 1
            self.event_epoch = record.epoch
            chunk = Chunk(
                record.offset,
                record.attempt,
                record.seq,
                encoding,
                whole,
                self._serializer,
                record.epoch,
            )
            events.append(chunk)
        return events

    def _drop_parts(self) -> None:
        if self._parts:
            self._parts, self._parts_bytes = [], 0

    def _gap(self, first: int, last: int, record: Record) -> Gap:
        """Return the gap before a record, or raise if gaps are not returned as events."""
        if not self._gaps_as_events:
            raise TrimmedError(
                f"events {first} to {last} {self._why_missing(last + 1)}", oldest=last + 1
            )
        self.gaps += 1
        return Gap(first, last, record.attempt)

    def _why_missing(self, oldest: int) -> str:
        """Describe why events before another one are missing, as far as is known."""
        if self._early and self._fullness > 1:
            return (
                f"have not come before {len(self._early):,} later records, which is all that is "
                "held back for them: they are gone, or the backend gives records out further out "
                "of order than that"
            )
        if self._relative:
            return (
                f"are not there any more, and {oldest} is: another reader has acknowledged them, "
                "and there may be only one, or the backend has put them aside"
            )
        return f"are no longer stored; the oldest that can be read is {oldest}"

    def _hold_back(self, record: Record) -> bool:
        """Keep an early record for later if the backend may reorder; return whether it does."""
        if not self._reorder_bytes:
            return False
        place = record.offset, record.part
        if place not in self._early:
            self._early[place] = record
            self._early_bytes += _size(record)
        return True


def _began_again(what: str, delivered: int) -> CursorError:
    return CursorError(
        f"the stream began again: {what} comes after event {delivered}. It was deleted or had "
        "expired since; read it from the beginning"
    )


def _size(record: Record) -> int:
    return _chunk_bytes(record) + 64


def _chunk_bytes(record: Record) -> int:
    return sum(len(data) for _, data in record.chunks)


def fold_tail(newest_first: Iterable[Record]) -> Sequencer | None:
    """Return the state of a sequencer after the newest record, from the newest records alone.

    Only for backends that fence (``capabilities.fenced``), where nothing stale follows an OPEN.

    Args:
        newest_first: The newest records, newest first; consumed only as far as needed.

    Returns:
        The state, or ``None`` if the records given hold no DATA record to count from.
    """
    opens: list[Record] = []
    for record in newest_first:
        if record.kind is RecordKind.OPEN:
            opens.append(record)
            continue
        if record.parts > 1:
            # The parts before it are not needed to know where the stream stands.
            sequencer = Sequencer(
                Progress(
                    record.epoch, record.attempt, record.seq + record.completes, record.last_offset
                )
            )
            if not record.completes:
                sequencer.event_epoch = 0  # not known: another attempt may have sent that event
        else:
            base = Progress(record.epoch, record.attempt, record.seq, record.offset - 1)
            sequencer = Sequencer(base)
            sequencer.feed(record)
        for opened in reversed(opens):
            sequencer.feed(opened)
        return sequencer
    return None
