"""Appends to a workflow's log: a stream that several publishers write in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from streamq._errors import FencedError, StreamNotFoundError, StreamqError
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_writer, retry_policy, stream_id
from streamq.reading._tail import newest_epoch
from streamq.writing._epochs import clock_epoch
from streamq.writing._policies import OnRetry
from streamq.writing._writer import StreamWriter

from ._competition import Competition


class SharedLog:
    """Appends to a stream without owning it: a publisher that has items to send takes it over.

    A takeover fences the previous publisher, which then takes over in turn and repeats the records
    that were not acknowledged. A record may therefore be stored twice; readers recognise a repeat
    by its number.

    Args:
        queue: The queue; it stays open.
        settings: Limits; ``retry_seconds`` also bounds how long publishers compete for the log.
        name: Name of the stream.
    """

    def __init__(self, queue: ChunkQueue, settings: Settings, name: str) -> None:
        self._queue = queue
        self._settings = settings
        self._stream = stream_id(name, settings)
        self._writer: StreamWriter | None = None

    async def write(self, records: Sequence[bytes]) -> None:
        """Store records in order, as durably as the backend stores.

        Raises:
            CapabilityError: The backend does not fence.
            SealedError: The stream has been ended.
            ThrottledError: Other publishers took it over repeatedly.
            BackendUnavailableError: The backend stayed unreachable.
        """
        competition = Competition(self._stream, self._settings.retry_seconds)
        while True:
            try:
                writer = self._writer or await self._take_over()
                for record in records:
                    await writer.send_chunk(record)
                await writer.flush()
                return
            except FencedError as exc:
                await self.aclose()
                fenced = exc
            except BaseException:
                await self.aclose()  # its buffered records must not be sent after this
                raise
            await competition.wait(fenced)

    async def aclose(self) -> None:
        """Close the writer; the stream is not ended."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(StreamqError):
                await writer.aclose()

    async def _take_over(self) -> StreamWriter:
        newest = 0
        with contextlib.suppress(StreamNotFoundError):
            retry = retry_policy(self._settings, self._queue, self._stream)
            newest = await newest_epoch(self._queue, self._stream, retry)
        self._writer = await open_writer(
            self._stream,
            queue=self._queue,
            settings=self._settings,
            epoch=clock_epoch(newest),
            on_retry=OnRetry.RESUME,
            seals_failures=False,
            # Without that a fenced publisher would notice it only after its flush.
            require=["fenced"],
        )
        return self._writer
