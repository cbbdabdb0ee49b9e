"""What an attempt that replays is compared with: fingerprints of the chunks stored before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from ._events import Chunk, Reset, StreamId
from ._retry import RetryPolicy
from ._sequencer import Sequencer
from ._values import Encoding
from ._wire import Record
from .driver import START, ChunkQueue, Stored

_READ_RECORDS = 1_000
_READ_BYTES = 4_194_304


def fingerprint(encoding: Encoding, data: bytes) -> bytes:
    """Return eight bytes that differ when the chunks do."""
    return hashlib.blake2b(data, digest_size=8, salt=bytes((encoding,))).digest()


async def durable_fingerprints(
    queue: ChunkQueue, stream: StreamId, epoch: int, retry: RetryPolicy
) -> dict[int, bytes]:
    """Read what earlier attempts stored, to its end.

    To be called after the epoch has been opened, so that nothing older can follow.

    Returns:
        Fingerprints by seq of the chunks that count: those after the last reset that are stored.

    Raises:
        CorruptRecordError: A stored record is damaged.
        BackendUnavailableError: The backend stayed unreachable for the retry deadline.
    """
    sequencer = Sequencer(gaps_as_events=True)
    found: dict[int, bytes] = {}
    position = START
    while sequencer.epoch < epoch:
        records = await retry.run(partial(_read, queue, stream, position))
        if not records:
            break
        for stored in records:
            for event in sequencer.feed(Record.decode(stored.data)):
                if isinstance(event, Chunk):
                    found[event.seq] = fingerprint(event.encoding, event.data)
                elif isinstance(event, Reset):
                    found.clear()
        position = records[-1].position
    return found


async def _read(queue: ChunkQueue, stream: StreamId, position: str) -> Sequence[Stored]:
    return await queue.read(
        stream, position, max_records=_READ_RECORDS, max_bytes=_READ_BYTES, max_wait=0.0
    )
