"""Calls of a queue: ended when it is closed, made together, and never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar

from streamq.driver import ClosedError, StreamId, StreamqError

T = TypeVar("T")


class Calls:
    """The calls that are under way, so that closing ends them at once.

    Args:
        backend: The driver's name, for messages.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._running: set[_Call] = set()
        self._is_closed = False

    def one(self, stream: StreamId | None = None) -> _Call:
        """Return a context for one call.

        Raises:
            ClosedError: The queue is closed, also while the call is under way.
        """
        return _Call(self, self._running, None if stream is None else str(stream))

    @property
    def is_closed(self) -> bool:
        """Whether no call is taken any more."""
        return self._is_closed

    def close(self) -> None:
        """End what is under way, and take nothing more."""
        self._is_closed = True
        for call in tuple(self._running):
            call.end()


class _Call:
    """One call: ended by cancelling its task, which then raises what is due instead."""

    __slots__ = ("_calls", "_is_ended", "_running", "_stream", "_task")

    def __init__(self, calls: Calls, running: set[_Call], stream: str | None) -> None:
        self._calls = calls
        self._running = running
        self._stream = stream
        self._is_ended = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        if self._calls.is_closed:
            raise self._error()
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
                raise self._error() from None

    def end(self) -> None:
        """Cancel the task, on our own account."""
        if self._task is not None and not self._is_ended:
            self._is_ended = True
            self._task.cancel()

    def _error(self) -> ClosedError:
        backend = self._calls.backend
        return ClosedError(
            f"this {backend} queue has been closed", backend=backend, stream=self._stream
        )


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await calls together; an error or cancellation ends all of them before it is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
