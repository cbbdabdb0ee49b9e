"""Keeps track of the calls of a queue, and ends them when it is closed.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from streamq._errors import StreamqError
from streamq._events import StreamId

from ._guard import closed_error


class Calls:
    """The calls of a queue that are under way, so that closing ends them at once.

    For drivers whose client does not end its own calls when it is closed. For one event loop.

    Args:
        backend: The driver's name, for messages.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._running: set[_RunningCall] = set()
        self._is_closed = False

    def one(self, stream: StreamId | None = None) -> _RunningCall:
        """Return a context manager for one call; errors that name no stream get this one.

        Closing cancels the task that is inside; the context turns that into ``ClosedError``. Any
        other cancellation is passed on.

        Raises:
            ClosedError: On entering, the queue is closed; on leaving, it was closed meanwhile.
        """
        return _RunningCall(self, self._running, None if stream is None else str(stream))

    @property
    def is_closed(self) -> bool:
        """Whether new calls are refused."""
        return self._is_closed

    def close(self) -> None:
        """End the calls that are under way, and refuse new ones. Idempotent."""
        self._is_closed = True
        for call in tuple(self._running):
            call.end()


class _RunningCall:
    """One call: ended by cancelling its task, which then raises ``ClosedError`` instead."""

    __slots__ = ("_calls", "_is_ended", "_running", "_stream", "_task")

    def __init__(self, calls: Calls, running: set[_RunningCall], stream: str | None) -> None:
        self._calls = calls
        self._running = running
        self._stream = stream
        self._is_ended = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        if self._calls.is_closed:
            raise closed_error(self._calls.backend, self._stream)
        self._task = asyncio.current_task()
        self._running.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._running.discard(self)
        if isinstance(exc, StreamqError) and exc.stream is None:
            exc.stream = self._stream
        if self._is_ended and self._task is not None:
            is_ours_alone = self._task.uncancel() <= 0
            if exc is None or (isinstance(exc, asyncio.CancelledError) and is_ours_alone):
                raise closed_error(self._calls.backend, self._stream) from None

    def end(self) -> None:
        """Cancel the task because the queue is being closed."""
        if self._task is not None and not self._is_ended:
            self._is_ended = True
            self._task.cancel()
