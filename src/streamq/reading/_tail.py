"""Determines where a stream stands, from its newest records or by reading all of it.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise

from streamq._errors import CapabilityError, CorruptRecordError, CursorError
from streamq._events import Chunk, Reset, Seal, StreamId
from streamq._retry import RetryPolicy
from streamq.calling import _calls as calling
from streamq.calling._breach import breach
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, Stored, StreamInfo
from streamq.records._wire import Record, RecordKind

from ._cursor import Cursor, Progress
from ._latest import find_latest
from ._sequencer import Sequencer, fold_tail

_FIRST_RECORDS = 4
_GROWTH = 8
_MOST_RECORDS = 2_048  # of the newest epoch, where the whole stream can be read instead
_PAGE_RECORDS = 1_000
_PAGE_BYTES = 4_194_304


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The status of a stream.

    Attributes:
        stream: Which stream.
        attempt: The newest attempt, from 1.
        offset: Offset of the newest event; 0 if only an attempt was opened.
        seal: The ending, or ``None`` while the stream is open.
        records: How many records are stored, if the backend knows.
        size_bytes: How much they take, if the backend knows.
        expires_in: Time until the stream expires.
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
    """The end of a stream, and the state of delivery there.

    Attributes:
        info: The backend's description.
        state: The sequencer after the newest record.
        cursor: The place after the newest event; but before the seal, so that a reader that begins
            here gets it, and before the parts of an incomplete chunk.
        position: The driver's position after the newest record.
        opening: The record that opened the newest epoch, if it was among those read.
        latest: The place before the latest value; ``None`` if there is none, or it was not asked
            for.
    """

    info: StreamInfo
    state: Sequencer
    cursor: Cursor
    position: str
    opening: bytes | None = None
    latest: Cursor | None = None

    @property
    def status(self) -> StreamStatus:
        """The tail as a public :class:`StreamStatus`."""
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


async def read_tail(
    queue: ChunkQueue, stream: StreamId, retry: RetryPolicy, *, is_new: bool = False
) -> Tail:
    """Return where a stream stands.

    Args:
        queue: Where it is stored.
        stream: Which stream.
        retry: How calls are retried.
        is_new: Whether the stream is known to have begun just now.

    Raises:
        StreamNotFoundError: It does not exist, or has expired.
        CapabilityError: The backend has no replay, so that its records cannot be read for this; or
            it neither fences nor keeps order.
        CorruptRecordError: One of its records is damaged.
        BackendUnavailableError: The backend stayed unreachable for the retry deadline.
    """
    _check_readable(queue, stream)
    if queue.capabilities.fenced:
        return await retry.run(lambda: _newest(queue, stream, is_new=is_new))
    return await _folded(queue, stream, retry)


async def read_latest(queue: ChunkQueue, stream: StreamId, retry: RetryPolicy) -> Cursor:
    """Return the place before the latest value: the newest chunk that no reset has voided.

    If there is none, it is the place after the newest event, or before the seal.

    Raises:
        StreamqError: As for :func:`read_tail`.
    """
    _check_readable(queue, stream)
    if queue.capabilities.fenced:
        tail = await retry.run(lambda: _newest(queue, stream, latest=True))
    else:
        found = await retry.run(lambda: _latest_of_newest_epoch(queue, stream))
        if found is not None:
            return found
        tail = await _folded(queue, stream, retry)
    return tail.latest or tail.cursor


async def newest_epoch(queue: ChunkQueue, stream: StreamId, retry: RetryPolicy) -> int:
    """Return the newest epoch of a stream, on any backend.

    Raises:
        StreamNotFoundError: The backend fences, and the stream does not exist.
        StreamqError: As for :func:`read_tail`.
    """
    if queue.capabilities.fenced:
        return (await read_tail(queue, stream, retry)).state.epoch
    return await retry.run(lambda: calling.known_epoch(queue, stream))


def _check_readable(queue: ChunkQueue, stream: StreamId) -> None:
    capabilities = queue.capabilities
    if not (capabilities.replay and capabilities.writable):
        raise CapabilityError(
            f"backend {queue.backend!r} cannot tell where stream {stream} stands: that takes "
            "replay, and a fence or order",
            backend=queue.backend,
            stream=str(stream),
        )


async def _folded(queue: ChunkQueue, stream: StreamId, retry: RetryPolicy) -> Tail:
    """Read the whole of a stream whose backend does not fence."""
    info = await retry.run(lambda: calling.describe(queue, stream))
    fold = Fold(queue, stream, retry)
    await fold.advance()
    return fold.tail(info)


async def _describe(
    queue: ChunkQueue, stream: StreamId, count: int
) -> tuple[StreamInfo, list[Record]]:
    """Return the description of a stream and its newest records, newest first, at least one."""
    info = await calling.describe(queue, stream, last=count)
    return info, [decode(stored, queue, stream) for stored in info.last]


async def _newest(
    queue: ChunkQueue, stream: StreamId, *, latest: bool = False, is_new: bool = False
) -> Tail:
    """Read the newest records of a backend that fences: none of them is stale."""
    count = _FIRST_RECORDS
    while True:
        info, records = await _describe(queue, stream, count)
        _check_order(records, queue, stream)
        is_all = len(records) < count
        state = fold_tail(records)
        if state is None and is_all:
            if not is_new and info.records != len(records):
                await _check_complete(info, queue, stream)
            # These are all records, and no attempt stored more than its opening.
            state = Sequencer()
            for record in reversed(records):
                state.feed(record)
        # With an incomplete chunk, back to the record before its first part.
        needed = records[0].part + 2 if _is_incomplete(records[0]) else 0
        value = find_latest(info.last, records, is_all=is_all) if latest else None
        if isinstance(value, int):
            needed = max(needed, value)
        if state is not None and (len(records) >= needed or is_all):
            newest, opened = info.last[0], records[0].kind is RecordKind.OPEN
            cursor = _cursor(info.last, records, state)
            opening = newest.data if opened else None
            before = value if isinstance(value, Cursor) else None
            return Tail(info, state, cursor, newest.position, opening, before)
        count = max(count * _GROWTH, needed)


def _check_order(records: list[Record], queue: ChunkQueue, stream: StreamId) -> None:
    """Refuse records that are not the newest first: numbering from them would lose events."""
    places = [(record.epoch, record.offset, record.part) for record in records]
    if any(newer <= older for newer, older in pairwise(places)):
        raise breach(
            f"describe() returned the records of stream {stream} in another order than the newest "
            "first, or one of them twice",
            "StreamInfo.last",
            backend=queue.backend,
            stream=stream,
        )


async def _check_complete(info: StreamInfo, queue: ChunkQueue, stream: StreamId) -> None:
    """Refuse a description that leaves out records: the stream would be numbered anew.

    Called where all that is known of the stream are openings of attempts. Those are few, and a
    driver that returns fewer records than it was asked for looks the same.
    """
    oldest = await Reads(queue, stream).read(START, max_records=1, max_bytes=1, max_wait=0.0)
    if oldest and oldest[0].data not in {stored.data for stored in info.last}:
        raise breach(
            f"describe() returned {len(info.last)} records of stream {stream} as if they were "
            "all, and an older one is stored",
            "StreamInfo.last",
            backend=queue.backend,
            stream=stream,
        )


async def _latest_of_newest_epoch(queue: ChunkQueue, stream: StreamId) -> Cursor | None:
    """Return the place before the latest value, if the newest records of a stream show it.

    The backend does not fence. Records of the newest epoch are never stale. It has been made known
    before any of them could be read, so it is asked for first.

    Returns:
        ``None`` if only reading the whole stream can tell: the newest epoch has stored nothing but
        its opening yet, or a record twice, or an even newer one has begun.
    """
    epoch = await calling.known_epoch(queue, stream)
    count = _FIRST_RECORDS
    while True:
        info, records = await _describe(queue, stream, count)
        is_all = len(records) < count
        value = find_latest(info.last, records, is_all=is_all, epoch=epoch)
        if not isinstance(value, int):
            return value
        if is_all or count >= _MOST_RECORDS:
            return None
        count = max(count * _GROWTH, value)


def _cursor(stored: tuple[Stored, ...], records: list[Record], state: Sequencer) -> Cursor:
    if state.seal is None:
        at = records[0].part + 1 if _is_incomplete(records[0]) else 0
        return Cursor(state.progress, stored[at].position if at < len(stored) else START)
    sealing = next(i for i, record in enumerate(records) if record.seal is not None)
    before = stored[sealing + 1].position if sealing + 1 < len(stored) else START
    return _before_seal(state, state.seal, before)


def _before_seal(state: Sequencer, seal: Seal, position: str) -> Cursor:
    p = state.progress
    return Cursor(Progress(p.epoch, p.attempt, p.next_seq, seal.offset - 1), position)


def _is_incomplete(record: Record) -> bool:
    return record.parts > 1 and not record.completes


def decode(stored: Stored, queue: ChunkQueue, stream: StreamId) -> Record:
    """Return a stored record.

    Raises:
        CorruptRecordError: It is damaged.
    """
    try:
        return Record.decode(stored.data)
    except CorruptRecordError as exc:
        exc.backend, exc.stream = queue.backend, str(stream)
        raise


@dataclass(slots=True)
class Fold:
    """Reads a stream forward to its end, for backends that do not fence.

    There, a record is stale because of a record before it in the one order in which all readers
    read. So only a pass over all records comes to the same state as every reader.
    """

    queue: ChunkQueue
    stream: StreamId
    retry: RetryPolicy
    state: Sequencer = field(default_factory=lambda: Sequencer(gaps_as_events=True))
    position: str = START
    opening: bytes | None = None
    _whole: str = START
    _latest: Cursor | None = None
    _reads: Reads = field(init=False)

    def __post_init__(self) -> None:
        self._reads = Reads(self.queue, self.stream)

    async def advance(self, until: bytes | None = None) -> bool:
        """Read on to the newest record, or only to a given one; return whether that one was found.

        Raises:
            CorruptRecordError: A stored record is damaged.
            BackendUnavailableError: The backend stayed unreachable for the retry deadline.
        """
        largest = self.queue.capabilities.max_record_bytes
        max_bytes = max(_PAGE_BYTES, 2 * largest)
        while True:
            page = await self.retry.run(partial(self._read, max_bytes))
            for stored in page:
                self._feed(stored)
                if stored.data == until:
                    return True
            size = sum(len(stored.data) for stored in page)
            if len(page) < _PAGE_RECORDS and size + largest <= max_bytes:
                return False

    def tail(self, info: StreamInfo) -> Tail:
        """Return where the stream stood after the last record read."""
        state, seal = self.state, self.state.seal
        if seal is None:
            cursor = Cursor(state.progress, self._whole)
        else:
            cursor = _before_seal(state, seal, self._whole)
        return Tail(info, state, cursor, self.position, self.opening, self._latest)

    async def _read(self, max_bytes: int) -> list[Stored]:
        found = await self._reads.read(
            self.position,
            max_records=_PAGE_RECORDS,
            max_bytes=max_bytes,
            max_wait=0.0,
        )
        return list(found)

    def _feed(self, stored: Stored) -> None:
        record = decode(stored, self.queue, self.stream)
        epoch, whole = self.state.epoch, self._whole
        try:
            events = self.state.feed(record)
        except CursorError:
            # The beginning is no longer stored, and records that a stale attempt wrote after its
            # successor took over were counted as valid. From here on the successor's count.
            base = Progress(record.epoch, record.attempt, record.seq, record.offset - 1)
            self.state = Sequencer(base, gaps_as_events=True)
            events = self.state.feed(record)
        for event in events:
            if isinstance(event, Reset):
                self._latest = None
            elif isinstance(event, Chunk):
                place = Progress(record.epoch, event.attempt, event.seq, event.offset - 1)
                self._latest = Cursor(place, whole)
        if self.state.epoch > epoch:
            self.opening = stored.data if record.kind is RecordKind.OPEN else None
        self.position = stored.position
        if self.state.seal is None and not self.state.holds_back:
            self._whole = stored.position
