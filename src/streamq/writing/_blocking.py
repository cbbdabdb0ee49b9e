"""Offers the writer to code in threads: the same methods, without ``await``.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from streamq._errors import ClosedError, ForeignLoopError
from streamq._events import StreamId
from streamq._statistics import WriterStatistics
from streamq.driver import Home
from streamq.records._values import TContra

from ._wakeup import loop_closed
from ._writer import StreamWriter

_LOOP_CHECK_SECONDS = 1.0  # between two checks whether the event loop still runs

R = TypeVar("R")


class BlockingStreamWriter(Generic[TContra]):
    """A :class:`~streamq.StreamWriter` for threads: its methods block instead of being awaited.

    ``send_chunk`` takes a lock for a moment and returns, unless the buffer is full; the event loop
    does the network calls. Thread-safe: each thread's chunks keep their order.

    Args:
        writer: A writer of the running event loop, which must run as long as threads write. The
            writer's owner seals and closes it.
    """

    def __init__(self, writer: StreamWriter[TContra]) -> None:
        self._writer = writer
        self._home = Home("writer", stream=writer.stream)
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._interruption: BaseException | None = None
        self._waits: set[concurrent.futures.Future[Any]] = set()

    @property
    def stream(self) -> StreamId:
        """Which stream."""
        return self._writer.stream

    @property
    def attempt(self) -> int:
        """Dense number of this attempt, 1 for the first."""
        return self._writer.attempt

    @property
    def epoch(self) -> int:
        """The attempt's place among all runs of the producer; larger is newer."""
        return self._writer.epoch

    @property
    def resumed_from(self) -> int:
        """Chunks of earlier attempts that stay valid."""
        return self._writer.resumed_from

    @property
    def discards(self) -> bool:
        """Whether chunks are stored nowhere: the stream was sealed before this attempt began."""
        return self._writer.discards

    @property
    def has_codec(self) -> bool:
        """Whether a codec encrypts or compresses what is stored."""
        return self._writer.has_codec

    @property
    def position(self) -> int:
        """Seq of the next chunk to send: the number of valid chunks accepted into the stream."""
        return self._writer.position

    @property
    def durable_position(self) -> int:
        """The number of valid chunks that the backend holds."""
        return self._writer.durable_position

    @property
    def is_sealed(self) -> bool:
        """Whether the ending is durably stored."""
        return self._writer.is_sealed

    def statistics(self) -> WriterStatistics:
        """Return counters; cheap, at any time."""
        return self._writer.statistics()

    def send_chunk(self, value: TContra) -> None:
        """Accept one chunk for sending, as :meth:`StreamWriter.send_chunk` does.

        Raises:
            StreamqError: As for :meth:`StreamWriter.send_chunk`.
            BaseException: The error that :meth:`interrupt` was called with.
        """
        if self._interruption is not None:
            raise self._interruption.with_traceback(None)
        later = self._writer._offer(value)
        if later is not None:
            self._wait(later)
        else:
            self._writer._wake.set_from_thread()

    def send_nowait(self, value: TContra) -> None:
        """Accept one chunk, or raise if there is no room, as :meth:`StreamWriter.send_nowait` does.

        Raises:
            StreamqError: As for :meth:`StreamWriter.send_nowait`.
            BaseException: The error that :meth:`interrupt` was called with.
        """
        if self._interruption is not None:
            raise self._interruption.with_traceback(None)
        self._writer.send_nowait(value)

    def flush(self) -> None:
        """Wait until every accepted chunk is durable."""
        self._wait(self._writer.flush())

    def finish(self) -> None:
        """Seal the stream END, after every accepted chunk; returns once that is durable."""
        self._wait(self._writer.finish())

    def fail(
        self, error: BaseException | str, *, error_type: str = "", retryable: bool = False
    ) -> None:
        """Seal the stream ERROR, after every accepted chunk."""
        self._wait(self._writer.fail(error, error_type=error_type, retryable=retryable))

    def cancel(self, reason: str = "") -> None:
        """Seal the stream CANCELLED, after every accepted chunk."""
        self._wait(self._writer.cancel(reason))

    def interrupt(self, error: BaseException) -> None:
        """Raise this error in every current and later call; call it in the event loop's thread."""
        self._interruption = error
        for future in tuple(self._waits):
            future.cancel()

    def _wait(self, call: Coroutine[Any, Any, R]) -> R:
        try:
            self._home.check_from_thread()
        except ForeignLoopError:
            call.close()
            raise
        if threading.get_ident() == self._loop_thread:
            call.close()
            raise ClosedError(
                "BlockingStreamWriter would block the event loop that it needs; use it in another "
                "thread, or StreamWriter here",
                stream=str(self.stream),
            )
        try:
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError:
            call.close()
            raise loop_closed(str(self.stream)) from None
        self._waits.add(future)
        try:
            if self._interruption is not None:
                future.cancel()
            return self._result(future)
        except concurrent.futures.CancelledError:
            if self._interruption is not None:
                raise self._interruption.with_traceback(None) from None
            raise loop_closed(str(self.stream)) from None
        finally:
            self._waits.discard(future)
            if self._loop.is_closed() and inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
                call.close()  # it was never started

    def _result(self, future: concurrent.futures.Future[R]) -> R:
        while True:
            try:
                return future.result(_LOOP_CHECK_SECONDS)
            except TimeoutError:
                if future.done():
                    return future.result()
                if self._loop.is_closed():  # the future will never complete
                    future.cancel()
