"""Encodes and decodes records in wire format v1, specified byte by byte in docs/wire-format.md.

Design: docs/design/values.md.
"""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass, replace

from streamq._errors import CorruptRecordError
from streamq._events import SealState

from ._values import Encoding

VERSION = 1
MAX_EPOCH = 2**63 - 1
"""Largest epoch: it has to fit SQLite's signed integers as well as a Redis entry id."""
MAX_NUMBER = 2**62
"""Largest attempt, seq and offset in a record: numbers counted from them stay within 63 bits."""

MAX_CHUNK_BYTES = 2**30
"""Largest chunk, whole or in parts: the most that a record can make a reader hold in memory."""

_MAX_CODED_CHUNKS = 65_536
"""Most chunks of a record with a codec, whose size gives no bound on their number."""

_DATA, _RESTART, _SEALED, _RESETS, _PART, _CODED, _HEADERS = 1, 2, 4, 8, 16, 32, 64
_DATA_ONLY = _SEALED | _RESETS | _PART | _CODED
_FLAGS = _DATA | _RESTART | _DATA_ONLY | _HEADERS
_NONCE_BYTES = 8
_CRC_BYTES = 4
_ENCODINGS = tuple(Encoding)
_SEAL_STATES = {state.value: state for state in SealState}


class RecordKind(enum.Enum):
    """OPEN announces an attempt and fences older ones; DATA carries chunks and perhaps the seal."""

    OPEN = "open"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class SealBody:
    """The seal as stored: :class:`streamq.Seal` without its place in the stream.

    Attributes:
        producer: Name that the sealing writer was opened with; may be empty.
    """

    state: SealState
    error_type: str = ""
    message: str = ""
    retryable: bool = False
    producer: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One stored unit: the announcement of an attempt, or packed chunks with an optional seal.

    Attributes:
        kind: OPEN or DATA.
        epoch: Which run of the producer wrote it; grows with every run, 1 to 2**63-1.
        restarts: Whether the positions of this epoch start over instead of continuing.
        attempt: Dense number of the epoch, 1, 2, ...; 0 in OPEN, written before it is known.
        seq: Position of the first chunk within the attempt; 0 in OPEN.
        offset: Offset of the first event in this record; 0 in OPEN.
        resets: Whether the first event is a ``Reset``, before any chunk.
        chunks: Encoded chunks, in order.
        seal: The ending, after the last chunk, or ``None``.
        part: Which part of a chunk that is larger than a record, from 0; the record then holds
            nothing else. Its seq and offset are those of the chunk.
        parts: How many parts that chunk has; 1 if the chunks are whole.
        created_ms: OPEN only: when the attempt was opened, Unix milliseconds, producer's clock.
        nonce: OPEN only: eight random bytes, which distinguish two writers of one epoch.
        coded: The chunks and the seal's texts as encoded by a codec; they are empty in a record
            that was decoded, until :meth:`reveal`.
        headers: OPEN only: names and values stored with the attempt, such as trace context.
    """

    kind: RecordKind
    epoch: int
    restarts: bool
    attempt: int = 0
    seq: int = 0
    offset: int = 0
    chunks: tuple[tuple[Encoding, bytes], ...] = ()
    seal: SealBody | None = None
    resets: bool = False
    part: int = 0
    parts: int = 1
    created_ms: int = 0
    nonce: bytes = bytes(_NONCE_BYTES)
    coded: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def completes(self) -> int:
        """How many chunks are complete with this record: none before the last part of one."""
        return len(self.chunks) if self.part == self.parts - 1 else 0

    @property
    def last_offset(self) -> int:
        """Offset of the last event that is complete with this record."""
        return self.offset + self.resets + self.completes + (self.seal is not None) - 1

    def encode(self) -> bytes:
        """Return the bytes of this record in wire format v1."""
        is_data = self.kind is RecordKind.DATA
        flags = _DATA * is_data | _RESTART * self.restarts
        flags |= _SEALED * (self.seal is not None) | _RESETS * self.resets
        flags |= _PART * (self.parts > 1) | _CODED * (self.coded is not None)
        flags |= _HEADERS * bool(self.headers)
        out = bytearray((VERSION, flags))
        _put_varint(out, self.epoch)
        if not is_data:
            _put_varint(out, self.created_ms)
            out += self.nonce
            if self.headers:
                _put_varint(out, len(self.headers))
                for name, value in self.headers:
                    _put_text(out, name)
                    _put_text(out, value)
        else:
            for number in (self.attempt, self.seq, self.offset, len(self.chunks)):
                _put_varint(out, number)
            if self.parts > 1:
                _put_varint(out, self.part)
                _put_varint(out, self.parts)
            if self.coded is not None:
                _put_varint(out, len(self.coded))
                out += self.coded
            else:
                self._put_chunks(out)
            if self.seal is not None:
                out.append(self.seal.state)
                if self.seal.state is SealState.ERROR:
                    out.append(self.seal.retryable)
                if self.coded is None:
                    self._put_seal_texts(out)
                _put_text(out, self.seal.producer)
        out += zlib.crc32(out).to_bytes(_CRC_BYTES, "little")
        return bytes(out)

    def _put_chunks(self, out: bytearray) -> None:
        for encoding, data in self.chunks:
            _put_varint(out, len(data) << 2 | encoding)
            out += data

    def _put_seal_texts(self, out: bytearray) -> None:
        if self.seal is not None:
            if self.seal.state is SealState.ERROR:
                _put_text(out, self.seal.error_type)
            _put_text(out, self.seal.message)

    def body(self) -> bytes:
        """Return the bytes that a codec encodes: the chunks, then the seal's texts."""
        out = bytearray()
        self._put_chunks(out)
        self._put_seal_texts(out)
        return bytes(out)

    def reveal(self, body: bytes) -> Record:
        """Return a coded record with its chunks and texts, from the body that its codec decoded.

        Args:
            body: As :meth:`body` returned it before it was encoded.

        Raises:
            CorruptRecordError: The body is not the one that was encoded.
        """
        scan = _Scanner(body, 0)
        chunks = scan.chunks(len(self.chunks))
        seal = self.seal
        if seal is not None:
            error_type = scan.text() if seal.state is SealState.ERROR else ""
            seal = replace(seal, error_type=error_type, message=scan.text())
        scan.expect_end()
        return replace(self, chunks=chunks, seal=seal, coded=None)

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Read one record.

        Args:
            data: Exactly the bytes that :meth:`encode` returned, by any version 1 writer.

        Raises:
            CorruptRecordError: The bytes are truncated, altered, or of an unknown version.
        """
        if len(data) < 2 + _CRC_BYTES:
            raise CorruptRecordError(f"record of {len(data)} bytes is truncated")
        if data[0] != VERSION:
            raise CorruptRecordError(
                f"record has wire format version {data[0]}; this streamq reads version {VERSION}"
            )
        body, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if zlib.crc32(body) != int.from_bytes(crc, "little"):
            raise CorruptRecordError(
                f"record of {len(data)} bytes fails its checksum: truncated or altered in storage"
            )
        flags = body[1]
        if flags & ~_FLAGS:
            raise CorruptRecordError(f"record has unknown flags {flags:#04x}")
        scan = _Scanner(body, 2)
        epoch = scan.varint()
        if not 0 < epoch <= MAX_EPOCH:
            raise CorruptRecordError(f"record has epoch {epoch}, outside 1 to 2**63-1")
        restarts = bool(flags & _RESTART)
        if not flags & _DATA:
            if flags & _DATA_ONLY:
                raise CorruptRecordError("an OPEN record carries what only a DATA record may")
            created_ms, nonce = scan.varint(), scan.take(_NONCE_BYTES)
            headers = scan.headers() if flags & _HEADERS else ()
            scan.expect_end()
            return cls(
                RecordKind.OPEN,
                epoch,
                restarts,
                created_ms=created_ms,
                nonce=nonce,
                headers=headers,
            )
        if flags & _HEADERS:
            raise CorruptRecordError("a DATA record carries headers, which only an OPEN record may")
        attempt, seq, offset, count = scan.varint(), scan.varint(), scan.varint(), scan.varint()
        if attempt == 0 or offset == 0:
            raise CorruptRecordError("a DATA record has attempt or offset 0")
        if max(attempt, seq, offset) > MAX_NUMBER:
            raise CorruptRecordError("a DATA record has an attempt, seq or offset above 2**62")
        part, parts = (scan.varint(), scan.varint()) if flags & _PART else (0, 1)
        coded = scan.coded(count) if flags & _CODED else None
        chunks = scan.chunks(count) if coded is None else ((Encoding.BYTES, b""),) * count
        seal = scan.seal(texts=coded is None) if flags & _SEALED else None
        resets = bool(flags & _RESETS)
        if not chunks and seal is None and not resets:
            raise CorruptRecordError("a DATA record has neither reset, chunks nor seal")
        scan.expect_end()
        if flags & _PART:
            if len(chunks) != 1 or seal is not None or resets:
                raise CorruptRecordError("a record with a part of a chunk holds something else")
            if not part < parts or not 1 < parts <= MAX_CHUNK_BYTES:
                raise CorruptRecordError(f"a record has part {part} of {parts} of a chunk")
        return cls(
            RecordKind.DATA,
            epoch,
            restarts,
            attempt,
            seq,
            offset,
            chunks,
            seal,
            resets,
            part,
            parts,
            coded=coded,
        )


def _put_varint(out: bytearray, number: int) -> None:
    """Append an unsigned LEB128 number."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_text(out: bytearray, text: str) -> None:
    data = text.encode("utf-8", "replace")
    _put_varint(out, len(data))
    out += data


class _Scanner:
    """Reads the body of a record from left to right, never past its end."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = start

    def varint(self) -> int:
        data, at = self._data, self._at
        number = shift = 0
        while True:
            if at >= len(data):
                raise CorruptRecordError("record is truncated inside a number")
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise CorruptRecordError("record has a number of more than 64 bits")
        if number >= 2**64:
            raise CorruptRecordError("record has a number of more than 64 bits")
        self._at = at
        return number

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise CorruptRecordError(
                f"record announces {size} bytes where {len(self._data) - self._at} are left"
            )
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def headers(self) -> tuple[tuple[str, str], ...]:
        # Every header takes at least two bytes: refuse a hostile count before looping over it.
        count = self.varint()
        if not 0 < count <= (len(self._data) - self._at) // 2:
            raise CorruptRecordError(f"record announces {count} headers, which cannot be")
        headers = tuple((self.text(), self.text()) for _ in range(count))
        if len(dict(headers)) != count:
            raise CorruptRecordError("record has two headers of one name")
        return headers

    def chunks(self, count: int) -> tuple[tuple[Encoding, bytes], ...]:
        # Every chunk takes at least one byte: refuse a hostile count before looping over it.
        if count > len(self._data) - self._at:
            raise CorruptRecordError(f"record announces {count} chunks, more than it has bytes")
        chunks = []
        for _ in range(count):
            head = self.varint()
            chunks.append((_ENCODINGS[head & 3], self.take(head >> 2)))
        return tuple(chunks)

    def coded(self, count: int) -> bytes:
        if count > _MAX_CODED_CHUNKS:
            raise CorruptRecordError(f"record announces {count} chunks behind a codec")
        return self.take(self.varint())

    def seal(self, *, texts: bool) -> SealBody:
        code = self.take(1)[0]
        state = _SEAL_STATES.get(code)
        if state is None:
            raise CorruptRecordError(f"seal has unknown state {code}")
        retryable = self.take(1)[0] if state is SealState.ERROR else 0
        if retryable > 1:
            raise CorruptRecordError(f"seal has retryable flag {retryable}")
        error_type = self.text() if texts and state is SealState.ERROR else ""
        message = self.text() if texts else ""
        return SealBody(state, error_type, message, bool(retryable), self.text())

    def text(self) -> str:
        try:
            return self.take(self.varint()).decode()
        except UnicodeDecodeError as exc:
            raise CorruptRecordError(f"record has text that is not UTF-8: {exc}") from exc

    def expect_end(self) -> None:
        if self._at != len(self._data):
            raise CorruptRecordError(f"record has {len(self._data) - self._at} bytes too many")
