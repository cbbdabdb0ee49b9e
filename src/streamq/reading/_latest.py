"""Finds the latest value of a stream among its newest records.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamq.driver import START, Stored
from streamq.records._wire import Record, RecordKind

from ._cursor import Cursor, Progress


def find_latest(
    stored: Sequence[Stored], records: Sequence[Record], *, is_all: bool, epoch: int | None = None
) -> Cursor | int | None:
    """Return the place before the newest chunk that no reset has voided.

    Args:
        stored: The newest records as stored, newest first.
        records: The same records, decoded.
        is_all: Whether the stream has no other records.
        epoch: The newest epoch, where the backend does not fence: older records may be stale, and
            are passed over. ``None`` where none of the records is stale.

    Returns:
        The place; or how many records it takes to tell, which are more than those given; or
        ``None`` if there is no such chunk, or (with an epoch) only the whole stream can show it.
    """
    for index, record in enumerate(records):
        if epoch is not None and record.epoch != epoch:
            if record.epoch > epoch:
                return None
        elif record.kind is RecordKind.OPEN:
            if epoch is not None:
                return None  # the latest value is of an older epoch
        elif record.completes:
            is_repeated = epoch is not None and any(
                older.epoch == epoch and older.last_offset > record.last_offset
                for older in records[index + 1 :]
            )
            return None if is_repeated else _before(stored, records, index, is_all)
        elif record.resets:
            return None
    return None if is_all else len(records) + 1


def _before(
    stored: Sequence[Stored], records: Sequence[Record], index: int, is_all: bool
) -> Cursor | int | None:
    """Return the place before the last chunk of a record, which may be the last part of it."""
    record = records[index]
    first = index
    while record.parts > 1 and not _is_first_part(records[first], record):
        first += 1
        if first == len(records):
            return None if is_all else max(index + record.part + 2, first + 1)
    if first + 1 == len(records) and not is_all:
        return first + 2
    position = START if first + 1 == len(records) else stored[first + 1].position
    last = len(record.chunks) - 1
    offset = record.offset + record.resets + last
    return Cursor(Progress(record.epoch, record.attempt, record.seq + last, offset - 1), position)


def _is_first_part(record: Record, last: Record) -> bool:
    return record.part == 0 and (record.epoch, record.offset) == (last.epoch, last.offset)
