"""Stores the batches of an outbox in the backend, one at a time, and owns the task of a writer.

Where the driver can store for many streams at once, the batches of all writers travel together, and
the task has work only after a failure. Elsewhere, and with a codec, a quota or a fence of our own,
the task carries each batch itself.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from streamq._errors import ChunkTooLargeError, ClosedError, StreamqError, error_text
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, Entry, Home, StreamAppend
from streamq.quotas._writers import WriterQuota
from streamq.records._codec import Codec, conceal
from streamq.records._wire import SealBody

from ._fence import Fence
from ._outbox import Batch, Outbox
from ._shared_sending import SharedCall, shared_sending
from ._wakeup import Wakeup


class Sender:
    """Owns the task that carries an outbox's batches to the backend.

    The task ends when the seal is durable, when an error stops it, or when it is cancelled.

    Args:
        queue: The backend.
        stream: Which stream.
        outbox: The batches to send. To change it, hold :attr:`lock`, then set :attr:`wake`.
        retry: How appends are retried, and how long one call may take.
        codec: Encrypts or compresses each record, if set.
        fence: Detects a newer attempt, on a backend that does not refuse appends of an older one.
        ttl: Time to live that other appends request; ``None`` for the backend's usual one.
        sealed_ttl: Time to live that the append of the seal requests.
        quota: Delays appends that are more than the tenant's quota permits; released at the end.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        outbox: Outbox,
        *,
        retry: RetryPolicy,
        codec: Codec | None,
        fence: Fence | None,
        ttl: timedelta | None,
        sealed_ttl: timedelta | None,
        quota: WriterQuota | None = None,
    ) -> None:
        self.home = Home("writer", backend=queue.backend, stream=stream)
        """The event loop of the task."""
        is_plain = codec is None and fence is None and not (quota and quota.delays)
        self._shared = shared_sending(queue, retry.call_seconds) if is_plain else None
        self.wake = Wakeup(str(stream), None if self._shared is None else self._enlist)
        """To be set after the outbox was given something to send."""
        self.lock = threading.Lock()
        """Held while the outbox is changed, since threads do so as well; never across an await."""
        self.error: StreamqError | None = None
        """The error that stopped the task, if one did."""
        self.records = 0
        """How many records the backend has acknowledged."""
        self._queue = queue
        self._stream = stream
        self._outbox = outbox
        self._retry = retry
        self._codec = codec
        self._fence = fence
        self._ttl = ttl
        self._sealed_ttl = sealed_ttl
        self._quota = quota
        self._is_closing = False
        self._is_enlisted = False
        self._batch: Batch | None = None
        self._call: SharedCall | None = None
        self._setback: StreamqError | None = None
        self._attention = asyncio.Event()
        self._hurries = asyncio.Event()
        self._progressed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"streamq-writer {stream}")
        self._task.add_done_callback(self._on_stopped)
        if outbox.has_work:  # the reset
            self.wake.set()

    def raise_error(self) -> None:
        """Raise the error that stopped the task, if one did."""
        if self.error is not None:
            # A fresh traceback for every caller; the cause stays the first failure.
            raise self.error.with_traceback(None)

    async def drain(self) -> None:
        """Wait until every chunk in the outbox, and a requested seal, is durable.

        Raises:
                StreamqError: The error that stopped the task.
        """
        self.home.check()
        # Temporal may have interrupted a thread between accepting a chunk and waking the task.
        self.wake.set()
        while self._outbox.has_work:
            self.raise_error()
            await self.wait_progress()
        self.raise_error()

    async def wait_progress(self) -> None:
        """Wait until the next batch is durable, or the task has stopped.

        Raises:
            ClosedError: The task was stopped by :meth:`aclose`.
        """
        if self._is_closing and self._task.done():
            raise ClosedError("this writer is closed", stream=str(self._stream))
        self._progressed.clear()
        await self._progressed.wait()

    async def wait_stopped(self) -> None:
        """Wait until the task has ended. Cancellation has no effect on it."""
        self.home.check()
        await asyncio.wait([self._task])

    def on_stopped(self, callback: Callable[[SealBody | None, StreamqError | None], None]) -> None:
        """Call back once the task has ended, with the durable seal and the error that stopped it.

        Both are ``None`` after a cancellation by :meth:`aclose`.
        """

        def stopped(_: asyncio.Task[None]) -> None:
            callback(self._outbox.seal if self._outbox.is_sealed else None, self.error)

        self._task.add_done_callback(stopped)

    def hurry(self) -> None:
        """Delay nothing any more: an ending was requested, and waits for what was accepted."""
        self._hurries.set()

    def abandon(self) -> None:
        """End the task without sending what is left."""
        self._task.cancel()

    async def aclose(self, seconds: float) -> None:
        """Send what is in the outbox, for at most this long, then end the task.

        Cancellation: what was not sent is abandoned; the task ends in any case.
        """
        self.home.check()
        self._is_closing = True
        self.hurry()
        try:
            with contextlib.suppress(StreamqError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.drain()
        finally:
            self._task.cancel()
            try:
                await asyncio.gather(self._task, return_exceptions=True)
                if self._call is not None and (call := self._call.leave()) is not None:
                    await asyncio.wait({call})
            finally:
                self._progressed.set()

    async def _run(self) -> None:
        try:
            if self._shared is None:
                await self._send_alone()
            else:
                await self._send_after_failures()
        except StreamqError as exc:
            exc.stream = exc.stream or str(self._stream)
            self.error = exc
        except Exception as exc:  # noqa: BLE001 - a defect of the driver: raised to every caller
            self.error = StreamqError(
                f"backend {self._queue.backend!r} failed unexpectedly: {type(exc).__name__}: "
                f"{error_text(exc)}",
                backend=self._queue.backend,
                stream=str(self._stream),
            )
            self.error.__cause__ = exc

    # -- together with other writers -----------------------------------------------------------

    def take(self) -> StreamAppend | None:
        """Return what is to be stored now, for the shared sending."""
        batch = None if self._task.done() else self._pack()
        self._is_enlisted = batch is not None
        self._batch = batch
        if batch is None:
            return None
        return StreamAppend(self._stream, batch.entries(), self._ttl_of(batch))

    def begun(self, call: SharedCall) -> None:
        """Note the call that carries what was taken."""
        self._call = call

    def ended(self, error: StreamqError | None) -> None:
        """Go on after an append; after one that has failed, the task repeats it."""
        self._call = None
        if error is not None:
            self._setback = error
            self._attention.set()
        elif self._batch is not None:
            self._acknowledge(self._batch)
            self._go_on()

    def _enlist(self) -> None:
        if not self._is_enlisted and self._shared is not None:
            self._is_enlisted = True
            self._shared.enlist(self._queue, self)

    def _go_on(self) -> None:
        self._is_enlisted = False
        if self._outbox.is_sealed:
            self._attention.set()
        elif self._outbox.has_work:
            self._enlist()

    async def _send_after_failures(self) -> None:
        while not self._outbox.is_sealed:
            await self._attention.wait()
            self._attention.clear()
            error, self._setback = self._setback, None
            if error is not None and self._batch is not None:
                await self._store(self._batch.entries(), self._ttl_of(self._batch), error)
                self._acknowledge(self._batch)
                self._go_on()

    async def _store(
        self, entries: Sequence[Entry], ttl: timedelta | None, error: StreamqError | None = None
    ) -> None:
        """Append until that succeeds; an error is that of the first attempt, made elsewhere."""

        async def append() -> None:
            nonlocal error
            if error is not None:
                first, error = error, None
                raise first
            await calling.append(self._queue, self._stream, entries, ttl=ttl)

        await self._retry.run(append)

    # -- alone ---------------------------------------------------------------------------------

    async def _send_alone(self) -> None:
        while not self._outbox.is_sealed:
            await self._wait_for_work()
            self.wake.clear()
            while (batch := self._pack()) is not None:
                await self._send(batch)
                if self._fence is not None:
                    await self._fence.check_if_due()

    async def _wait_for_work(self) -> None:
        if self._fence is None:
            await self.wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._fence.seconds):
                await self.wake.wait()
        await self._fence.check_if_due()

    def _on_stopped(self, task: asyncio.Task[None]) -> None:
        if self._quota is not None:
            self._quota.release()
        if task.cancelled() and not self._is_closing:
            # Cancelled from outside: callers must not wait for ever.
            self.error = ClosedError(
                "the task that sends the chunks was cancelled", stream=str(self._stream)
            )
        self._progressed.set()

    def _pack(self) -> Batch | None:
        with self.lock:
            return self._outbox.pack()

    async def _send(self, batch: Batch) -> None:
        entries = await self._entries(batch)
        if self._quota is not None:
            await self._wait_for_quota(self._quota, sum(len(entry.data) for entry in entries))
        await self._store(entries, self._ttl_of(batch))
        if batch.seals and self._fence is not None:
            # A stored seal counts only if no newer attempt was opened before it.
            await self._fence.check()
        self._acknowledge(batch)

    def _ttl_of(self, batch: Batch) -> timedelta | None:
        return self._sealed_ttl if batch.seals else self._ttl

    def _acknowledge(self, batch: Batch) -> None:
        with self.lock:
            self._outbox.acknowledge()
        self.records += len(batch.entries())
        self._progressed.set()

    async def _wait_for_quota(self, quota: WriterQuota, size: int) -> None:
        """Wait until the tenant may store these bytes; from the ending on, only count them."""
        delay = quota.book(size)
        if delay <= 0 or self._hurries.is_set():
            return
        try:
            async with asyncio.timeout(delay):
                await self._hurries.wait()
        except TimeoutError:
            pass
        except BaseException:
            quota.refund(size)
            raise

    async def _entries(self, batch: Batch) -> tuple[Entry, ...]:
        codec = self._codec
        if codec is None:
            return batch.entries()
        seconds = self._retry.call_seconds
        records = [await conceal(record, codec, seconds=seconds) for record in batch.records]
        batch.records = tuple(records)
        entries = batch.entries()
        limit = self._queue.capabilities.max_record_bytes
        for entry in entries:
            if len(entry.data) > limit:
                raise ChunkTooLargeError(
                    f"the payload codec made {len(entry.data)} bytes of a record, more than the "
                    f"{limit} that backend {self._queue.backend!r} stores; a codec may at most "
                    "double what it is given",
                    backend=self._queue.backend,
                    stream=str(self._stream),
                )
        return entries
