"""Writes segment by segment, and shows which segments are packed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from s3sns_bucket import BUCKET, PLENTY, segments
from streamq import StreamId
from streamq.driver import ChunkQueue, Entry, Stored
from streamq_s3sns import S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns._segment import PACK_METADATA

TTL = timedelta(minutes=5)


async def write(
    queue: ChunkQueue,
    stream: StreamId,
    indexes: Iterable[int],
    *,
    epoch: int = 1,
    ends: bool = False,
) -> list[bytes]:
    """Append entries one by one, each in a segment of its own; return their data."""
    texts = []
    for i in indexes:
        texts.append(b"%d of %d" % (i, epoch))
        await queue.append(stream, [Entry(epoch, i, texts[-1])])
    if ends:
        texts.append(b"end of %d" % epoch)
        await queue.append(stream, [Entry(epoch, max(indexes) + 1, texts[-1])], ttl=TTL)
    return texts


async def packed(queue: ChunkQueue) -> None:
    """Wait for what is being packed."""
    assert isinstance(queue, S3SnsQueue)
    while queue._packer._tasks:
        await asyncio.wait(queue._packer._tasks)


async def read(queue: ChunkQueue, stream: StreamId, after: str = "") -> list[Stored]:
    """Read all that there is after a position."""
    found: list[Stored] = []
    while more := await queue.read(stream, after, max_wait=0, **PLENTY):
        found += more
        after = more[-1].position
    return found


def texts(found: Iterable[Stored]) -> list[bytes]:
    """Return what was read."""
    return [each.data for each in found]


def packs(s3: Any, settings: S3SnsSettings) -> dict[str, str]:
    """Return the last parts of the keys that are packed, and what their metadata says."""
    found = {}
    for key in segments(s3, settings):
        metadata = s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]
        if PACK_METADATA in metadata:
            found[key[-3:]] = metadata[PACK_METADATA]
    return found
