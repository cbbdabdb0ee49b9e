"""The consumer's side of a stream: events by cursor, resumable, with a deadline on every wait."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Generic, Self

from ._codec import Codec, reveal
from ._cursor import Cursor
from ._errors import (
    ClosedError,
    IdleTimeoutError,
    StreamCancelledError,
    StreamFailedError,
    StreamNotFoundError,
    StreamqError,
)
from ._events import Chunk, Event, Reset, Seal, SealState, StreamId
from ._read_ahead import ReadAhead
from ._retry import RetryPolicy
from ._sequencer import Sequencer
from ._statistics import ReaderStatistics
from ._values import PLAIN, Serializer, T
from ._wire import Record
from .driver import START, ChunkQueue, Stored

_READ_RECORDS = 256
_READ_BYTES = 1_048_576
_EARLY_BYTES = 8 * _READ_BYTES  # held back at most, where there is no order
_EARLY_RECORDS = 1_000  # the same, where the cursor is stored and names each of them
_PAUSE_SECONDS = 1.0  # between two looks whether a reader that waits for a time-out is closed
_LONGEST_WAIT_SECONDS = 20.0
_EXISTENCE_SECONDS = 5.0  # between two looks whether an idle stream is still there


class StreamReader(Generic[T]):
    """Reads one stream, event by event or batch by batch; its values are of type ``T``.

    Get one from :func:`streamq.open_reader`. Iterating gives every :class:`Chunk`, :class:`Reset`
    (and :class:`Gap`, if asked for) and, last, the :class:`Seal`; then the iteration ends. There is
    no background task: a reader that is not asked does not read.

    For one task at a time. Cancelling a call loses nothing: the next call goes on.
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
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.stream = stream
        """Which stream."""
        self._queue = queue
        self._idle_seconds = idle_seconds
        self._retry = retry
        self._codec = codec
        self._single_try = dataclasses.replace(retry, deadline_seconds=0.0)
        self._on_close = on_close
        self._consumes = not queue.capabilities.replay
        self._commits = commits
        self._committed = START
        self._closed = False
        self._position = cursor.position
        self._whole_position = cursor.position  # before what the sequencer holds back
        self._ahead: ReadAhead[T] = ReadAhead(cursor, consumes=self._consumes)
        self._clock = asyncio.get_running_loop().time
        self._next_look = 0.0
        self._sequencer = Sequencer(
            cursor.progress,
            gaps_as_events=gaps_as_events,
            reorder_bytes=0 if queue.capabilities.ordered else _EARLY_BYTES,
            reorder_records=sys.maxsize if commits else _EARLY_RECORDS,
            relative=self._consumes,
            serializer=serializer,
        )
        self._hole_until: float | None = None
        self._failure: StreamqError | None = None
        self._records = 0

    @property
    def seal(self) -> Seal | None:
        """The ending, once it has been delivered."""
        return self._ahead.seal

    @property
    def cursor(self) -> str:
        """Token of the place after the last event delivered; give it to a later reader.

        After the seal it names the place before it, so that the later reader ends at once.
        """
        return self._ahead.cursor.encode(self.stream)

    @property
    def offset(self) -> int:
        """Offset of the last event delivered, 0 before the first."""
        return self.seal.offset if self.seal else self._ahead.cursor.progress.offset

    @property
    def is_spent(self) -> bool:
        """Whether there can be more only after the cursor has been stored (``commits=False``)."""
        ahead = self._ahead
        return self._consumes and not self._commits and ahead.events > 0 and not ahead.pending

    @property
    def headers(self) -> Mapping[str, str]:
        """What the newest attempt was opened with (``open_writer(headers=...)``).

        Empty until its opening has been read: so for a reader that began after it, at the tail or
        at a cursor.
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
    ) -> list[Event[T]]:
        """Return the next events, waiting for the first one only.

        Args:
            max_events: Most events to return, at least 1.
            max_bytes: Stop before exceeding this many bytes of chunk data, but return one event.
            max_wait: Seconds to wait for the first event.

        Returns:
            Events in order; empty after ``max_wait``, and after the seal has been delivered.

        Raises:
            TrimmedError: Events are no longer stored and gaps were not asked for.
            StreamNotFoundError: The stream was there and has vanished: expired, deleted, or lost by
                the server.
            CorruptRecordError: Stored bytes are not a valid record.
            SerializationError: The stream is encoded by a codec that is not here, or that failed;
                if that is retryable the next call tries again.
            BackendUnavailableError: The backend stayed unreachable for the retry deadline.
            ClosedError: The reader is closed.
        """
        until = self._clock() + max_wait
        while not self._ahead.pending and self.seal is None:
            self._check_open()
            left = until - self._clock()
            if not await self._fetch(max(left, 0.0)) and left <= 0:
                break
        return self._ahead.take(max_events, max_bytes)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
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
                    gone = ", or another reader has taken it all" if self._consumes else ""
                    raise IdleTimeoutError(
                        f"nothing arrived on stream {self.stream} for {self._idle_seconds:g} s; "
                        f"the producer may be gone{gone} (STREAMQ_IDLE_SECONDS is the deadline)",
                        backend=self._queue.backend,
                        stream=str(self.stream),
                    )
                await self._fetch(min(left, _LONGEST_WAIT_SECONDS))
        return self._ahead.deliver()

    async def collect(self) -> list[T]:
        """Read to the end and return the values that count: those after the last reset.

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
        """Stop reading. Idempotent. What was read and not delivered is left to the next reader.

        A call that another task is waiting in raises ``ClosedError`` when its wait ends; at once if
        the reader opened its queue itself.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._consumes:
                with contextlib.suppress(StreamqError):  # it comes back by itself, only later
                    await self._single_try.run(
                        lambda: self._queue.release(self.stream, self._ahead.cursor.position)
                    )
        finally:
            if self._on_close is not None:
                closing, self._on_close = self._on_close, None
                await closing()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this reader is closed", stream=str(self.stream))
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def _fetch(self, max_wait: float) -> bool:
        """Read once from the backend; return whether anything came."""
        if self._consumes:
            await self._commit()
            if self.is_spent:
                await asyncio.sleep(max_wait)
                return False
        if (pause := self._pause()) > 0:
            await asyncio.sleep(min(max_wait, pause, _PAUSE_SECONDS))
            return False
        found = await self._read(max_wait)
        records = await self._decode(found)
        self._check_open()
        if not found:
            await self._look_after_it()
            return False
        failure: StreamqError | None = None
        # From here to the end there is no await: cancellation cannot tear it.
        for stored, record in zip(found, records, strict=False):
            before = self._whole_position
            try:
                if isinstance(record, StreamqError):
                    raise record
                events = self._sequencer.feed(record)
            except StreamqError as exc:
                # What came before the bad record is delivered first, then the error: for good, or,
                # if the codec's key service is away, until it is back.
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
        if failure is not None and not self._ahead.pending:
            raise failure
        return True

    def _pause(self) -> float:
        """Return for how long not to read, since what is missing may be hidden from us.

        A reader that died keeps it for a time-out. If there is more behind it than we hold back, it
        must not be taken for lost before that.
        """
        if not self._sequencer.is_half_full:
            self._hole_until = None
            return 0.0
        now = self._clock()
        if self._hole_until is None:
            self._hole_until = now + self._queue.hidden_seconds
        return self._hole_until - now

    async def _commit(self) -> None:
        """Acknowledge what was delivered, or what the cursor says that somebody has.

        What tells nothing (an OPEN, a repeat) is safe to lose, and more may come only after it.
        """
        position = self._ahead.cursor.position
        if position not in (START, self._committed) and (self._commits or not self._ahead.events):
            await self._retry.run(lambda: self._queue.commit(self.stream, position))
            self._committed = position

    async def _decode(self, found: Sequence[Stored]) -> list[Record | StreamqError]:
        """Return the records up to the first bad one, and in its place what is wrong with it."""
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
            return await self._queue.read(
                self.stream,
                self._position,
                max_records=_READ_RECORDS,
                max_bytes=_READ_BYTES,
                # After an outage look at once: the server may have lost the stream.
                max_wait=max_wait if attempts == 1 else 0.0,
            )

        found = await self._retry.run(read, wait_seconds=max_wait)
        if attempts > 1:
            self._next_look = 0.0
        return found

    async def _look_after_it(self) -> None:
        """Raise if the stream that is waited for was there and is not any more."""
        now = self._clock()
        if self._position == START or now < self._next_look:
            return
        self._next_look = now + _EXISTENCE_SECONDS
        try:
            await self._single_try.run(lambda: self._queue.describe(self.stream))
        except StreamNotFoundError as exc:
            raise StreamNotFoundError(
                f"stream {self.stream} has vanished after event {self._sequencer.offset}: it has "
                "expired, was deleted, or the server has lost it",
                backend=self._queue.backend,
                stream=str(self.stream),
            ) from exc
        except StreamqError:
            return  # that proves nothing; if the backend is away, the next read says so


def raise_for_seal(seal: Seal | None, stream: StreamId) -> None:
    """Raise if the ending was not END.

    Raises:
        StreamFailedError: ERROR.
        StreamCancelledError: CANCELLED.
    """
    if seal is None or seal.state is SealState.END:
        return
    detail = f": {seal.message}" if seal.message else ""
    if seal.state is SealState.CANCELLED:
        raise StreamCancelledError(
            f"the producer of {stream} was cancelled{detail}", stream=str(stream)
        )
    raise StreamFailedError(
        f"the producer of {stream} failed with {seal.error_type}{detail}",
        error_type=seal.error_type,
        retryable=seal.retryable,
        stream=str(stream),
    )
