"""Fingerprints of stored chunks, with which the chunks of a replaying attempt are compared.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from streamq._errors import CorruptRecordError, SerializationError
from streamq._events import Chunk, Reset, StreamId
from streamq._retry import RetryPolicy
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, Stored
from streamq.reading._sequencer import Sequencer
from streamq.records._codec import Codec, reveal
from streamq.records._values import Encoding
from streamq.records._wire import Record

_SIZE = 8
_READ_RECORDS = 1_000
_READ_BYTES = 4_194_304


def fingerprint(encoding: Encoding, data: bytes) -> bytes:
    """Return eight bytes that differ when the chunks do."""
    return hashlib.blake2b(data, digest_size=_SIZE, salt=bytes((encoding,))).digest()


class Fingerprints:
    """Fingerprints of consecutive chunks, eight bytes each, however long the stream is."""

    def __init__(self) -> None:
        self._first = 0
        self._data = bytearray()

    def add(self, seq: int, value: bytes) -> None:
        """Add that of the next chunk; after a gap, those before the gap are removed."""
        if seq != self._first + len(self._data) // _SIZE:
            self._first = seq
            self._data.clear()
        self._data += value

    def get(self, seq: int) -> bytes | None:
        """Return the fingerprint of a chunk, or ``None`` if it is not known."""
        at = (seq - self._first) * _SIZE
        return bytes(self._data[at : at + _SIZE]) or None if at >= 0 else None

    def clear(self) -> None:
        """Remove all of them."""
        self._first = 0
        self._data.clear()


async def durable_fingerprints(
    queue: ChunkQueue, stream: StreamId, epoch: int, retry: RetryPolicy, codec: Codec | None = None
) -> Fingerprints:
    """Read a stream from beginning to end and return the fingerprints of its valid chunks.

    Call it after the epoch has been opened, so that no older attempt can add chunks.

    Returns:
        Fingerprints of the chunks after the last reset that are stored.

    Raises:
        CorruptRecordError: A stored record is damaged.
        SerializationError: A codec is missing or failed.
        BackendUnavailableError: The backend stayed unreachable for the retry deadline.
    """
    sequencer = Sequencer(gaps_as_events=True)
    found = Fingerprints()
    position = START
    reads = Reads(queue, stream)
    while sequencer.epoch < epoch:
        records = await retry.run(partial(_read, reads, position))
        if not records:
            break
        for stored in records:
            try:
                record = Record.decode(stored.data)
                record = await reveal(record, codec, seconds=retry.call_seconds)
                events = sequencer.feed(record)
            except (CorruptRecordError, SerializationError) as exc:
                exc.backend, exc.stream = queue.backend, str(stream)
                raise
            for event in events:
                if isinstance(event, Chunk):
                    found.add(event.seq, fingerprint(event.encoding, event.data))
                elif isinstance(event, Reset):
                    found.clear()
        position = records[-1].position
    return found


async def _read(reads: Reads, position: str) -> Sequence[Stored]:
    return await reads.read(
        position, max_records=_READ_RECORDS, max_bytes=_READ_BYTES, max_wait=0.0
    )
