"""Holds the chunks that a writer has accepted and not yet stored; numbers, packs and seals them.

A pure state machine: no clock, no I/O. :class:`~streamq.StreamWriter` puts chunks in, and its
``Sender`` carries batches to the backend, one at a time.

Design: docs/design/writing.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from streamq._errors import ReplayError, SealedError
from streamq._events import SealState, StreamId
from streamq.driver import Entry
from streamq.reading._cursor import Progress
from streamq.records._text import well_formed
from streamq.records._values import Encoding
from streamq.records._wire import Record, RecordKind, SealBody

from ._replay import Fingerprints, fingerprint

_TARGET_RECORD_BYTES = 65_536
"""Small chunks are packed into records of about this size: large enough to amortise a round trip,
small enough that a reader with a byte limit never holds much more than it requested."""

_APPEND_BYTES = 1_048_576
"""Most bytes handed to the backend in one append."""

_RECORD_OVERHEAD = 64
"""Upper bound of the header, seal marker and checksum of one record, in bytes."""

CHUNK_OVERHEAD = 6
"""Upper bound of the bytes that a record adds to each chunk."""

HELD_OVERHEAD = 100
"""Memory that a held chunk takes beside its bytes; counted, so that the bound on held bytes is a
bound on memory, however small the chunks are."""

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


@dataclass(slots=True)
class Batch:
    """Records that are stored by one append; repeating the append changes nothing.

    Attributes:
        records: In order, until they have been encoded.
        first_index: Index of the first one within its epoch; the others follow densely.
        frees_bytes: Bytes of buffer that become free once it is stored.
        next_seq: Seq after its last complete chunk.
        seals: Whether the last record carries the seal.
    """

    records: tuple[Record, ...]
    first_index: int
    frees_bytes: int
    next_seq: int
    seals: bool
    _entries: tuple[Entry, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """Return the records as the backend stores them, encoded once; never empty.

        The batch does not keep its data twice: it lets go of the records.
        """
        if not self._entries:
            numbered = enumerate(self.records, self.first_index)
            self._entries = tuple(
                Entry(each.epoch, index, each.encode()) for index, each in numbered
            )
            self.records = ()
        return self._entries


class Outbox:
    """Chunks of one attempt between ``send_chunk`` and the acknowledgement.

    At most one batch is in flight: :meth:`pack` returns it, and returns the same one again until
    :meth:`acknowledge` is called.

    Args:
        progress: Where this attempt begins: its epoch and attempt, the seq and offset before it.
        stream: Which stream, for messages.
        restarts: Whether the attempt starts over.
        needs_reset: Whether an attempt that starts over begins with a ``Reset``, which voids the
            chunks of earlier attempts.
        max_record_bytes: Largest record that the backend stores, at least
            :data:`SMALLEST_RECORD_BYTES`.
        durable: For an attempt that replays: fingerprints of the chunks that are stored already.
            Chunks that are sent again are compared with them and dropped.
        producer: Stored with the seal; at most 2,000 bytes.
        holds_back: Keep every chunk until END is requested; another ending discards them.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        stream: StreamId,
        restarts: bool,
        needs_reset: bool,
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
        # The Reset that voids earlier attempts is sent at once, before any chunk.
        self._resets = restarts and needs_reset
        self._position = 0 if durable is not None else self.resumed_from
        self._sent_seq = self.resumed_from
        self._next_offset = progress.offset + 1
        self._next_index = 1  # 0 is the record that opened the epoch
        self._pending: deque[_Whole | _Part] = deque()
        self._accepted: deque[_Whole | _Part] = deque() if holds_back else self._pending
        self._released = 0  # how many of the pending ones END has released in batch mode
        self._overhead = HELD_OVERHEAD if holds_back else CHUNK_OVERHEAD
        self._in_flight: Batch | None = None
        self._max_record_bytes = max_record_bytes
        self._body_bytes = max_record_bytes - _RECORD_OVERHEAD
        self._record_bytes = min(_TARGET_RECORD_BYTES, self._body_bytes)

    @property
    def whole_bytes(self) -> int:
        """Largest chunk that fits into one record."""
        return self._body_bytes - CHUNK_OVERHEAD

    @property
    def position(self) -> int:
        """Seq that the next accepted chunk gets."""
        return self._position

    @property
    def is_replaying(self) -> bool:
        """Whether the next chunk has to equal one that is stored already."""
        return self._position < self.resumed_from

    @property
    def has_work(self) -> bool:
        """Whether :meth:`pack` would return a batch."""
        return (
            self._in_flight is not None
            or bool(self._pending)
            or self._resets
            or (self.seal is not None and not self.is_sealed)
        )

    def has_room(self, size: int, limit: int) -> bool:
        """Whether a chunk of ``size`` bytes fits below ``limit``; the first one always fits."""
        return not self.buffered_bytes or self.buffered_bytes + size + self._overhead <= limit

    def accept(self, encoding: Encoding, data: bytes) -> None:
        """Accept a chunk of any size: one that is larger than a record is split into parts.

        Raises:
            SealedError: A seal was requested.
            ReplayError: The chunk differs from the one that an earlier attempt stored at this seq.
                It is not accepted; the caller may send a corrected one.
        """
        if self.seal is not None:
            self.check_open()
        if self._position < self.resumed_from:
            self._compare(encoding, data)
            return
        size = len(data)
        limit = self.whole_bytes
        # Temporal may interrupt a thread at any call, and a chunk with missing parts would corrupt
        # the stream. So all parts are added by one call, which comes last.
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
        # A trimmed chunk cannot be compared; no reader can read it any more either.
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
        """Raise if no chunk can be accepted any more.

        Raises:
            SealedError: A seal was requested.
        """
        if self.seal is not None:
            raise SealedError(
                f"stream {self._stream} is already sealed {self.seal.state.name}; nothing can be "
                "added to it",
                stream=self._stream,
            )

    def request_seal(
        self, state: SealState, *, error_type: str = "", message: str = "", retryable: bool = False
    ) -> None:
        """Seal the stream after every accepted chunk; requesting the same state again is harmless.

        Raises:
            SealedError: Another ending was requested before.
            ReplayError: END, although not all durable chunks were sent again.
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
        error_type, message = well_formed(error_type), well_formed(message)
        room = self._body_bytes - 4 * len(error_type) - len(self._producer.encode())
        message = message[: min(_MESSAGE_CHARS, room // 4)]
        self.seal = SealBody(state, error_type, message, retryable, self._producer)
        if self._accepted is not self._pending:
            self._release(state)

    @property
    def can_withdraw_seal(self) -> bool:
        """Whether neither the seal, nor a chunk that batch mode has released with it, was sent."""
        if self.is_sealed or (self._in_flight is not None and self._in_flight.seals):
            return False
        return self._accepted is self._pending or len(self._pending) == self._released

    def withdraw_seal(self) -> bool:
        """Forget a requested seal if that is possible, and return whether it is.

        Another ending can be requested then. Batch mode holds back again what END has released.
        """
        if not self.can_withdraw_seal:
            return False
        self.seal = None
        if self._released:
            self._pending, self._accepted = self._accepted, self._pending
            self.buffered_bytes += self._released * (HELD_OVERHEAD - CHUNK_OVERHEAD)
            self._released = 0
        return True

    def check_sealed(self, state: SealState) -> None:
        """Raise ``SealedError`` unless the stream is sealed so: the seal may be withdrawn."""
        if self.seal is None or self.seal.state is not state or not self.is_sealed:
            raise SealedError(
                f"stream {self._stream} was not sealed {state.name}: its producer was cancelled "
                "before that was sent",
                stream=self._stream,
            )

    def _release(self, state: SealState) -> None:
        """Send the chunks that were held back at END, or discard those of a failed attempt."""
        if state is SealState.END:
            # From here on they are counted like all others.
            self._released = len(self._accepted)
            self.buffered_bytes -= self._released * (HELD_OVERHEAD - CHUNK_OVERHEAD)
            self._pending, self._accepted = self._accepted, deque()
        else:
            self._accepted.clear()
            self.buffered_bytes = 0

    def pack(self) -> Batch | None:
        """Return the batch to store next; the same one until it is acknowledged."""
        if self._in_flight is None and self.has_work:
            self._in_flight = self._pack()
        return self._in_flight

    def acknowledge(self) -> None:
        """Mark the batch that :meth:`pack` returned as stored."""
        batch, self._in_flight = self._in_flight, None
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
                if self._resets:  # in a record of its own: a part shares its record with nothing
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
            seal = self.seal  # a record with only the seal, or only the reset
            records.append(self._record((), seal))
        return Batch(tuple(records), first_index, taken, self._sent_seq, seal is not None)

    def _take_whole(self) -> tuple[tuple[_Whole, ...], int]:
        """Remove the chunks that fit into one record, at least one; return them and their size."""
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
