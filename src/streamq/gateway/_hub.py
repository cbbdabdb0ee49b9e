"""Reads one stream for all clients of this process, with one supervised reader task.

The hub encodes every event once into a ring, which its clients read at their own pace. The ring
does not wait for slow clients. A client that needs events that the ring no longer has gets a reader
of its own (:meth:`Hub.open_log`) until it has caught up. If the reader task fails, the hub stores
the error and raises it to every client. A stream that stays silent beyond the idle deadline is
treated in the same way: its producer may have stopped without a seal, and the clients would wait
for ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_right, insort
from dataclasses import dataclass
from typing import Any

from streamq._errors import (
    BackendUnavailableError,
    CapabilityError,
    ClosedError,
    CorruptRecordError,
    IdleTimeoutError,
    StreamNotFoundError,
    StreamqError,
)
from streamq._events import Gap, StreamId
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_reader, retry_policy
from streamq.reading._cursor import Cursor
from streamq.reading._reader import StreamReader
from streamq.reading._tail import read_latest, read_tail

from ._failure_log import FailureLog
from ._frames import Frame, encode_event
from ._options import GatewayOptions
from ._places import Epochs, EventPlace, NamedPlace, began_again
from ._ring import Ring

_logger = logging.getLogger("streamq.gateway")

_OPEN_RETRY_SECONDS = 2.0
"""Retry limit while a client waits for its response: long enough for a brief interruption."""

_LOG_RETRY_SECONDS = 5.0
"""Retry limit of a client's own reader: the client gets no heartbeat while that retries."""

_BATCH_BYTES = 262_144
_FRAME_OVERHEAD = 96
_MAX_ANCHORS = 128
_ANCHOR_SPACING_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Place:
    """The end of a stream at one moment.

    Attributes:
        exists: Whether the stream exists.
        offset: Offset of its newest event; ``None`` if only reading the stream can show it.
        tail: Cursor after the newest event, or before the seal.
        is_sealed: Whether the newest event is the seal.
        size_bytes: Stored bytes, if known.
        epoch: Epoch of the newest event; 0 if it is not known.
        newest_epoch: Epoch of the newest attempt, which may have sent nothing; 0 if not known.
        attempt: Number of that attempt; 0 if it is not known.
    """

    exists: bool
    offset: int | None = 0
    tail: Cursor | None = None
    is_sealed: bool = False
    size_bytes: int | None = None
    epoch: int = 0
    newest_epoch: int = 0
    attempt: int = 0


async def _locate(queue: ChunkQueue, stream: StreamId, retry: RetryPolicy) -> Place:
    """Return the place of a stream; one that does not exist is not an error.

    Raises:
        StreamqError: The backend cannot be queried.
    """
    try:
        tail = await read_tail(queue, stream, retry)
    except StreamNotFoundError:
        return Place(exists=False)
    except (CapabilityError, CorruptRecordError):
        # Only reading shows the end; the reader will raise the error at the damaged record.
        try:
            await retry.run(lambda: queue.describe(stream))
        except StreamNotFoundError:
            return Place(exists=False)
        return Place(exists=True, offset=None)
    status, state = tail.status, tail.state
    sealed = status.seal is not None
    return Place(
        True,
        status.offset,
        tail.cursor,
        sealed,
        status.size_bytes,
        state.event_epoch,
        state.epoch,
        status.attempt,
    )


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
        """Number of clients that use the hub; counted by the gateway."""
        self.linger: asyncio.TimerHandle | None = None
        """Timer that closes the hub while it has no clients; kept by the gateway."""
        self.ring = Ring(options.ring_bytes)
        self.epochs = Epochs()
        """Which attempt wrote which events, of those that the reader task has read."""
        self.is_ended = False
        """Whether the newest event in the ring is the seal."""
        self.failure: StreamqError | None = None
        """The error that stopped the reader task before the seal."""
        self.changed = asyncio.Event()
        """Set, and replaced by a new event, whenever ring, ``is_ended`` or ``failure`` changes."""
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
        """Wait until the hub has queried the backend, and return the newest known place.

        Raises:
            StreamqError: The reader task failed before it could read anything.
        """
        await self._opened.wait()
        if not self._is_reading:
            self.raise_failure()
        if not self.has_appeared:
            await self.refresh()
        return self._place

    async def refresh(self) -> Place:
        """Query the backend again, with retries for a short failure, and return the place.

        Raises:
            StreamqError: The backend cannot be queried.
        """
        return await self._refresh(self._opening_retry())

    def raise_failure(self) -> None:
        """Raise the error that stopped the reader task, if any."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    @property
    def is_outdated(self) -> bool:
        """Whether the stream that this hub has read to its end was deleted and began again."""
        place = self._place
        if not self.is_ended or not place.exists or place.offset is None:
            return False
        epoch = self.epochs.at(self.ring.offset)
        return place.offset != self.ring.offset or bool(place.epoch and epoch != place.epoch)

    def check_life(self, after: EventPlace) -> None:
        """Check that a client's place does not belong to an earlier stream of this name.

        A newest attempt that is the first of its stream has written every event; with more
        attempts, only reading shows who wrote the event: the follower compares it then.

        Raises:
            CursorError: It belongs to another stream.
        """
        if not after.offset or not after.epoch:
            return
        place, read = self._place, self.epochs.at(after.offset)
        if after.offset == place.offset:
            read = read or place.epoch
        if read:
            is_other = read != after.epoch
        else:
            only = place.attempt == 1 and after.epoch != place.newest_epoch
            is_other = bool(place.newest_epoch) and (only or after.epoch > place.newest_epoch)
        if is_other:
            raise began_again(self.stream, after)

    async def resolve(self, name: NamedPlace) -> EventPlace:
        """Return the place before what comes after now, or before the latest value.

        Call it after :meth:`refresh`.

        Raises:
            CapabilityError: Only reading the stream can show where it ends.
            StreamqError: The backend cannot be queried.
        """
        place = self._place
        if place.offset is None:
            raise CapabilityError("only reading this stream can show where it ends")
        if name == "tail" or not place.exists:
            offset = place.tail.progress.offset if place.tail else self.ring.offset
            return EventPlace(offset, 0 if place.is_sealed else place.epoch)
        cursor = await read_latest(self._queue, self.stream, self._opening_retry())
        offset = cursor.progress.offset
        if self.ring.after(offset) is None:
            # The ring began after it, or has dropped it; a client must not read all for it.
            insort(self._anchors, (offset, cursor.encode(self.stream)))
            self._thin_anchors()
        return EventPlace(offset, self.epochs.at(offset))

    async def open_log(self, after: int) -> StreamReader[Any, Gap]:
        """Open a reader at or before an event, for one client, which closes it."""
        at = bisect_right(self._anchors, after, key=lambda anchor: anchor[0])
        start = self._anchors[at - 1][1] if at else "beginning"
        retry_seconds = min(self._settings.retry_seconds, _LOG_RETRY_SECONDS)
        settings = self._settings.model_copy(update={"retry_seconds": retry_seconds})
        return await self._open_reader(start, settings)

    async def aclose(self) -> None:
        """Stop reading. Remaining clients get ``ClosedError``."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _opening_retry(self) -> RetryPolicy:
        return self._retry(min(self._settings.retry_seconds, _OPEN_RETRY_SECONDS))

    def _retry(self, retry_seconds: float) -> RetryPolicy:
        settings = self._settings.model_copy(update={"retry_seconds": retry_seconds})
        return retry_policy(settings, self._queue, self.stream)

    async def _refresh(self, retry: RetryPolicy) -> Place:
        self._place = await _locate(self._queue, self.stream, retry)
        if self._place.exists and self._silent_since is None:
            # Until the stream exists, the deadline is the wait that each client requested.
            self._silent_since = time.monotonic()
        return self._place

    async def _open_reader(self, start: str, settings: Settings) -> StreamReader[Any, Gap]:
        return await open_reader(
            self.stream,
            from_=start,
            queue=self._queue,
            settings=settings,
            gaps_as_events=True,
            require=["replay"],  # viewers must not take records away from another reader
        )

    async def _run(self) -> None:
        reader: StreamReader[Any, Gap] | None = None
        try:
            place = await self.refresh()
            start = "beginning"
            if place.tail is not None and self._is_large(place):
                # The ring could not hold the beginning anyway.
                start = place.tail.encode(self.stream)
                offset = place.tail.progress.offset
                self.ring = Ring(self._options.ring_bytes, offset)
                self.epochs = Epochs(offset, 0 if place.is_sealed else place.epoch)
                self._anchors.append((offset, start))
            reader = await self._open_reader(start, self._settings)
            self._is_reading = True
            self._opened.set()
            while not self.is_ended:
                await self._read(reader)
        except StreamqError as exc:
            self._failures.log(self.stream, exc)
            self.failure = exc
        except Exception as exc:  # raised to every client; the log has the traceback
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

    async def _read(self, reader: StreamReader[Any, Gap]) -> None:
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
        finally:  # events before a chunk that cannot be encoded are delivered first
            self.ring.extend(frames)
            self.epochs.extend(frames)
            self.is_ended = reader.seal is not None and self.ring.offset == reader.offset
            self._add_anchor(reader, frames)
            self._announce()
        await asyncio.sleep(0)  # clients get their turn before the ring moves on

    async def _check_silence(self) -> None:
        """Raise if a silent stream is known to be gone, or has been silent for too long.

        Raises:
            StreamNotFoundError: The stream existed, and no longer does.
            IdleTimeoutError: The silence is longer than the idle deadline.
            StreamqError: The backend refuses the query for good.
        """
        if self.has_appeared:
            try:
                # Without retries: new events must not wait for them.
                place = await self._refresh(self._retry(0.0))
            except BackendUnavailableError as exc:  # not known to be gone; checked again later
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

    def _add_anchor(self, reader: StreamReader[Any, Gap], frames: list[Frame]) -> None:
        """Store a cursor now and then, so that a client's own reader need not start at the top."""
        self._since_anchor += sum(len(frame.data) for frame in frames)
        if self._since_anchor < self._anchor_spacing or self.ring.offset != reader.offset:
            return
        self._since_anchor = 0
        self._anchors.append((reader.offset, reader.cursor))
        self._thin_anchors()

    def _thin_anchors(self) -> None:
        if len(self._anchors) > _MAX_ANCHORS:
            del self._anchors[::2]
            self._anchor_spacing *= 2

    def _announce(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
