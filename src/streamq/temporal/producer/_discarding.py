"""Opens a writer that accepts everything and stores nothing, for a stream that has ended.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq.driver import ChunkQueue, Entry, Stored, StreamInfo, StreamNotFoundError
from streamq.reading._cursor import Progress
from streamq.records._values import Serializer
from streamq.writing._outbox import Outbox
from streamq.writing._writer import StreamWriter
from streamq.writing._writer_options import WriterOptions


def discarding_writer(
    queue: ChunkQueue,
    stream: StreamId,
    settings: Settings,
    *,
    attempt: int,
    epoch: int,
    serializer: Serializer[Any],
) -> StreamWriter:
    """Return a writer for a streaming activity that runs again after its stream was sealed.

    An earlier attempt wrote the whole stream and sealed it; then its worker died before Temporal
    had the result, or the workflow was retried as a whole. The work is repeated for its result, and
    nothing is delivered twice. Values and limits are checked as usual.
    """
    outbox = Outbox(
        Progress(epoch, attempt),
        stream=stream,
        restarts=True,
        needs_reset=False,
        max_record_bytes=queue.capabilities.max_record_bytes,
    )
    return StreamWriter(
        _DiscardingQueue(queue),
        stream,
        outbox,
        WriterOptions.from_settings(settings, serializer=serializer, discards=True),
        retry=RetryPolicy(),
    )


class _DiscardingQueue(ChunkQueue):
    """Has the limits of a real queue and acknowledges everything."""

    def __init__(self, limits: ChunkQueue) -> None:
        self.backend = limits.backend
        self.capabilities = limits.capabilities

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        """Discard the entries."""

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        """Return nothing."""
        return ()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        """Raise: no stream is stored here."""
        raise StreamNotFoundError(f"stream {stream} is not stored", stream=str(stream))

    async def delete(self, stream: StreamId) -> None:
        """Do nothing."""

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        """Yield nothing."""
        return
        yield

    async def aclose(self) -> None:
        """Do nothing."""
