"""What a writer has accepted and not yet stored: numbering, packing, the byte bound, one seal.

A pure state machine: no clock, no I/O. :class:`~streamq.StreamWriter` puts chunks in and carries
batches to the backend, one at a time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from ._cursor import Progress
from ._errors import ReplayError, SealedError
from ._events import SealState, StreamId
from ._replay import Fingerprints, fingerprint
from ._values import Encoding
from ._wire import Record, RecordKind, SealBody
from .driver import Entry

_TARGET_RECORD_BYTES = 65_536
"""Small chunks are packed into records of about this size: large enough to amortise a round trip,
small enough that a reader with a byte limit never holds much more than it asked for."""

_APPEND_BYTES = 1_048_576
"""Most bytes handed to the backend in one append."""

_RECORD_OVERHEAD = 64
"""Upper bound of the header, seal marker and checksum around the chunks of one record."""

CHUNK_OVERHEAD = 6
"""Upper bound of what a record adds to each chunk."""

HELD_OVERHEAD = 100
"""What holding a chunk back takes in memory beside its bytes, so that a bound on what is held is
one on memory, however small the chunks are."""

SMALLEST_RECORD_BYTES = 4_096
"""Every backend has to store records of this size: a seal is never split."""

MAX_PRODUCER_BYTES = 2_000
_ERROR_TYPE_CHARS = 200
_MESSAGE_CHARS = 2_000


_Whole: TypeAlias = tuple[Encoding, bytes]


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a chunk that is larger than a record."""

    chunk: _Whole
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are stored by one append; repeating the append changes nothing.

    Attributes:
        records: In order; never empty.
        first_index: Index of the first one within its epoch; the others follow densely.
        frees_bytes: Bytes of buffer that become free once it is stored.
        next_seq: Seq after its last complete chunk.
        seals: Whether the last record ends the stream.
    """

    records: tuple[Record, ...]
    first_index: int
    frees_bytes: int
    next_seq: int
    seals: bool

    def entries(self) -> tuple[Entry, ...]:
        """Return the records as the backend stores them."""
        numbered = enumerate(self.records, self.first_index)
        return tuple(Entry(record.epoch, index, record.encode()) for index, record in numbered)


class Outbox:
    """Chunks of one attempt between ``send_chunk`` and the acknowledgement.

    At most one batch is on its way: :meth:`pack` gives it, and gives the same one again until
    :meth:`acknowledge` is called.

    Args:
        progress: Where this attempt begins: its epoch and attempt, the seq and offset before it.
        stream: Which stream, for messages.
        restarts: Whether it starts over.
        takes_back: Whether readers are then told to forget what earlier attempts told.
        max_record_bytes: Largest record that the backend stores, at least
            :data:`SMALLEST_RECORD_BYTES`.
        durable: For an attempt that replays: fingerprints of the chunks that are stored already.
            What is sent again is compared with them and dropped.
        producer: Stored with the seal; at most 2,000 bytes.
        holds_back: Keep every chunk until END is asked for; with another ending they are let go.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        stream: StreamId,
        restarts: bool,
        takes_back: bool,
        max_record_bytes: int,
        durable: Fingerprints | None = None,
        producer: str = "",
        holds_back: bool = False,
    ) -> None:
        self.epoch = progress.epoch
        self.attempt = progress.attempt
        self.resumed_from = 0 if restarts else progress.next_seq
        self.buffered_bytes = 0
        self.is_sealed = False
        self.durable_seq = self.resumed_from
        self.seal: SealBody | None = None
        self._stream = str(stream)
        self._restarts = restarts
        self._producer = producer
        self._durable = durable
        # What earlier attempts told is taken back by a Reset, which is sent at once.
        self._resets = restarts and takes_back
        self._position = 0 if durable is not None else self.resumed_from
        self._sent_seq = self.resumed_from
        self._next_offset = progress.offset + 1
        self._next_index = 1  # 0 is the record that opened the epoch
        self._pending: deque[_Whole | _Part] = deque()
        self._accepted: deque[_Whole | _Part] = deque() if holds_back else self._pending
        self._overhead = HELD_OVERHEAD if holds_back else CHUNK_OVERHEAD
        self._on_its_way: Batch | None = None
        self._max_record_bytes = max_record_bytes
        self._body_bytes = max_record_bytes - _RECORD_OVERHEAD
        self._record_bytes = min(_TARGET_RECORD_BYTES, self._body_bytes)

    @property
    def whole_bytes(self) -> int:
        """Largest chunk that fits into one record."""
        return self._body_bytes - CHUNK_OVERHEAD

    @property
    def position(self) -> int:
        """Seq of the next chunk to be accepted."""
        return self._position

    @property
    def is_replaying(self) -> bool:
        """Whether the next chunk is expected to be one that is stored already."""
        return self._position < self.resumed_from

    @property
    def has_work(self) -> bool:
        """Whether :meth:`pack` would return something."""
        return (
            self._on_its_way is not None
            or bool(self._pending)
            or self._resets
            or (self.seal is not None and not self.is_sealed)
        )

    def has_room(self, size: int, limit: int) -> bool:
        """Whether a chunk of ``size`` bytes fits below ``limit``; one always fits when empty."""
        return not self.buffered_bytes or self.buffered_bytes + size + self._overhead <= limit

    def accept(self, encoding: Encoding, data: bytes) -> None:
        """Take a chunk, however large: what is larger than a record is cut into parts.

        Raises:
            SealedError: A seal was asked for.
            ReplayError: The chunk is not the one that an earlier attempt stored at this place.
                Nothing is taken; the same chunk may be corrected and sent again.
        """
        if self.seal is not None:
            self.check_open()
        if self._position < self.resumed_from:
            self._compare(encoding, data)
            return
        size = len(data)
        limit = self.whole_bytes
        # The chunk goes in last and at once, and without a call between the three: Temporal may
        # interrupt a thread at any call, and missing parts would spoil the stream.
        if size <= limit:
            self._position += 1
            self.buffered_bytes += size + self._overhead
            self._accepted.append((encoding, data))
            return
        parts = -(-size // limit)
        pieces = [
            _Part((encoding, data[part * limit : (part + 1) * limit]), part, parts)
            for part in range(parts)
        ]
        self._position += 1
        self.buffered_bytes += size + parts * self._overhead
        self._accepted.extend(pieces)

    def _compare(self, encoding: Encoding, data: bytes) -> None:
        known = self._durable.get(self._position) if self._durable else None
        # What has been trimmed cannot be compared, and nobody can read it any more.
        if known is not None and known != fingerprint(encoding, data):
            raise ReplayError(
                f"chunk {self._position} of stream {self._stream} differs from the one that an "
                "earlier attempt stored; OnRetry.REPLAY is for output that is the same each "
                "time, OnRetry.RESTART for any other",
                seq=self._position,
                stream=self._stream,
            )
        self._position += 1

    def check_open(self) -> None:
        """Raise if nothing can be accepted any more.

        Raises:
            SealedError: A seal was asked for.
        """
        if self.seal is not None:
            raise SealedError(
                f"stream {self._stream} is already sealed {self.seal.state.name}; nothing can be "
                "added to it",
                stream=self._stream,
            )

    def ask_seal(
        self, state: SealState, *, error_type: str = "", message: str = "", retryable: bool = False
    ) -> None:
        """End the stream after everything accepted; asking for the same ending again is harmless.

        Raises:
            SealedError: Another ending was asked for.
            ReplayError: END, while an earlier attempt had sent more than was sent again.
        """
        if self.seal is not None:
            if self.seal.state is not state:
                self.check_open()
            return
        if state is SealState.END and self.is_replaying:
            raise ReplayError(
                f"only {self._position} of the {self.resumed_from} chunks that earlier attempts "
                f"stored in {self._stream} were sent again; OnRetry.REPLAY needs all of them",
                seq=self._position,
                stream=self._stream,
            )
        error_type = error_type[:_ERROR_TYPE_CHARS]
        room = self._body_bytes - 4 * len(error_type) - len(self._producer.encode())
        message = message[: min(_MESSAGE_CHARS, room // 4)]
        self.seal = SealBody(state, error_type, message, retryable, self._producer)
        if self._accepted is not self._pending:
            self._release(state)

    def _release(self, state: SealState) -> None:
        """Send what was held back, or let it go with an attempt that came to nothing."""
        if state is SealState.END:
            # From here on they are counted as any other.
            self.buffered_bytes -= len(self._accepted) * (HELD_OVERHEAD - CHUNK_OVERHEAD)
            self._pending, self._accepted = self._accepted, deque()
        else:
            self._accepted.clear()
            self.buffered_bytes = 0

    def pack(self) -> Batch | None:
        """Return the batch to store next; the same one until it is acknowledged."""
        if self._on_its_way is None and self.has_work:
            self._on_its_way = self._pack()
        return self._on_its_way

    def acknowledge(self) -> None:
        """The batch that :meth:`pack` returned is stored."""
        batch, self._on_its_way = self._on_its_way, None
        if batch is None:
            return
        self.durable_seq = batch.next_seq
        self.buffered_bytes -= batch.frees_bytes
        self.is_sealed = batch.seals

    def _pack(self) -> Batch:
        records: list[Record] = []
        first_index, taken = self._next_index, 0
        pending = self._pending
        seal: SealBody | None = None
        while pending and taken < _APPEND_BYTES:
            head = pending[0]
            if isinstance(head, _Part):
                if self._resets:  # on its own: a part shares its record with nothing
                    records.append(self._record())
                pending.popleft()
                taken += len(head.chunk[1]) + CHUNK_OVERHEAD
                records.append(self._record((head.chunk,), part=head.part, parts=head.parts))
                continue
            chunks, size = self._take_whole()
            taken += size
            fits = size + self._seal_bytes() <= self._max_record_bytes
            seal = self.seal if not pending and fits else None
            records.append(self._record(chunks, seal))
        if not records:
            seal = self.seal  # the seal alone, or the reset alone
            records.append(self._record((), seal))
        return Batch(tuple(records), first_index, taken, self._sent_seq, seal is not None)

    def _take_whole(self) -> tuple[tuple[_Whole, ...], int]:
        """Take as many chunks as fit into one record, at least one; with the bytes they take."""
        pending, size = self._pending, 0
        chunks: list[_Whole] = []
        while pending:
            head = pending[0]
            if isinstance(head, _Part):
                break
            cost = len(head[1]) + CHUNK_OVERHEAD
            if chunks and size + cost > self._record_bytes:
                break
            size += cost
            chunks.append(head)
            pending.popleft()
        return tuple(chunks), size

    def _seal_bytes(self) -> int:
        seal = self.seal
        if seal is None:
            return _RECORD_OVERHEAD
        texts = 4 * (len(seal.error_type) + len(seal.message)) + len(seal.producer.encode())
        return _RECORD_OVERHEAD + texts

    def _record(
        self,
        chunks: tuple[_Whole, ...] = (),
        seal: SealBody | None = None,
        *,
        part: int = 0,
        parts: int = 1,
    ) -> Record:
        resets, self._resets = self._resets, False
        record = Record(
            RecordKind.DATA,
            self.epoch,
            self._restarts,
            self.attempt,
            self._sent_seq,
            self._next_offset,
            chunks,
            seal,
            resets,
            part,
            parts,
        )
        self._sent_seq += record.completes
        self._next_offset = record.last_offset + 1
        self._next_index += 1
        return record
