"""Reads which attempt wrote the oldest record that a stream still has.

Design: docs/design/page.md.
"""

from __future__ import annotations

from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, StreamId

from ._tail import decode


async def oldest_epoch(queue: ChunkQueue, stream: StreamId) -> int:
    """Return the epoch of the oldest stored record; 0 if nothing is stored.

    Raises:
        CorruptRecordError: The record is damaged.
        StreamqError: The backend cannot be asked.
    """
    oldest = await Reads(queue, stream).read(START, max_records=1, max_bytes=1, max_wait=0.0)
    return decode(oldest[0], queue, stream).epoch if oldest else 0
