"""Where a stream stands now: learnt from its newest records, without reading it through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ._cursor import Cursor, Progress
from ._errors import CapabilityError, CorruptRecordError
from ._events import Seal, StreamId
from ._sequencer import Sequencer, fold_tail
from ._wire import Record
from .driver import START, ChunkQueue, StreamInfo

_FIRST_LOOK = 4
_GROWTH = 8


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Where a stream stands.

    Attributes:
        stream: Which stream.
        attempt: The newest attempt, from 1.
        offset: Offset of the newest event; 0 if only an attempt was opened.
        seal: The ending, or ``None`` while the stream is open.
        records: How many records are stored, if the backend knows.
        size_bytes: How much they take, if the backend knows.
        expires_in: Time until the stream disappears by itself.
    """

    stream: StreamId
    attempt: int
    offset: int
    seal: Seal | None
    records: int | None
    size_bytes: int | None
    expires_in: timedelta | None


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest records of a stream and what they say.

    Attributes:
        info: The backend's description.
        state: The sequencer after the newest record.
        newest: The newest record.
    """

    info: StreamInfo
    state: Sequencer
    newest: Record

    @property
    def status(self) -> StreamStatus:
        """The state in the reader's words."""
        info, state = self.info, self.state
        return StreamStatus(
            info.stream,
            state.attempt,
            state.offset,
            state.seal,
            info.records,
            info.size_bytes,
            info.expires_in,
        )

    def cursor(self) -> Cursor:
        """The place after the newest event; before the seal, so that a late reader learns of it."""
        stored, seal = self.info.last, self.state.seal
        if seal is None:
            # Before the parts of a chunk that is not complete: it will be told.
            at = self.newest.part + 1 if _is_incomplete(self.newest) else 0
            position = stored[at].position if at < len(stored) else START
            return Cursor(self.state.progress, position)
        for i, record in enumerate(stored):
            if Record.decode(record.data).seal is not None:
                before = stored[i + 1].position if i + 1 < len(stored) else START
                break
        p = self.state.progress
        return Cursor(Progress(p.epoch, p.attempt, p.next_seq, seal.offset - 1), before)


def _is_incomplete(record: Record) -> bool:
    return record.parts > 1 and not record.completes


def check_fenced(queue: ChunkQueue) -> None:
    """Refuse a backend whose newest records prove nothing, since stale ones may be among them.

    Raises:
        CapabilityError: It does not fence.
    """
    if not queue.capabilities.fenced:
        raise CapabilityError(
            f"backend {queue.backend!r} does not fence stale attempts; the end of a stream cannot "
            "be told from its newest records alone",
            backend=queue.backend,
        )


async def read_tail(queue: ChunkQueue, stream: StreamId) -> Tail:
    """Learn where a stream stands.

    Raises:
        StreamNotFoundError: It does not exist, or has expired.
        CapabilityError: The backend does not fence, so that its tail alone says nothing certain.
        CorruptRecordError: One of its newest records is damaged.
    """
    check_fenced(queue)
    look = _FIRST_LOOK
    while True:
        info = await queue.describe(stream, last=look)
        try:
            records = [Record.decode(stored.data) for stored in info.last]
        except CorruptRecordError as exc:
            exc.backend, exc.stream = queue.backend, str(stream)
            raise
        state = fold_tail(records)
        if state is None and len(records) < look:
            # The whole stream, and nothing but attempts that stored nothing.
            state = Sequencer()
            for record in reversed(records):
                state.feed(record)
        # With an incomplete chunk, as far as the record before its first part.
        needed = records[0].part + 2 if records and _is_incomplete(records[0]) else 0
        if state is not None and (len(records) >= needed or len(records) < look):
            return Tail(info, state, records[0])
        look = max(look * _GROWTH, needed)
