"""One stream as read by this process: one supervised reader task, whatever the number of clients.

The hub encodes every event once into a ring that its clients read at their own pace. A client never
holds anything in the hub: whoever asks for events that the ring has forgotten is given a reader of
its own (:meth:`Hub.open_log`) until it has caught up. A failure of the reader task is kept and
raised to every client; so is silence beyond the idle deadline, by which a stream whose producer is
gone without a seal lets go of its listeners.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_right
from dataclasses import dataclass

from streamq._cursor import Cursor
from streamq._errors import (
    BackendUnavailableError,
    CapabilityError,
    ClosedError,
    CorruptRecordError,
    IdleTimeoutError,
    StreamNotFoundError,
    StreamqError,
)
from streamq._events import StreamId
from streamq._open import open_reader, retry_policy
from streamq._reader import StreamReader
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq._tail import read_tail
from streamq.driver import ChunkQueue

from ._failure_log import FailureLog
from ._frames import Frame, encode_event
from ._options import GatewayOptions
from ._ring import Ring

_logger = logging.getLogger("streamq.gateway")

_OPEN_RETRY_SECONDS = 2.0
"""For what a client waits for before it has its response: a blip is ridden out, no more."""

_LOG_RETRY_SECONDS = 5.0
"""A client with a reader of its own hears no heartbeat while that reader retries."""

_BATCH_BYTES = 262_144
_FRAME_OVERHEAD = 96
_MAX_ANCHORS = 128
_ANCHOR_SPACING_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream stands.

    Attributes:
        exists: Whether there is such a stream.
        offset: Offset of its newest event; ``None`` if the backend cannot tell without reading.
        tail: The place after the newest event, or before the seal.
        is_sealed: Whether the newest event is the seal.
        size_bytes: How much is stored, if known.
    """

    exists: bool
    offset: int | None = 0
    tail: Cursor | None = None
    is_sealed: bool = False
    size_bytes: int | None = None


async def _locate(queue: ChunkQueue, stream: StreamId, retry: RetryPolicy) -> Place:
    """Learn where a stream stands.

    Raises:
        StreamqError: The backend cannot tell; a stream that does not exist is not an error.
    """
    try:
        tail = await read_tail(queue, stream, retry)
    except StreamNotFoundError:
        return Place(exists=False)
    except (CapabilityError, CorruptRecordError):
        # Cannot be told without reading, which will tell what is wrong at the place where it is.
        try:
            await retry.run(lambda: queue.describe(stream))
        except StreamNotFoundError:
            return Place(exists=False)
        return Place(exists=True, offset=None)
    status = tail.status
    sealed = status.seal is not None
    return Place(True, status.offset, tail.cursor, sealed, status.size_bytes)


class Hub:
    """Reads one stream for all its clients. Owned by :class:`~streamq.gateway.Gateway`."""

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        settings: Settings,
        options: GatewayOptions,
        failures: FailureLog,
    ) -> None:
        self.stream = stream
        self.clients = 0
        """How many clients use the hub; counted by the gateway."""
        self.linger: asyncio.TimerHandle | None = None
        """Pending close, while there are no clients; kept by the gateway."""
        self.ring = Ring(options.ring_bytes)
        self.is_ended = False
        """Whether the newest event in the ring is the seal."""
        self.failure: StreamqError | None = None
        """What stopped the reader task before the seal."""
        self.changed = asyncio.Event()
        """Set, and replaced by a fresh one, whenever any of the above changes."""
        self._queue = queue
        self._settings = settings
        self._options = options
        self._failures = failures
        self._place = Place(exists=False)
        self._silent_since: float | None = None
        self._opened = asyncio.Event()
        self._is_reading = False
        self._anchors: list[tuple[int, str]] = []
        self._anchor_spacing = _ANCHOR_SPACING_BYTES
        self._since_anchor = 0
        self._task = asyncio.create_task(self._run(), name=f"streamq-hub {stream}")

    @property
    def has_appeared(self) -> bool:
        """Whether the stream is known to exist."""
        return self._place.exists or self.ring.offset > 0

    async def opened(self) -> Place:
        """Wait until the hub has looked at the backend, and return what it knows by now.

        Raises:
            StreamqError: The reader task failed before it could read anything.
        """
        await self._opened.wait()
        if not self._is_reading:
            self.raise_failure()
        if not self.has_appeared:
            await self.look()
        return self._place

    async def look(self) -> Place:
        """Look at the backend again, riding out a short failure.

        Raises:
            StreamqError: The backend cannot be asked.
        """
        return await self._look(min(self._settings.retry_seconds, _OPEN_RETRY_SECONDS))

    def raise_failure(self) -> None:
        """Raise what stopped the reader task, if it was stopped."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    async def open_log(self, after: int) -> StreamReader:
        """Open a reader at or before an event, for one client; close it when done."""
        at = bisect_right(self._anchors, after, key=lambda anchor: anchor[0])
        start = self._anchors[at - 1][1] if at else "beginning"
        retry_seconds = min(self._settings.retry_seconds, _LOG_RETRY_SECONDS)
        settings = self._settings.model_copy(update={"retry_seconds": retry_seconds})
        return await self._open_reader(start, settings)

    async def aclose(self) -> None:
        """Stop reading. Clients that are left get ``ClosedError``."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self, retry_seconds: float) -> Place:
        settings = self._settings.model_copy(update={"retry_seconds": retry_seconds})
        retry = retry_policy(settings, self._queue, self.stream)
        self._place = await _locate(self._queue, self.stream, retry)
        if self._place.exists and self._silent_since is None:
            # Before that the deadline is how long each client wants to wait for the stream.
            self._silent_since = time.monotonic()
        return self._place

    async def _open_reader(self, start: str, settings: Settings) -> StreamReader:
        return await open_reader(
            self.stream,
            from_=start,
            queue=self._queue,
            settings=settings,
            gaps_as_events=True,
            require=["replay"],  # onlookers must not take away what somebody else waits for
        )

    async def _run(self) -> None:
        reader: StreamReader | None = None
        try:
            place = await self.look()
            start = "beginning"
            if place.tail is not None and self._is_large(place):
                # Clients from the beginning would not find it in the ring anyway.
                start = place.tail.encode(self.stream)
                offset = place.tail.progress.offset
                self.ring = Ring(self._options.ring_bytes, offset)
                self._anchors.append((offset, start))
            reader = await self._open_reader(start, self._settings)
            self._is_reading = True
            self._opened.set()
            while not self.is_ended:
                await self._read(reader)
        except StreamqError as exc:
            self._failures.tell(self.stream, exc)
            self.failure = exc
        except Exception as exc:  # every client is told, the log has the traceback
            _logger.exception("reading %s stopped unexpectedly", self.stream)
            self.failure = StreamqError(f"unexpected {type(exc).__name__}", stream=str(self.stream))
        finally:
            if not self.is_ended and self.failure is None:
                self.failure = ClosedError("the gateway closed this stream")
            self._opened.set()
            self._announce()
            if reader is not None:
                await reader.aclose()

    def _is_large(self, place: Place) -> bool:
        encoded = (place.size_bytes or 0) * 4 // 3 + (place.offset or 0) * _FRAME_OVERHEAD
        return encoded > self._options.ring_bytes

    async def _read(self, reader: StreamReader) -> None:
        max_wait = max(min(self._options.heartbeat_seconds, self._idle_left()), 0.0)
        events = await reader.read_batch(max_bytes=_BATCH_BYTES, max_wait=max_wait)
        if not events:
            await self._check_silence()
            return
        self._silent_since = time.monotonic()
        self._failures.forget(self.stream)
        frames: list[Frame] = []
        try:
            for event in events:
                frames.append(encode_event(event))
        finally:  # what precedes a chunk that cannot be encoded is delivered first
            self.ring.extend(frames)
            self.is_ended = reader.seal is not None and self.ring.offset == reader.offset
            self._add_anchor(reader, frames)
            self._announce()
        await asyncio.sleep(0)  # clients get their turn before the ring moves on

    async def _check_silence(self) -> None:
        """Tell clients about a stream that nothing more will come from, as far as can be known.

        Raises:
            StreamNotFoundError: The stream existed before the silence, and does not any more.
            IdleTimeoutError: The silence is longer than the idle deadline.
            StreamqError: The backend cannot be asked, and not for the moment only.
        """
        if self.has_appeared:
            try:
                # Asked once: what is written meanwhile must not wait for retries.
                place = await self._look(retry_seconds=0.0)
            except BackendUnavailableError as exc:  # not known to be gone; asked again later
                _logger.info("cannot tell whether %s still exists: %s", self.stream, exc)
            else:
                if not place.exists:
                    raise StreamNotFoundError(
                        f"stream {self.stream} is gone: it was deleted or has expired",
                        stream=str(self.stream),
                    )
        if self._idle_left() <= 0:
            raise IdleTimeoutError(
                f"nothing has arrived on stream {self.stream} for "
                f"{self._settings.idle_seconds:g} s; its producer may be gone",
                stream=str(self.stream),
            )

    def _idle_left(self) -> float:
        if self._silent_since is None:
            return math.inf
        return self._silent_since + self._settings.idle_seconds - time.monotonic()

    def _add_anchor(self, reader: StreamReader, frames: list[Frame]) -> None:
        """Remember now and then where the log can be entered, so that nobody reads it all again."""
        self._since_anchor += sum(len(frame.data) for frame in frames)
        if self._since_anchor < self._anchor_spacing or self.ring.offset != reader.offset:
            return
        self._since_anchor = 0
        self._anchors.append((reader.offset, reader.cursor))
        if len(self._anchors) > _MAX_ANCHORS:
            del self._anchors[::2]
            self._anchor_spacing *= 2

    def _announce(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
