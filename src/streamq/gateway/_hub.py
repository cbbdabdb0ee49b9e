"""Reads the live events of one stream for all clients of this process, in one supervised task.

The hub begins where the stream ended when it was made. It encodes every event once into a ring,
which its clients read at their own pace. The ring does not wait for slow clients. A client that
needs events that the ring does not have reads pages of the log (:mod:`._catch_up`). If the reader
task fails, the hub stores the error and raises it to every client. A stream that stays silent
beyond the idle deadline is treated in the same way: its producer may have stopped without a seal,
and the clients would wait for ever.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamq._errors import (
    BackendUnavailableError,
    CapabilityError,
    ClosedError,
    CorruptRecordError,
    CursorError,
    IdleTimeoutError,
    StreamNotFoundError,
    StreamqError,
)
from streamq._events import EventOrGap, Gap, StreamId
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.opening._open import open_reader, retry_policy
from streamq.reading._cursor import Cursor
from streamq.reading._reader import StreamReader
from streamq.reading._tail import read_tail

from ._failure_log import FailureLog
from ._frames import Frame, encode_event
from ._log_limit import gateway_logger
from ._options import GatewayOptions
from ._pages import START_PLACE, ReadPlace, ReadPlaces
from ._places import Epochs, EventPlace, NamedPlace, began_again
from ._resets import Resets
from ._ring import Ring, RingBudget
from ._tenant_converters import settings_of_tenant

_logger = gateway_logger()

OPEN_RETRY_SECONDS = 2.0
"""Retry limit while a client waits for its response: long enough for a brief interruption."""

_BATCH_BYTES = 262_144
_PLACE_SPACING_BYTES = 65_536
_STEP_EVENTS = 64


@dataclass(frozen=True, slots=True)
class Place:
    """The end of a stream at one moment.

    Attributes:
        exists: Whether the stream exists.
        offset: Offset of its newest event; ``None`` if only reading the stream can show it.
        tail: Cursor after the newest event, or before the seal.
        is_sealed: Whether the newest event is the seal.
        epoch: Epoch of the newest event; 0 if it is not known.
        newest_epoch: Epoch of the newest attempt, which may have sent nothing; 0 if not known.
        attempt: Number of that attempt; 0 if it is not known.
    """

    exists: bool
    offset: int | None = 0
    tail: Cursor | None = None
    is_sealed: bool = False
    epoch: int = 0
    newest_epoch: int = 0
    attempt: int = 0


async def locate(queue: ChunkQueue, stream: StreamId, retry: RetryPolicy) -> Place:
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
            await retry.run(lambda: calling.describe(queue, stream))
        except StreamNotFoundError:
            return Place(exists=False)
        return Place(exists=True, offset=None)
    status, state = tail.status, tail.state
    return Place(
        True,
        status.offset,
        tail.cursor,
        status.seal is not None,
        state.event_epoch,
        state.epoch,
        status.attempt,
    )


class Hub:
    """Reads one stream for all its clients. Owned by :class:`~streamq.gateway.Gateway`.

    Args:
        queue: Where to read.
        stream: The stream.
        place: Its end; the hub reads what comes after it.
        settings: Limits, and the data converters.
        options: Bounds and deadlines.
        failures: Logs why reading stopped.
        budget: Counts the memory of the ring.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        place: Place,
        settings: Settings,
        options: GatewayOptions,
        failures: FailureLog,
        budget: RingBudget,
    ) -> None:
        self.stream = stream
        self.clients = 0
        """Number of clients that use the hub; counted by the gateway."""
        self.linger: asyncio.TimerHandle | None = None
        """Timer that closes the hub while it has no clients; kept by the gateway."""
        self.place = place
        """The newest known end of the stream."""
        self.is_ended = False
        """Whether the newest event in the ring is the seal."""
        self.failure: StreamqError | None = None
        """The error that stopped the reader task before the seal."""
        self.is_cut = False
        """Whether clients get the error before the events that they have not read."""
        self.changed = asyncio.Event()
        """Set, and replaced by a new event, whenever ring, ``is_ended`` or ``failure`` changes."""
        self.places = ReadPlaces()
        """Where pages of the log can begin."""
        self.resets = Resets()
        """The last reset, as far as it is known."""
        self._queue = queue
        self.settings = settings_of_tenant(settings, stream.tenant)
        """Limits of all readers of the stream."""
        self._options = options
        self._failures = failures
        self._budget = budget
        self._silent_since = time.monotonic() if place.exists else None
        self._start = START_PLACE
        if place.tail is not None:
            self._start = ReadPlace(place.tail.progress.offset, place.tail.encode(stream))
            self.places.add(self._start)
        self.ring = Ring(options.ring_bytes, self._start.offset, budget)
        self.epochs = Epochs(self._start.offset, 0 if place.is_sealed else place.epoch)
        """Which attempt wrote which events, of those that the reader task has read."""
        self._since_place = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def has_appeared(self) -> bool:
        """Whether the stream is known to exist."""
        return self.place.exists or self.ring.offset > 0

    @property
    def newest(self) -> int:
        """Offset of the newest event that is known."""
        return max(self.ring.offset, self.place.offset or 0)

    @property
    def is_started(self) -> bool:
        """Whether the hub has begun to read."""
        return self._task is not None

    def start(self) -> None:
        """Begin to read, unless it has begun."""
        if self._task is None:
            self._budget.add(self.ring)
            self._task = asyncio.create_task(self._run(), name=f"streamq-hub {self.stream}")

    async def refresh(
        self, queue: ChunkQueue, max_retry_seconds: float = OPEN_RETRY_SECONDS
    ) -> Place:
        """Query the backend again, with retries for a short failure, and return the place.

        Raises:
            StreamqError: The backend cannot be queried.
        """
        retry_seconds = min(self.settings.retry_seconds, max_retry_seconds)
        settings = self.settings.model_copy(update={"retry_seconds": retry_seconds})
        retry = retry_policy(settings, queue, self.stream)
        self.note(await locate(queue, self.stream, retry))
        return self.place

    def note(self, place: Place) -> None:
        """Store a newer place of the stream."""
        self.place = place
        if place.exists and self._silent_since is None:
            # Until the stream exists, the deadline is the wait that each client requested.
            self._silent_since = time.monotonic()

    def raise_failure(self) -> None:
        """Raise the error that stopped the reader task, if any."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    def knows(self, after: EventPlace | NamedPlace) -> bool:
        """Return whether the hub can place a client without a question to the backend."""
        if not isinstance(after, EventPlace) or self.is_ended:  # newer events, or another stream
            return False
        return self.has_appeared and after.offset <= self.newest

    def named_place(self, latest: ReadPlace | None) -> EventPlace:
        """Return the place before the latest value, if it was looked for, or else at the tail.

        Raises:
            CapabilityError: The backend cannot tell where the stream ends.
        """
        place = self.place
        if place.offset is None:
            raise CapabilityError("only reading this stream can show where it ends")
        if latest is not None:
            return EventPlace(latest.offset, self.epochs.at(latest.offset))
        offset = place.tail.progress.offset if place.tail else self.ring.offset
        return EventPlace(offset, 0 if place.is_sealed else place.epoch)

    def has_end(self, offset: int) -> bool:
        """Return whether the event at ``offset`` is known to be the seal."""
        return (self.is_ended or self.place.is_sealed) and offset == self.newest

    def check_offset(self, offset: int) -> None:
        """Refuse an event that the stream does not have.

        Raises:
            CursorError: The newest event is before it.
        """
        if self.place.offset is None or offset <= self.newest:
            return
        raise CursorError(
            f"event {offset} is beyond the newest event {self.newest} of stream {self.stream}; it "
            "was deleted, or had expired, and began again: read it from the beginning",
            stream=str(self.stream),
        )

    @property
    def is_outdated(self) -> bool:
        """Whether the stream that this hub has read to its end was deleted and began again."""
        place = self.place
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
        place, read = self.place, self.epochs.at(after.offset)
        if after.offset == place.offset:
            read = read or place.epoch
        if read:
            is_other = read != after.epoch
        else:
            only = place.attempt == 1 and after.epoch != place.newest_epoch
            is_other = bool(place.newest_epoch) and (only or after.epoch > place.newest_epoch)
        if is_other:
            raise began_again(self.stream, after)

    def cut(self, failure: StreamqError) -> None:
        """Stop because of an error, which every client gets at once instead of what is left."""
        self.failure, self.is_cut = failure, True
        if self._task is not None:
            self._task.cancel()
        self._announce()

    async def aclose(self) -> None:
        """Stop reading, and free the ring. Remaining clients get ``ClosedError``."""
        self._budget.remove(self.ring)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        reader: StreamReader[Any, Gap] | None = None
        try:
            reader = await open_reader(
                self.stream,
                from_=self._start.cursor,
                queue=self._queue,
                settings=self.settings,
                gaps_as_events=True,
                require=["replay"],  # viewers must not take records away from another reader
            )
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
            self._announce()
            if reader is not None:
                await reader.aclose()

    async def _read(self, reader: StreamReader[Any, Gap]) -> None:
        max_wait = max(min(self._options.heartbeat_seconds, self._idle_left()), 0.0)
        events = await reader.read_batch(max_bytes=_BATCH_BYTES, max_wait=max_wait)
        if not events:
            await self._check_silence()
            return
        self._silent_since = time.monotonic()
        self._failures.forget(self.stream)
        for start in range(0, len(events), _STEP_EVENTS):
            self._add(events[start : start + _STEP_EVENTS], reader)
            await asyncio.sleep(0)  # clients get their turn before the ring moves on

    def _add(self, events: Sequence[EventOrGap], reader: StreamReader[Any, Gap]) -> None:
        frames = [encode_event(event) for event in events]
        self.ring.extend(frames)
        self.epochs.extend(frames)
        self.resets.note(events)
        self.is_ended = reader.seal is not None and self.ring.offset == reader.offset
        self._add_place(reader, frames)
        self._announce()

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
                place = await self.refresh(self._queue, max_retry_seconds=0.0)
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
                f"{self.settings.idle_seconds:g} s; its producer may be gone",
                stream=str(self.stream),
            )

    def _idle_left(self) -> float:
        if self._silent_since is None:
            return math.inf
        return self._silent_since + self.settings.idle_seconds - time.monotonic()

    def _add_place(self, reader: StreamReader[Any, Gap], frames: list[Frame]) -> None:
        """Store a place now and then, so that a page of the log need not begin at the top."""
        self._since_place += sum(len(frame.data) for frame in frames)
        if self._since_place < _PLACE_SPACING_BYTES or self.ring.offset != reader.offset:
            return
        self._since_place = 0
        self.places.add(ReadPlace(reader.offset, reader.cursor))

    def _announce(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
