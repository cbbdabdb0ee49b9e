"""Accepts the chunks of one attempt into a bounded buffer and seals the stream exactly once.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Self

from streamq._errors import (
    BufferFullError,
    ClosedError,
    NotAwaitedError,
    ReplayError,
    StreamqError,
    error_text,
)
from streamq._events import SealState, StreamId
from streamq._retry import RetryPolicy
from streamq._statistics import WriterStatistics
from streamq.driver import ChunkQueue, Closing
from streamq.records._values import Encoding, TContra
from streamq.records._wire import SealBody

from ._chunk_encoder import ChunkEncoder
from ._fence import Fence
from ._limits import Limits, not_awaited
from ._outbox import Outbox
from ._owner import leave, type_name, withdraw_seals
from ._policies import OnFull
from ._send_calls import ACCEPTED, SendCall, SendCalls, marked_coroutine_function
from ._sender import Sender
from ._writer_options import WriterOptions


class StreamWriter(Generic[TContra]):
    """Sends chunks of type ``T`` (by default any) into one stream as one attempt of its producer.

    Get one from :func:`streamq.open_writer` or as the ``stream`` argument of a streaming activity.

    ``send_chunk`` does not wait for the network unless the bounded buffer is full. A background
    task owned by the writer sends at once when nothing is in flight, and packs the chunks that
    arrive during a round trip into the next one. When that task fails, every later call raises its
    error.

    As an async context manager it seals the stream: END on success, ERROR on an exception,
    CANCELLED on cancellation. In an activity of a worker with the plugin, an exception seals when
    the activity ends, and only if Temporal does not run it again. Safe to use from many tasks of
    one event loop; chunks keep the order in which ``send_chunk`` was called.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        outbox: Outbox,
        options: WriterOptions,
        *,
        retry: RetryPolicy,
        fence: Fence | None = None,
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
        self.discards = options.discards
        """Whether chunks are stored nowhere: the stream was sealed before this attempt began."""
        self.has_codec = options.codec is not None
        """Whether a codec encrypts or compresses what is stored."""
        self._queue = queue
        self._outbox = outbox
        self._limits = Limits.of(options, queue, stream, outbox.whole_bytes)
        self._encoder = ChunkEncoder(options.serializer, self._limits)
        self._on_full = options.on_full
        self._seals_failures = options.seals_failures
        self._seal_timeout = options.seal_timeout
        self._closed = False
        self._chunks = self._chunk_bytes = self._replayed = self._dropped = 0
        self._waits = self._waiting = 0
        self._admission = asyncio.Lock()
        self._calls = SendCalls()
        self._sender = Sender(
            queue,
            stream,
            outbox,
            retry=retry,
            codec=options.codec,
            fence=fence,
            ttl=options.ttl,
            sealed_ttl=options.sealed_ttl,
            quota=options.quota,
        )
        self._home, self._lock, self._wake = self._sender.home, self._sender.lock, self._sender.wake
        self._closing = Closing(self._end_sending, *([] if on_close is None else [on_close]))

    @property
    def position(self) -> int:
        """Seq of the next chunk to send: the number of valid chunks accepted into the stream.

        It begins after the last durable chunk with ``OnRetry.RESUME``, and at 0 with ``REPLAY``.
        """
        return self._outbox.position

    @property
    def durable_position(self) -> int:
        """The number of valid chunks that the backend holds."""
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
            records=self._sender.records,
            buffered_bytes=self._outbox.buffered_bytes,
            waits=self._waits,
        )

    @marked_coroutine_function
    def send_chunk(self, value: TContra) -> Coroutine[Any, Any, None]:
        """Accept one chunk for sending; to be awaited.

        With room in the buffer, the call itself accepts the chunk, or raises. Without room
        ``on_full`` decides; by default the awaited call waits until the backend has caught up.
        Chunks are in the order of the calls, also of calls that become tasks. A chunk larger than
        a record of the backend is stored in parts, which readers join. Cancellation while waiting:
        nothing of the chunk is sent.

        Half a character at the end of text (a lone surrogate) waits for its other half in the next
        text; one that stays alone becomes U+FFFD.

        Code that cannot await uses :meth:`send_nowait`. If a call that had to wait was never
        awaited, its chunk is lost, and :meth:`finish` fails. Calls that are done are one object.

        Raises:
            SerializationError: The value is not text, bytes or JSON-serialisable.
            ChunkTooLargeError: The encoded value exceeds the limit. Nothing of it is stored and
                the stream stays usable.
            BufferFullError: There is no room, with ``OnFull.ERROR``; nothing of it is stored.
            QuotaError: It is more than the tenant's quota permits; nothing of it is stored.
            ReplayError: With ``OnRetry.REPLAY``: an earlier attempt stored another chunk here.
            FencedError: A newer attempt has taken the stream over.
            SealedError: The stream has been sealed by this writer.
            ClosedError: The writer is closed.
        """
        self._home.check_from_thread()
        if (later := self._offer(value)) is not None:
            return SendCall(later, self._calls)
        self._wake.set_from_thread()
        return ACCEPTED

    def send_nowait(self, value: TContra) -> None:
        """Accept one chunk for sending, or raise if there is no room; for code that cannot await.

        May be called in any thread while the writer's event loop runs. Bounded by the writer's
        buffer (``STREAMQ_BUFFER_BYTES``): a caller that is faster than the backend gets
        ``BufferFullError``, or with ``OnFull.DROP`` the chunk is dropped and counted.

        Raises:
            BufferFullError: There is no room, or calls of :meth:`send_chunk` wait for it; nothing
                of the chunk is stored. The next call may succeed.
            StreamqError: As for :meth:`send_chunk`.
        """
        self._home.check_from_thread()
        encoding, data = self._encoder.encode(value)
        with self._lock:
            if not self._take(encoding, data):
                raise self._full(len(data), "await send_chunk, which waits for room")
        self._wake.set_from_thread()

    def _offer(self, value: TContra) -> Coroutine[Any, Any, None] | None:
        """Accept or drop a chunk from any thread, or return a coroutine that accepts it later.

        After a chunk that was accepted at once, the caller wakes the sender.
        """
        encoding, data = self._encoder.encode(value)
        with self._lock:
            if self._take(encoding, data):
                return None
        if self._limits.holds_back or self._on_full is OnFull.ERROR:
            raise self._full(len(data), "open the writer with OnFull.BLOCK")
        return self._accept_later(encoding, data)

    def _take(self, encoding: Encoding, data: bytes) -> bool:
        """Accept or drop a chunk at once; return whether that was possible."""
        if self._sender.error is not None or self._closed:
            self._check_writable()
        outbox = self._outbox
        if outbox.is_replaying:
            self._accept(encoding, data)
            self._replayed += 1
            return True
        if self._waiting or not outbox.has_room(len(data), self._limits.buffer_bytes):
            outbox.check_open()
            if self._on_full is not OnFull.DROP:
                return False
            self._dropped += 1
            return True
        self._accept(encoding, data)
        return True

    def _accept(self, encoding: Encoding, data: bytes) -> None:
        self._limits.check_total(self._chunk_bytes + len(data))
        self._outbox.accept(encoding, data)
        self._chunks += 1
        self._chunk_bytes += len(data)

    def _full(self, size: int, remedy: str) -> BufferFullError:
        self._encoder.withdraw()
        return self._limits.buffer_full(size, self._outbox.buffered_bytes, remedy)

    async def _accept_later(self, encoding: Encoding, data: bytes) -> None:
        """Accept a chunk once there is room in the buffer, behind every earlier caller."""
        self._waits += 1
        self._waiting += 1
        try:
            async with self._admission:
                # Check and accept in one step: another thread could take the room in between.
                while not self._accept_if_room(encoding, data):
                    await self._sender.wait_progress()
        finally:
            self._waiting -= 1
        self._wake.set()

    def _accept_if_room(self, encoding: Encoding, data: bytes) -> bool:
        with self._lock:
            self._check_writable()
            if not self._outbox.has_room(len(data), self._limits.buffer_bytes):
                return False
            self._accept(encoding, data)
            return True

    async def flush(self) -> None:
        """Wait until every accepted chunk is durable, except those that batch mode holds back.

        Raises:
            StreamqError: The error that stopped the writer.
        """
        await self._sender.drain()

    async def wait_stopped(self) -> StreamqError | None:
        """Wait until nothing more will be sent: the writer has sealed, failed or been closed.

        Returns:
            The error that stopped it, if it failed. Cancellation has no effect on the writer.
        """
        await self._sender.wait_stopped()
        return self._sender.error

    def on_stopped(self, callback: Callable[[SealBody | None, StreamqError | None], None]) -> None:
        """Call back in the event loop once nothing more will be sent.

        Args:
            callback: Called with the seal if it is durable, and the error if the writer failed.
        """
        self._sender.on_stopped(callback)

    async def finish(self) -> None:
        """Seal the stream END, after every accepted chunk; returns once that is durable.

        Chunks of earlier calls of :meth:`send_chunk` that wait for room, or are tasks that have not
        begun, come first. Calling it again is harmless. Cancellation: nothing is sealed while
        chunks wait for room; a requested seal is still sent unless the writer is closed.

        Raises:
            NotAwaitedError: Calls of :meth:`send_chunk` had to wait and were never awaited.
            SealedError: The stream was sealed otherwise (``fail``, ``cancel``), or its producer
                was cancelled before END was sent.
            ReplayError: With ``OnRetry.REPLAY``: not all durable chunks were sent again.
            StreamqError: The error that stopped the writer.
        """
        self._home.check()
        if self._outbox.seal is None:
            self._check_writable()
            if forgotten := await self._calls.never_begun():
                raise not_awaited(forgotten, str(self.stream))
            async with self._admission:  # behind every call that waits for room
                self._request_seal(SealState.END)
        await self._finish(SealState.END)

    async def fail(
        self, error: BaseException | str, *, error_type: str = "", retryable: bool = False
    ) -> None:
        """Seal the stream ERROR, after every accepted chunk; one that waits for room is refused.

        Args:
            error: The failure; its text becomes visible to every reader.
            error_type: The failure's name for readers, by default the exception's class.
            retryable: Whether the seal calls the failure one that may pass.
        """
        await self._finish(
            SealState.ERROR,
            error_type=error_type or type_name(error),
            message=error_text(error),
            retryable=retryable,
        )

    async def cancel(self, reason: str = "") -> None:
        """Seal the stream CANCELLED, after every accepted chunk, as :meth:`fail` does."""
        await self._finish(SealState.CANCELLED, message=reason)

    async def aclose(self) -> None:
        """Send the accepted chunks and a requested seal (bounded wait), then release everything.

        Idempotent; concurrent calls wait as well, so that closing the queue next is safe. The
        stream stays open for a next attempt unless it was sealed.

        Cancellation: what is not sent within a second is abandoned; everything is released.
        """
        self._closed = True
        try:
            await self._closing.run()
        except asyncio.CancelledError:
            self._sender.abandon()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        closes = self._seals_failures
        try:
            if self._outbox.seal is None and exc is None:
                await self.finish()
            elif self._outbox.seal is None and exc is not None and closes:
                closes = leave(self, exc)
        except (ReplayError, NotAwaitedError) as error:
            closes = closes and leave(self, error)
            raise
        except asyncio.CancelledError as error:
            if withdraw_seals(self) and closes:
                closes = leave(self, error)
            raise
        finally:
            if closes or self._outbox.is_sealed:
                await self.aclose()

    async def _end_sending(self) -> None:
        await self._sender.aclose(self._seal_timeout)

    async def _finish(
        self,
        state: SealState,
        *,
        error_type: str = "",
        message: str = "",
        retryable: bool = False,
    ) -> None:
        self._home.check()
        if self._outbox.seal is None:
            self._check_writable()
        self._request_seal(state, error_type=error_type, message=message, retryable=retryable)
        await self._sender.drain()
        self._outbox.check_sealed(state)

    def _request_seal(
        self,
        state: SealState,
        *,
        error_type: str = "",
        message: str = "",
        retryable: bool = False,
    ) -> None:
        with self._lock:
            can_end = self._outbox.seal is None and not self._outbox.is_replaying
            if can_end and (half := self._encoder.end()) is not None:
                self._accept(*half)
            self._outbox.request_seal(
                state, error_type=error_type, message=message, retryable=retryable
            )
        self._sender.hurry()
        self._wake.set()

    def _check_writable(self) -> None:
        self._sender.raise_error()
        self._outbox.check_open()
        if self._closed:
            raise ClosedError("this writer is closed", stream=str(self.stream))
