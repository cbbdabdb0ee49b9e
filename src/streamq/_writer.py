"""The producer's side of a stream: one bounded buffer, one task that sends, exactly one seal."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self

from ._codec import Codec, encode_entry
from ._errors import (
    BufferFullError,
    ChunkTooLargeError,
    ClosedError,
    ReplayError,
    StreamqError,
)
from ._events import SealState, StreamId
from ._fence import Fence
from ._outbox import Batch, Outbox
from ._policies import OnFull
from ._retry import RetryPolicy
from ._values import PLAIN, Encoding, Serializer, TContra
from ._wire import SealBody
from .driver import ChunkQueue, Entry


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What a writer has done so far.

    Attributes:
        chunks: Chunks accepted by ``send_chunk``.
        chunk_bytes: Their encoded bytes.
        replayed_chunks: Those among them that an earlier attempt had stored.
        durable_chunks: Chunks that the backend has acknowledged to this attempt.
        dropped_chunks: Chunks let go because the buffer was full (``OnFull.DROP``).
        records: Records that the acknowledged chunks were packed into.
        buffered_bytes: Bytes accepted and not yet acknowledged.
        waits: How often ``send_chunk`` had to wait for room in the buffer.
    """

    chunks: int
    chunk_bytes: int
    replayed_chunks: int
    durable_chunks: int
    dropped_chunks: int
    records: int
    buffered_bytes: int
    waits: int


class StreamWriter(Generic[TContra]):
    """Sends chunks of type ``T`` (by default any) into one stream as one attempt of its producer.

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
        outbox: Outbox,
        *,
        max_chunk_bytes: int,
        buffer_bytes: int,
        retry: RetryPolicy,
        serializer: Serializer[Any] = PLAIN,
        codec: Codec | None = None,
        on_full: OnFull = OnFull.BLOCK,
        holds_back: bool = False,
        sealed_ttl: timedelta | None = None,
        fence: Fence | None = None,
        seal_timeout: float = 10.0,
        discards: bool = False,
        seals_failures: bool = True,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.stream = stream
        """Which stream."""
        self.attempt = outbox.attempt
        """Dense number of this attempt, 1 for the first."""
        self.epoch = outbox.epoch
        """The attempt's place among all runs of the producer; larger is newer."""
        self.resumed_from = outbox.resumed_from
        """Chunks of earlier attempts that stay valid; 0 unless this attempt resumes or replays."""
        self.discards = discards
        """Whether chunks go nowhere, because the stream was sealed before this attempt began."""
        self.has_codec = codec is not None
        """Whether a codec encrypts, or compresses, what is sent on its way into the stream."""
        self._queue = queue
        self._takes_parts = queue.capabilities.replay
        self._outbox = outbox
        self._max_chunk_bytes = max_chunk_bytes
        self._buffer_bytes = buffer_bytes
        self._retry = retry
        self._serializer = serializer
        self._codec = codec
        self._on_full = on_full
        self._holds_back = holds_back
        # Around what a thread may do as well, and never while anything is awaited.
        self._lock = threading.Lock()
        self._sealed_ttl = sealed_ttl
        self._fence = fence
        self._seals_failures = seals_failures
        self._seal_timeout = seal_timeout
        self._on_close = on_close
        self._closed = False
        self._error: StreamqError | None = None
        self._chunks = self._chunk_bytes = self._replayed = self._dropped = 0
        self._records = self._waits = self._waiting = 0
        self._admission = asyncio.Lock()
        self._wake = asyncio.Event()
        if outbox.has_work:  # the reset
            self._wake.set()
        self._progressed = asyncio.Event()
        self._pump = asyncio.create_task(self._run(), name=f"streamq-writer {stream}")
        self._pump.add_done_callback(self._on_stopped)

    @property
    def position(self) -> int:
        """Seq of the next chunk to send: how many of the stream are valid and accepted.

        It begins after the last durable chunk with ``OnRetry.RESUME``, with ``REPLAY`` at 0.
        """
        return self._outbox.position

    @property
    def durable_position(self) -> int:
        """How many chunks the backend holds that are valid."""
        return self._outbox.durable_seq

    @property
    def is_sealed(self) -> bool:
        """Whether the ending is durably stored."""
        return self._outbox.is_sealed

    def statistics(self) -> WriterStatistics:
        """Return counters; cheap, at any time."""
        return WriterStatistics(
            chunks=self._chunks,
            chunk_bytes=self._chunk_bytes,
            replayed_chunks=self._replayed,
            durable_chunks=self._outbox.durable_seq - self.resumed_from,
            dropped_chunks=self._dropped,
            records=self._records,
            buffered_bytes=self._outbox.buffered_bytes,
            waits=self._waits,
        )

    async def send_chunk(self, value: TContra) -> None:
        """Accept one chunk for sending.

        Returns at once while the buffer has room; else does what ``on_full`` says, by default it
        waits until the backend has caught up. A chunk larger than a record of the backend is stored
        in parts, which readers join. Cancellation while waiting: nothing of the chunk is sent.

        Raises:
            SerializationError: The value is not text, bytes or JSON-serialisable.
            ChunkTooLargeError: The encoded value exceeds the limit. Nothing of it is stored and
                the stream stays usable.
            BufferFullError: There is no room, with ``OnFull.ERROR``; nothing of it is stored.
            ReplayError: With ``OnRetry.REPLAY``: an earlier attempt stored another chunk here.
            FencedError: A newer attempt has taken the stream over.
            SealedError: The stream has been sealed by this writer.
            ClosedError: The writer is closed.
        """
        encoding, data = self._encode(value)
        if not self._take(encoding, data):
            await self._accept_later(encoding, data)
        self._wake.set()

    def _offer(self, value: TContra) -> Coroutine[Any, Any, None] | None:
        """Accept or drop a chunk from a thread, or return what accepts it once there is room.

        After a chunk that was accepted at once, ``_wake`` is to be set, in the loop.
        """
        encoding, data = self._encode(value)
        with self._lock:
            return None if self._take(encoding, data) else self._accept_later(encoding, data)

    def _encode(self, value: TContra) -> tuple[Encoding, bytes]:
        encoding, data = self._serializer.encode(value)
        if not self._takes_parts and len(data) > self._outbox.whole_bytes:
            raise ChunkTooLargeError(
                f"chunk of {len(data)} bytes exceeds the {self._outbox.whole_bytes} that backend "
                f"{self._queue.backend!r} stores in one record; it has no replay, so that a chunk "
                "cannot be sent in parts. Send smaller ones, or take another backend",
                backend=self._queue.backend,
                stream=str(self.stream),
            )
        if len(data) > self._max_chunk_bytes:
            raise ChunkTooLargeError(
                f"chunk of {len(data)} bytes exceeds the limit of {self._max_chunk_bytes} "
                "(STREAMQ_MAX_CHUNK_BYTES); send it in smaller chunks",
                backend=self._queue.backend,
                stream=str(self.stream),
            )
        return encoding, data

    def _take(self, encoding: Encoding, data: bytes) -> bool:
        """Accept or drop a chunk at once, if that is possible; else say no."""
        if self._error is not None or self._closed:
            self._check_writable()
        outbox = self._outbox
        if outbox.is_replaying:
            self._accept(encoding, data)
            self._replayed += 1
            return True
        if self._waiting or not self._has_room(len(data)):
            outbox.check_open()
            if self._on_full is not OnFull.DROP:
                return False
            self._dropped += 1
            return True
        self._accept(encoding, data)
        return True

    def _accept(self, encoding: Encoding, data: bytes) -> None:
        self._outbox.accept(encoding, data)
        self._chunks += 1
        self._chunk_bytes += len(data)

    def _has_room(self, size: int) -> bool:
        return self._outbox.has_room(size, self._buffer_bytes)

    def _full(self, size: int) -> BufferFullError:
        held = self._outbox.buffered_bytes
        if self._holds_back:
            message = (
                f"{held} bytes are held back until the activity ends; {size} more exceed the limit "
                f"of {self._buffer_bytes} (STREAMQ_BATCH_BYTES). Raise it, or stream with "
                "STREAMQ_MODE=realtime"
            )
        else:
            message = (
                f"{held} bytes wait for backend {self._queue.backend!r}; {size} more exceed the "
                f"limit of {self._buffer_bytes} (STREAMQ_BUFFER_BYTES). Send it again later, or "
                "open the writer with OnFull.BLOCK"
            )
        error = BufferFullError(message, backend=self._queue.backend, stream=str(self.stream))
        error.retryable = not self._holds_back
        return error

    async def _accept_later(self, encoding: Encoding, data: bytes) -> None:
        """Accept a chunk once there is room in the buffer, behind every earlier caller."""
        if self._holds_back or self._on_full is OnFull.ERROR:
            raise self._full(len(data))
        self._waits += 1
        self._waiting += 1
        try:
            async with self._admission:
                # In one step: room that was only found could be taken by another thread.
                while not self._accept_if_room(encoding, data):
                    await self._wait_progress()
        finally:
            self._waiting -= 1
        self._wake.set()

    def _accept_if_room(self, encoding: Encoding, data: bytes) -> bool:
        with self._lock:
            self._check_writable()
            if not self._has_room(len(data)):
                return False
            self._accept(encoding, data)
            return True

    async def flush(self) -> None:
        """Wait until every accepted chunk is durable; not for those that batch mode holds back.

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

    def on_stopped(self, callback: Callable[[SealBody | None, StreamqError | None], None]) -> None:
        """Call back in the event loop once nothing more will be sent.

        Args:
            callback: Is given the seal if it is durable, and what stopped the writer if it failed.
        """

        def stopped(_: asyncio.Task[None]) -> None:
            callback(self._outbox.seal if self.is_sealed else None, self._error)

        self._pump.add_done_callback(stopped)

    async def finish(self) -> None:
        """Seal the stream END, after every accepted chunk; returns once that is durable.

        Calling it again is harmless. Cancellation: the seal is still sent unless the writer is
        closed.

        Raises:
            SealedError: The stream was sealed otherwise (``fail``, ``cancel``).
            ReplayError: With ``OnRetry.REPLAY``: not all durable chunks were sent again.
            StreamqError: What stopped the writer, if it was stopped.
        """
        await self._finish(SealState.END)

    async def fail(
        self, error: BaseException | str, *, error_type: str = "", retryable: bool = False
    ) -> None:
        """Seal the stream ERROR, after every accepted chunk. Same rules as :meth:`finish`.

        Args:
            error: The failure; its text becomes visible to every reader.
            error_type: The failure's name for readers, by default the exception's class.
            retryable: What to tell readers about trying again.
        """
        await self._finish(
            SealState.ERROR,
            error_type=error_type or _type_name(error),
            message=str(error),
            retryable=retryable,
        )

    async def cancel(self, reason: str = "") -> None:
        """Seal the stream CANCELLED, after every accepted chunk. Same rules as :meth:`finish`."""
        await self._finish(SealState.CANCELLED, message=reason)

    async def aclose(self) -> None:
        """Stop: send what was accepted and a seal that was asked for (bounded wait), then release.

        Idempotent; who calls it meanwhile waits as well, so that closing the queue next is safe.
        The stream stays open for a next attempt unless it was sealed. Cancellation: what was not
        sent yet is given up, everything is released.
        """
        if self._closed:
            await asyncio.wait([self._pump])
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
            if self._outbox.seal is not None:
                return
            if exc is None:
                await self._end()
            elif not self._seals_failures:
                return
            elif isinstance(exc, asyncio.CancelledError):
                self._ask_seal(SealState.CANCELLED)  # aclose waits for it
            else:
                self._ask_seal(SealState.ERROR, error_type=_type_name(exc), message=str(exc))
        finally:
            if self._seals_failures or self._outbox.is_sealed:
                await self.aclose()

    async def _end(self) -> None:
        try:
            await self.finish()
        except ReplayError as exc:
            if self._seals_failures:
                self._ask_seal(SealState.ERROR, error_type=_type_name(exc), message=str(exc))
            raise

    async def _finish(
        self,
        state: SealState,
        *,
        error_type: str = "",
        message: str = "",
        retryable: bool = False,
    ) -> None:
        if self._outbox.seal is None:
            self._check_writable()
        self._ask_seal(state, error_type=error_type, message=message, retryable=retryable)
        await self._drain()

    def _ask_seal(
        self,
        state: SealState,
        *,
        error_type: str = "",
        message: str = "",
        retryable: bool = False,
    ) -> None:
        with self._lock:
            self._outbox.ask_seal(
                state, error_type=error_type, message=message, retryable=retryable
            )
        self._wake.set()

    async def _drain(self) -> None:
        """Wait until every accepted chunk, and the seal if one was asked for, is durable."""
        # Temporal may have interrupted a thread between accepting a chunk and waking the sender.
        self._wake.set()
        while self._outbox.has_work:
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
        self._outbox.check_open()
        if self._closed:
            raise ClosedError("this writer is closed", stream=str(self.stream))

    def _raise_error(self) -> None:
        if self._error is not None:
            # A fresh traceback for every caller; the cause stays the first failure.
            raise self._error.with_traceback(None)

    async def _run(self) -> None:
        """Send what is pending until the seal is durable, an error stops it, or it is cancelled."""
        try:
            while not self._outbox.is_sealed:
                await self._wait_for_work()
                self._wake.clear()
                while (batch := self._pack()) is not None:
                    await self._send(batch)
                    if self._fence is not None:
                        await self._fence.look()
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

    async def _wait_for_work(self) -> None:
        if self._fence is None:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._fence.seconds):
                await self._wake.wait()
        await self._fence.look()

    def _on_stopped(self, pump: asyncio.Task[None]) -> None:
        if pump.cancelled() and not self._closed:
            # Not by us: whoever did it must not leave callers waiting.
            self._error = ClosedError(
                "the task that sends the chunks was cancelled", stream=str(self.stream)
            )
        self._progressed.set()

    def _pack(self) -> Batch | None:
        with self._lock:
            return self._outbox.pack()

    async def _send(self, batch: Batch) -> None:
        ttl = self._sealed_ttl if batch.seals else None
        entries = batch.entries
        if (codec := self._codec) is not None:
            seconds = self._retry.call_seconds
            entries = tuple([await encode_entry(each, codec, seconds=seconds) for each in entries])
            self._check_sizes(entries)
        await self._retry.run(lambda: self._queue.append(self.stream, entries, ttl=ttl))
        if batch.seals and self._fence is not None:
            # Stored is not sealed: behind a newer attempt's opening, no reader takes it for an end.
            await self._fence.check()
        with self._lock:
            self._outbox.acknowledge()
        self._records += len(entries)
        self._progressed.set()

    def _check_sizes(self, entries: tuple[Entry, ...]) -> None:
        limit = self._queue.capabilities.max_record_bytes
        for entry in entries:
            if len(entry.data) > limit:
                raise ChunkTooLargeError(
                    f"the payload codec made {len(entry.data)} bytes of a record, more than the "
                    f"{limit} that backend {self._queue.backend!r} stores; a codec may at most "
                    "double what it is given",
                    backend=self._queue.backend,
                    stream=str(self.stream),
                )


def _type_name(error: BaseException | str) -> str:
    return "Error" if isinstance(error, str) else type(error).__name__
