"""A writer for work whose stream has ended already: accepts everything, stores nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from streamq._cursor import Progress
from streamq._events import StreamId
from streamq._outbox import Outbox
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq._values import Serializer
from streamq._writer import StreamWriter
from streamq._writer_options import WriterOptions
from streamq.driver import ChunkQueue, Entry, Stored, StreamInfo, StreamNotFoundError


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

    An earlier attempt told the readers everything and sealed the stream, then its worker died
    before Temporal had the result (or the workflow was retried as a whole). The work is done again
    for its result; nothing is told twice. Values and limits are checked as ever.
    """
    outbox = Outbox(
        Progress(epoch, attempt),
        stream=stream,
        restarts=True,
        takes_back=False,
        max_record_bytes=queue.capabilities.max_record_bytes,
    )
    return StreamWriter(
        _Nowhere(queue),
        stream,
        outbox,
        WriterOptions.from_settings(settings, serializer=serializer, discards=True),
        retry=RetryPolicy(),
    )


class _Nowhere(ChunkQueue):
    """Has the limits of a real queue and acknowledges everything."""

    def __init__(self, limits: ChunkQueue) -> None:
        self.backend = limits.backend
        self.capabilities = limits.capabilities

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        """Forget the entries."""

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        """Return nothing."""
        return ()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        """There is nothing to describe."""
        raise StreamNotFoundError(f"stream {stream} is not stored", stream=str(stream))

    async def delete(self, stream: StreamId) -> None:
        """There is nothing to delete."""

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        """Yield nothing."""
        return
        yield

    async def aclose(self) -> None:
        """There is nothing to release."""
