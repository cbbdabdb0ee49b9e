"""Reads a stream event by event, resumable by cursor, with a deadline on every wait.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, Self, cast

from streamq._errors import (
    ClosedError,
    DriverError,
    StreamNotFoundError,
    StreamqError,
)
from streamq._events import Chunk, Event, GapT, Reset, Seal, StreamId
from streamq._retry import RetryPolicy
from streamq._statistics import ReaderStatistics
from streamq.calling import _calls as calling
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, Closing, Home, Stored
from streamq.records._codec import Codec, reveal
from streamq.records._values import PLAIN, Serializer, T
from streamq.records._wire import Record

from ._cursor import Cursor
from ._disorder import Disorder
from ._endings import idle_timeout, raise_for_seal
from ._read_ahead import ReadAhead
from ._repeats import Repeats
from ._sequencer import Sequencer

_READ_RECORDS = 256
_READ_BYTES = 1_048_576
_EARLY_BYTES = 8 * _READ_BYTES  # most bytes held back, on backends that do not keep order
_EARLY_RECORDS = 1_000  # most records held back where the stored cursor names each of them
_PAUSE_SECONDS = 1.0  # interval at which a pausing reader checks whether it was closed
_LONGEST_WAIT_SECONDS = 20.0
_EXISTENCE_SECONDS = 5.0  # interval at which an idle reader checks that the stream exists

_logger = logging.getLogger("streamq")


class StreamReader(Generic[T, GapT]):
    """Reads one stream, event by event or batch by batch; its values are of type ``T``.

    Get one from :func:`streamq.open_reader`. Iterating yields every :class:`Chunk`, :class:`Reset`
    (and :class:`Gap`, if requested) and, last, the :class:`Seal`; then the iteration ends. There is
    no background task: a reader reads only while it is called.

    For one task at a time. Cancelling a call loses nothing: the next call continues.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        cursor: Cursor,
        *,
        idle_seconds: float,
        retry: RetryPolicy,
        serializer: Serializer[T] = PLAIN,
        codec: Codec | None = None,
        commits: bool = True,
        gaps_as_events: bool = False,
        read_bytes: int = _READ_BYTES,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.stream = stream
        """Which stream."""
        self._queue = queue
        self._idle_seconds = idle_seconds
        self._retry = retry
        self._codec = codec
        self._single_try = dataclasses.replace(retry, deadline_seconds=0.0)
        self._consumes = not queue.capabilities.replay
        self._commits = commits
        self._read_bytes = read_bytes
        self._committed = START
        self._home = Home("reader", backend=queue.backend, stream=stream)
        self._closed = False
        steps = [self._release] if self._consumes else []
        self._closing = Closing(*steps, *([] if on_close is None else [on_close]))
        self._position = cursor.position
        self._whole_position = cursor.position  # before the records that the sequencer holds back
        self._ahead: ReadAhead[T] = ReadAhead(cursor, consumes=self._consumes)
        self._reads = Reads(queue, stream)
        self._clock = asyncio.get_running_loop().time
        self._next_existence_check = 0.0
        self._sequencer = Sequencer(
            cursor.progress,
            gaps_as_events=gaps_as_events,
            reorder_bytes=0 if queue.capabilities.ordered else _EARLY_BYTES,
            reorder_records=sys.maxsize if commits else _EARLY_RECORDS,
            relative=self._consumes,
            serializer=serializer,
        )
        self._repeats = Repeats(queue, stream, self._sequencer)
        self._disorder = Disorder(queue, stream, self._sequencer, retry, self._clock)
        self._failure: StreamqError | None = None
        self._records = 0

    @property
    def seal(self) -> Seal | None:
        """The ending, once it has been delivered."""
        return self._ahead.seal

    @property
    def cursor(self) -> str:
        """Token of the place after the last event delivered; a later reader can begin there.

        After the seal it is the place before the seal, so that the later reader ends at once.
        """
        return self._ahead.cursor.encode(self.stream)

    @property
    def offset(self) -> int:
        """Offset of the last event delivered, 0 before the first."""
        return self.seal.offset if self.seal else self._ahead.cursor.progress.offset

    @property
    def is_ready(self) -> bool:
        """Whether the next event can be delivered without waiting."""
        return bool(self._ahead.pending)

    @property
    def is_spent(self) -> bool:
        """Whether more events come only after the cursor has been stored (``commits=False``)."""
        ahead = self._ahead
        return self._consumes and not self._commits and ahead.events > 0 and not ahead.pending

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that the newest attempt was opened with (``open_writer(headers=...)``).

        Empty until the opening of that attempt has been read. A reader that began after it, at the
        tail or at a cursor, does not read it.
        """
        return MappingProxyType(self._sequencer.headers)

    def statistics(self) -> ReaderStatistics:
        """Return counters; cheap, at any time."""
        return ReaderStatistics(
            events=self._ahead.events,
            chunks=self._ahead.chunks,
            chunk_bytes=self._ahead.chunk_bytes,
            records=self._records,
            buffered_bytes=self._ahead.buffered_bytes + self._sequencer.held_bytes,
            stale_records=self._sequencer.stale_records,
            duplicate_records=self._sequencer.duplicate_records,
        )

    async def read_batch(
        self,
        *,
        max_events: int = 1_000,
        max_bytes: int = _READ_BYTES,
        max_wait: float = _LONGEST_WAIT_SECONDS,
    ) -> list[Event[T] | GapT]:
        """Return the next events, waiting for the first one only.

        Args:
            max_events: Most events to return; 0 only waits until there is one (``is_ready``).
            max_bytes: Stop before exceeding this many bytes of chunk data, but return one event.
            max_wait: Seconds to wait for the first event.

        Returns:
            Events in order; empty after ``max_wait``, and after the seal has been delivered.

        Raises:
            TrimmedError: Events are no longer stored and gaps were not requested.
            StreamNotFoundError: The stream existed and has vanished: expired, deleted, or lost by
                the server.
            CorruptRecordError: Stored bytes are not a valid record.
            SerializationError: The stream is encoded by a codec that this reader does not have, or
                the codec failed; if the error is retryable, the next call tries again.
            BackendUnavailableError: The backend stayed unreachable for the retry deadline.
            ClosedError: The reader is closed.
        """
        until = self._clock() + max_wait
        while not self._ahead.pending and self.seal is None:
            self._check_open()
            left = until - self._clock()
            found = await self._fetch(max(left, 0.0))
            # Stale records have no events; there may be more of them than there is patience.
            if left <= 0 and (not found or left < -self._retry.call_seconds):
                break
        # The sequencer makes gaps only for readers that asked for them.
        return cast("list[Event[T] | GapT]", self._ahead.take(max_events, max_bytes))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T] | GapT:
        """Return the next event.

        Raises:
            StopAsyncIteration: The seal has been delivered.
            IdleTimeoutError: Nothing arrived within the idle deadline.
            StreamqError: As for :meth:`read_batch`.
        """
        if not self._ahead.pending:
            if self.seal is not None:
                raise StopAsyncIteration
            until = self._clock() + self._idle_seconds
            while not self._ahead.pending:
                self._check_open()
                left = until - self._clock()
                if left <= 0:
                    raise idle_timeout(
                        self.stream,
                        self._idle_seconds,
                        backend=self._queue.backend,
                        consumes=self._consumes,
                    )
                await self._fetch(min(left, _LONGEST_WAIT_SECONDS))
        return cast("Event[T] | GapT", self._ahead.deliver())

    async def collect(self) -> list[T]:
        """Read to the end and return the valid values: those after the last reset.

        Raises:
            StreamFailedError: The producer failed.
            StreamCancelledError: The producer was cancelled.
            StreamqError: As for iteration.
        """
        values: list[T] = []
        async for event in self:
            if isinstance(event, Chunk):
                values.append(event.value)
            elif isinstance(event, Reset):
                values.clear()
        raise_for_seal(self.seal, self.stream)
        return values

    async def aclose(self) -> None:
        """Stop reading. Idempotent. Events read and not delivered are left to the next reader.

        A call that waits in another task raises ``ClosedError`` when its wait ends, or at once if
        the reader opened its queue itself.

        Cancellation: everything is released all the same, soon after this call at the latest.
        """
        self._closed = True
        self._home.check()
        await self._closing.run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def _release(self) -> None:
        """Give back the records that were taken from other readers and not delivered."""
        try:  # unreleased records come back later
            await self._single_try.run(
                lambda: calling.release(self._queue, self.stream, self._ahead.cursor.position)
            )
        except StreamqError as exc:
            if isinstance(exc, DriverError):
                _logger.warning("%s", exc)

    def _check_open(self) -> None:
        self._home.check()
        if self._closed:
            raise ClosedError("this reader is closed", stream=str(self.stream))
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def _fetch(self, max_wait: float) -> bool:
        """Read once from the backend; return whether there were records."""
        if self._consumes:
            await self._commit()
            if self.is_spent:
                await asyncio.sleep(max_wait)
                return False
        if (pause := self._disorder.pause()) > 0:
            await asyncio.sleep(min(max_wait, pause, _PAUSE_SECONDS))
            return False
        found = await self._read(max_wait)
        records = await self._decode(found)
        await self._disorder.judge_seals(records)
        self._check_open()
        if not found:
            await self._check_existence()
            return False
        failure: StreamqError | None = None
        # No await from here to the end: cancellation cannot interrupt it halfway.
        for stored, record in zip(found, records, strict=False):
            before = self._whole_position
            try:
                if isinstance(record, StreamqError):
                    raise record
                events = self._sequencer.feed(record)
            except StreamqError as exc:
                # Events before the bad record are delivered first, then the error is raised: for
                # good or, if it is retryable (the codec's key service is down), until it passes.
                exc.backend, exc.stream = self._queue.backend, str(self.stream)
                failure = exc
                if not exc.retryable:
                    self._failure = exc
                break
            self._records += 1
            self._position = stored.position
            if not self._sequencer.holds_back:
                self._whole_position = stored.position
            self._ahead.add(
                events,
                before=before,
                after=self._whole_position,
                progress=self._sequencer.progress,
                is_complete=not self._sequencer.holds_back,
            )
        if (breach := self._repeats.judge(records, failure)) is not None:
            failure = self._failure = breach
            self._ahead.discard()
        if failure is not None and not self._ahead.pending:
            raise failure
        return True

    async def _commit(self) -> None:
        """Acknowledge the events delivered, or those before the cursor that the reader began at.

        Records without events (an OPEN, a repeat) are acknowledged as well: they are safe to lose,
        and the backend may send nothing more before that.
        """
        position = self._ahead.cursor.position
        if position not in (START, self._committed) and (self._commits or not self._ahead.events):
            await self._retry.run(lambda: calling.commit(self._queue, self.stream, position))
            self._committed = position

    async def _decode(self, found: Sequence[Stored]) -> list[Record | StreamqError]:
        """Return the records up to the first bad one, and in its place the error."""
        records: list[Record | StreamqError] = []
        try:
            for stored in found:
                record = Record.decode(stored.data)
                if record.coded is not None:
                    record = await reveal(record, self._codec, seconds=self._retry.call_seconds)
                records.append(record)
        except StreamqError as exc:
            records.append(exc)
        return records

    async def _read(self, max_wait: float) -> Sequence[Stored]:
        attempts = 0

        async def read() -> Sequence[Stored]:
            nonlocal attempts
            attempts += 1
            return await self._reads.read(
                self._position,
                max_records=_READ_RECORDS,
                max_bytes=self._read_bytes,
                # After an outage do not wait: the server may have lost the stream.
                max_wait=max_wait if attempts == 1 else 0.0,
            )

        found = await self._retry.run(read, wait_seconds=max_wait)
        if attempts > 1:
            self._next_existence_check = 0.0
        return found

    async def _check_existence(self) -> None:
        """Raise if the stream existed and does not exist any more."""
        now = self._clock()
        if self._position == START or now < self._next_existence_check:
            return
        self._next_existence_check = now + _EXISTENCE_SECONDS
        try:
            await self._single_try.run(lambda: calling.describe(self._queue, self.stream))
        except StreamNotFoundError as exc:
            raise StreamNotFoundError(
                f"stream {self.stream} has vanished after event {self._sequencer.offset}: it has "
                "expired, was deleted, or the server has lost it",
                backend=self._queue.backend,
                stream=str(self.stream),
            ) from exc
        except DriverError:
            raise
        except StreamqError:
            return  # this proves nothing; if the backend is unavailable, the next read raises
