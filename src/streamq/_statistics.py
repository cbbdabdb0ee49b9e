"""Counters that a writer and a reader report.

Design: docs/design/writing.md and docs/design/reading.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """Counters of a writer.

    Attributes:
        chunks: Chunks accepted by ``send_chunk``.
        chunk_bytes: Their encoded bytes.
        replayed_chunks: Accepted chunks that an earlier attempt had already stored.
        durable_chunks: Chunks that the backend has acknowledged to this attempt.
        dropped_chunks: Chunks dropped because the buffer was full (``OnFull.DROP``).
        records: Records that the acknowledged chunks were packed into.
        buffered_bytes: Bytes accepted and not yet acknowledged.
        waits: How often ``send_chunk`` had to wait for room in the buffer.
    """

    chunks: int
    chunk_bytes: int
    replayed_chunks: int
    durable_chunks: int
    dropped_chunks: int
    records: int
    buffered_bytes: int
    waits: int


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """Counters of a reader.

    Attributes:
        events: Events delivered.
        chunks: Chunks among them.
        chunk_bytes: Their encoded bytes.
        records: Records read from the backend.
        buffered_bytes: Bytes of chunks that have been read and not yet delivered: at most one read
            from the backend and one incomplete chunk.
        stale_records: Records of superseded attempts that were dropped.
        duplicate_records: Records read again and dropped.
    """

    events: int
    chunks: int
    chunk_bytes: int
    records: int
    buffered_bytes: int
    stale_records: int
    duplicate_records: int
