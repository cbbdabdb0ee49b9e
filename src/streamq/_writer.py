"""The producer's side of a stream: natural batching, one bounded buffer, exactly one seal."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ._cursor import Progress
from ._errors import (
    ChunkTooLargeError,
    ClosedError,
    SealedError,
    StreamqError,
)
from ._events import SealState, StreamId
from ._retry import RetryPolicy
from ._values import Encoding, encode_value
from ._wire import Record, RecordKind, SealBody
from .driver import ChunkQueue, Entry

_TARGET_RECORD_BYTES = 65_536
"""Small chunks are packed into records of about this size: large enough to amortise a round trip,
small enough that a reader with a byte limit never holds much more than it asked for."""

_APPEND_BYTES = 1_048_576
"""Most bytes handed to the backend in one append."""

_RECORD_OVERHEAD = 64
"""Upper bound of the header, seal marker and checksum around the chunks of one record."""

_CHUNK_OVERHEAD = 6
_SEAL_TEXT_CHARS = 2_000


class OnRetry(enum.Enum):
    """What readers see when a new attempt takes a stream over.

    RESTART tells them to forget what they saw (``Reset``); RESUME goes on after the last durable
    chunk.
    """

    RESTART = "restart"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What a writer has done so far.

    Attributes:
        chunks: Chunks accepted by ``send_chunk``.
        chunk_bytes: Their encoded bytes.
        durable_chunks: Chunks that the backend has acknowledged.
        records: Records those were packed into.
        buffered_bytes: Bytes accepted and not yet acknowledged.
        waits: How often ``send_chunk`` had to wait for room in the buffer.
    """

    chunks: int
    chunk_bytes: int
    durable_chunks: int
    records: int
    buffered_bytes: int
    waits: int


class StreamWriter:
    """Sends chunks into one stream as one attempt of its producer.

    Get one from :func:`streamq.open_writer` or as the ``stream`` argument of a streaming activity.

    ``send_chunk`` does not wait for the network unless the bounded buffer is full. A background
    task owned by the writer sends at once when nothing is in flight, and packs what arrives during
    a round trip into the next one. When that task fails, every later call raises its error.

    As an async context manager it seals the stream: END on success, ERROR on an exception,
    CANCELLED on cancellation. Safe to use from many tasks of one event loop; chunks keep the order
    in which ``send_chunk`` was called.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        progress: Progress,
        *,
        on_retry: OnRetry,
        max_chunk_bytes: int,
        buffer_bytes: int,
        retry: RetryPolicy,
        producer: str = "",
        seal_timeout: float = 10.0,
        discards: bool = False,
        seals_failures: bool = True,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.stream = stream
        """Which stream."""
        self.attempt = progress.attempt
        """Dense number of this attempt, 1 for the first."""
        self.epoch = progress.epoch
        """The attempt's place among all runs of the producer; larger is newer."""
        self.resumed_from = progress.next_seq
        """Chunks of earlier attempts that stay valid; 0 unless this attempt resumes."""
        self.discards = discards
        """Whether chunks go nowhere, because the stream was sealed before this attempt began."""
        self._queue = queue
        self._restarts = on_retry is OnRetry.RESTART
        self._producer = producer
        self._seals_failures = seals_failures
        body_bytes = queue.capabilities.max_record_bytes - _RECORD_OVERHEAD
        self._max_chunk_bytes = min(max_chunk_bytes, body_bytes - _CHUNK_OVERHEAD)
        self._record_bytes = min(_TARGET_RECORD_BYTES, body_bytes)
        self._buffer_bytes = buffer_bytes
        self._retry = retry
        self._seal_timeout = seal_timeout
        self._on_close = on_close
        self._sent_seq = progress.next_seq  # seq of the next chunk to hand to the backend
        self._durable_seq = progress.next_seq
        self._next_offset = progress.offset + 1
        # What earlier attempts told is taken back by a Reset, which is sent at once.
        self._resets = self._restarts and progress.offset > 0
        self._pending: deque[tuple[Encoding, bytes]] = deque()
        self._seal: SealBody | None = None
        self._sealed = False
        self._closed = False
        self._error: StreamqError | None = None
        self._buffered = self._chunks = self._chunk_bytes = self._records = self._waits = 0
        self._waiting = 0
        self._admission = asyncio.Lock()
        self._wake = asyncio.Event()
        if self._resets:
            self._wake.set()
        self._progressed = asyncio.Event()
        self._pump = asyncio.create_task(self._run(), name=f"streamq-writer {stream}")
        self._pump.add_done_callback(self._on_stopped)

    @property
    def position(self) -> int:
        """How many chunks of this stream are valid and accepted: the seq of the next chunk."""
        return self._sent_seq + len(self._pending)

    @property
    def durable_position(self) -> int:
        """How many of them the backend has acknowledged."""
        return self._durable_seq

    @property
    def is_sealed(self) -> bool:
        """Whether the ending is durably stored."""
        return self._sealed

    def statistics(self) -> WriterStatistics:
        """Return counters; cheap, at any time."""
        return WriterStatistics(
            chunks=self._chunks,
            chunk_bytes=self._chunk_bytes,
            durable_chunks=self._durable_seq - self.resumed_from,
            records=self._records,
            buffered_bytes=self._buffered,
            waits=self._waits,
        )

    @property
    def _unacknowledged(self) -> int:
        return self._sent_seq - self._durable_seq + len(self._pending) + self._resets

    async def send_chunk(self, value: object) -> None:
        """Accept one chunk for sending.

        Returns at once while the buffer has room; else waits until the backend has caught up.
        Cancellation while waiting: nothing of the chunk is sent.

        Raises:
            SerializationError: The value is not text, bytes or JSON-serialisable.
            ChunkTooLargeError: The encoded value exceeds the limit. Nothing of it is stored and
                the stream stays usable.
            FencedError: A newer attempt has taken the stream over.
            SealedError: The stream has been sealed by this writer.
            ClosedError: The writer is closed.
        """
        encoding, data = encode_value(value)
        size = len(data)
        if size > self._max_chunk_bytes:
            raise ChunkTooLargeError(
                f"chunk of {size} bytes exceeds the limit of {self._max_chunk_bytes} for backend "
                f"{self._queue.backend!r} (STREAMQ_MAX_CHUNK_BYTES and the backend's own); send it "
                "in smaller chunks",
                backend=self._queue.backend,
                stream=str(self.stream),
            )
        self._check_writable()
        size += _CHUNK_OVERHEAD
        if self._waiting or self._is_full(size):
            await self._wait_for_room(size)
        self._pending.append((encoding, data))
        self._buffered += size
        self._chunks += 1
        self._chunk_bytes += size - _CHUNK_OVERHEAD
        self._wake.set()

    def _is_full(self, size: int) -> bool:
        return self._buffered > 0 and self._buffered + size > self._buffer_bytes

    async def _wait_for_room(self, size: int) -> None:
        """Wait for room in the buffer, behind every earlier caller."""
        self._waits += 1
        self._waiting += 1
        try:
            async with self._admission:
                while self._is_full(size):
                    self._check_writable()
                    await self._wait_progress()
            self._check_writable()
        finally:
            self._waiting -= 1

    async def flush(self) -> None:
        """Wait until every accepted chunk is durable.

        Raises:
            StreamqError: What stopped the writer, if it was stopped.
        """
        await self._drain()

    async def wait_stopped(self) -> StreamqError | None:
        """Wait until nothing more will be sent: the writer has sealed, failed or been closed.

        Returns:
            What stopped it, if it failed. Cancellation has no effect on the writer.
        """
        await asyncio.wait([self._pump])
        return self._error

    async def finish(self) -> None:
        """Seal the stream END, after every accepted chunk; returns once that is durable.

        Calling it again is harmless. Cancellation: the seal is still sent unless the writer is
        closed.

        Raises:
            SealedError: The stream was sealed otherwise (``fail``, ``cancel``).
            StreamqError: What stopped the writer, if it was stopped.
        """
        await self._finish(self._seal_body(SealState.END))

    async def fail(
        self, error: BaseException | str, *, error_type: str = "", retryable: bool = False
    ) -> None:
        """Seal the stream ERROR, after every accepted chunk. Same rules as :meth:`finish`.

        Args:
            error: The failure; its text becomes visible to every reader.
            error_type: The failure's name for readers, by default the exception's class.
            retryable: What to tell readers about trying again.
        """
        await self._finish(self._error_seal(error, error_type, retryable))

    async def cancel(self, reason: str = "") -> None:
        """Seal the stream CANCELLED, after every accepted chunk. Same rules as :meth:`finish`."""
        await self._finish(self._seal_body(SealState.CANCELLED, message=reason))

    async def aclose(self) -> None:
        """Stop: send what was accepted and a seal that was asked for (bounded wait), then release.

        Idempotent. The stream stays open for a next attempt unless it was sealed. Cancellation:
        what was not sent yet is given up, everything is released.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with contextlib.suppress(StreamqError, TimeoutError):
                async with asyncio.timeout(self._seal_timeout):
                    await self._drain()
        finally:
            self._pump.cancel()
            try:
                await asyncio.gather(self._pump, return_exceptions=True)
            finally:
                self._progressed.set()
                if self._on_close is not None:
                    closing, self._on_close = self._on_close, None
                    await closing()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if self._seal is not None:
                return
            if exc is None:
                await self.finish()
            elif not self._seals_failures:
                return
            elif isinstance(exc, asyncio.CancelledError):
                self._ask_seal(self._seal_body(SealState.CANCELLED))  # aclose waits for it
            else:
                self._ask_seal(self._error_seal(exc, "", retryable=False))
        finally:
            if self._seals_failures:
                await self.aclose()

    def _seal_body(self, state: SealState, *, message: str = "") -> SealBody:
        return SealBody(state, message=message[:_SEAL_TEXT_CHARS], producer=self._producer)

    def _error_seal(self, error: BaseException | str, name: str, retryable: bool) -> SealBody:
        name = name or ("Error" if isinstance(error, str) else type(error).__name__)
        text = str(error)[:_SEAL_TEXT_CHARS]
        return SealBody(SealState.ERROR, name[:200], text, retryable, self._producer)

    async def _finish(self, seal: SealBody) -> None:
        if self._seal is None:
            self._check_writable()
            self._ask_seal(seal)
        elif self._seal.state is not seal.state:
            raise self._already_sealed()
        await self._drain()

    @property
    def _has_open_seal(self) -> bool:
        return self._seal is not None and not self._sealed

    def _ask_seal(self, seal: SealBody) -> None:
        self._seal = seal
        self._wake.set()

    async def _drain(self) -> None:
        """Wait until every accepted chunk, and the seal if one was asked for, is durable."""
        while self._unacknowledged or self._has_open_seal:
            self._raise_error()
            await self._wait_progress()
        self._raise_error()

    async def _wait_progress(self) -> None:
        if self._closed and self._pump.done():
            raise ClosedError("this writer is closed", stream=str(self.stream))
        self._progressed.clear()
        await self._progressed.wait()

    def _check_writable(self) -> None:
        self._raise_error()
        if self._seal is not None:
            raise self._already_sealed()
        if self._closed:
            raise ClosedError("this writer is closed", stream=str(self.stream))

    def _already_sealed(self) -> SealedError:
        state = self._seal.state.name if self._seal else "?"
        return SealedError(
            f"stream {self.stream} is already sealed {state}; nothing can be added to it",
            stream=str(self.stream),
        )

    def _raise_error(self) -> None:
        if self._error is not None:
            # A fresh traceback for every caller; the cause stays the first failure.
            raise self._error.with_traceback(None)

    async def _run(self) -> None:
        """Send what is pending until the seal is durable, an error stops it, or it is cancelled."""
        try:
            while not self._sealed:
                await self._wake.wait()
                self._wake.clear()
                while self._pending or self._resets or self._has_open_seal:
                    await self._send_round()
        except StreamqError as exc:
            exc.stream = exc.stream or str(self.stream)
            self._error = exc
        except Exception as exc:  # noqa: BLE001 - a driver's defect: told to every caller
            self._error = StreamqError(
                f"backend {self._queue.backend!r} failed unexpectedly: {type(exc).__name__}: {exc}",
                backend=self._queue.backend,
                stream=str(self.stream),
            )
            self._error.__cause__ = exc

    def _on_stopped(self, pump: asyncio.Task[None]) -> None:
        if pump.cancelled() and not self._closed:
            # Not by us: whoever did it must not leave callers waiting.
            self._error = ClosedError(
                "the task that sends the chunks was cancelled", stream=str(self.stream)
            )
        self._progressed.set()

    async def _send_round(self) -> None:
        entries, buffered, sealed = self._pack()
        await self._retry.run(lambda: self._queue.append(self.stream, entries))
        self._durable_seq = self._sent_seq
        self._resets = False
        self._buffered -= buffered
        self._records += len(entries)
        self._sealed = sealed
        self._progressed.set()

    def _pack(self) -> tuple[list[Entry], int, bool]:
        """Take what is pending, up to one append's worth, and pack it into records.

        Returns:
            The records, the bytes of buffer they free, and whether the seal is in the last one.
        """
        entries: list[Entry] = []
        taken = 0
        pending = self._pending
        while pending and taken < _APPEND_BYTES:
            chunks: list[tuple[Encoding, bytes]] = []
            size = 0
            while pending:
                cost = len(pending[0][1]) + _CHUNK_OVERHEAD
                if chunks and size + cost > self._record_bytes:
                    break
                size += cost
                chunks.append(pending.popleft())
            taken += size
            fits = size + self._seal_bytes() <= self._queue.capabilities.max_record_bytes
            seal = self._seal if not pending and fits else None
            entries.append(self._entry(tuple(chunks), seal, resets=self._resets and not entries))
            if seal is not None:
                return entries, taken, True
        if pending:
            return entries, taken, False
        if self._seal is not None or not entries:  # the seal alone, or the reset alone
            entries.append(self._entry((), self._seal, resets=self._resets and not entries))
        return entries, taken, self._seal is not None

    def _seal_bytes(self) -> int:
        seal = self._seal
        texts = seal and len(seal.error_type) + len(seal.message) + len(seal.producer)
        return _RECORD_OVERHEAD + 4 * (texts or 0)

    def _entry(
        self, chunks: tuple[tuple[Encoding, bytes], ...], seal: SealBody | None, *, resets: bool
    ) -> Entry:
        record = Record(
            RecordKind.DATA,
            self.epoch,
            self._restarts,
            self.attempt,
            self._sent_seq,
            self._next_offset,
            chunks,
            seal,
            resets,
        )
        self._sent_seq += len(chunks)
        self._next_offset = record.last_offset + 1
        return Entry(self.epoch, record.index, record.encode())
