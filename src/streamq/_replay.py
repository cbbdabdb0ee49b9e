"""What an attempt that replays is compared with: fingerprints of the chunks stored before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from ._codec import Codec, reveal
from ._errors import CorruptRecordError, SerializationError
from ._events import Chunk, Reset, StreamId
from ._retry import RetryPolicy
from ._sequencer import Sequencer
from ._values import Encoding
from ._wire import Record
from .driver import START, ChunkQueue, Stored

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
        """Add the next chunk's; after a gap, those before it are forgotten."""
        if seq != self._first + len(self._data) // _SIZE:
            self._first = seq
            self._data.clear()
        self._data += value

    def get(self, seq: int) -> bytes | None:
        """Return the fingerprint of a chunk, if it is known."""
        at = (seq - self._first) * _SIZE
        return bytes(self._data[at : at + _SIZE]) or None if at >= 0 else None

    def clear(self) -> None:
        """Forget all of them."""
        self._first = 0
        self._data.clear()


async def durable_fingerprints(
    queue: ChunkQueue, stream: StreamId, epoch: int, retry: RetryPolicy, codec: Codec | None = None
) -> Fingerprints:
    """Read what earlier attempts stored, to its end.

    To be called after the epoch has been opened, so that nothing older can follow.

    Returns:
        Fingerprints of the chunks that count: those after the last reset that are stored.

    Raises:
        CorruptRecordError: A stored record is damaged.
        SerializationError: A codec is missing or failed.
        BackendUnavailableError: The backend stayed unreachable for the retry deadline.
    """
    sequencer = Sequencer(gaps_as_events=True)
    found = Fingerprints()
    position = START
    while sequencer.epoch < epoch:
        records = await retry.run(partial(_read, queue, stream, position))
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


async def _read(queue: ChunkQueue, stream: StreamId, position: str) -> Sequence[Stored]:
    return await queue.read(
        stream, position, max_records=_READ_RECORDS, max_bytes=_READ_BYTES, max_wait=0.0
    )
