"""Guards the calls of a queue: refuses, limits, translates and ends them.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TypeAlias

from streamq._errors import BackendError, BackendUnavailableError, StreamqError
from streamq._events import StreamId

from ._client_errors import ErrorTable, for_stream
from ._usual_errors import closed_error

Translate: TypeAlias = Callable[[Exception, str | None], StreamqError | None]
"""Returns streamq's error for an exception and a stream's name; ``None`` for one of no client."""


class Guard:
    """Does for each call of a queue what every driver has to do; one object for each queue.

    ::

        async with self._guard(stream):
            await self._client.append(...)

    * A call of a closed queue raises ``ClosedError``, and :meth:`close` ends those under way: their
      tasks are cancelled, and raise ``ClosedError`` instead. So does a call that the client ends
      with an error because its connections are closed.
    * A call that takes too long is cancelled, and raises ``BackendUnavailableError`` with the name
      of the function that the context is in.
    * Exceptions of the client become errors of streamq, as in :class:`translated_errors`. That is
      also true of a ``TimeoutError`` of the client: it is no deadline of the guard.
    * An error of streamq without a stream or backend gets those of the call, in a copy: several
      calls may share the error.

    Cancellation from outside is passed on as it is, also if the deadline passes or the queue is
    closed at the same time. A call that succeeds although its deadline has passed returns its
    result. For one event loop, and within one task: never ``yield`` inside.

    Args:
        backend: The driver's name.
        errors: Finds the error for an exception; without it none is translated.
        seconds: Longest time for a call, unless the call gives another; ``math.inf`` for a client
            that limits its calls itself.
        address: Where the backend is, without credentials, for messages. The templates of a table
            get it as ``{at}``.
    """

    __slots__ = (
        "__weakref__",
        "_is_closed",
        "_running",
        "_seconds",
        "_timer",
        "_translate",
        "address",
        "backend",
    )

    def __init__(
        self,
        backend: str,
        errors: ErrorTable | Translate | None = None,
        *,
        seconds: float,
        address: str = "",
    ) -> None:
        self.backend = backend
        self.address = address
        self._translate: Translate = (
            partial(errors.translate, at=address)
            if isinstance(errors, ErrorTable)
            else errors or _no_error
        )
        self._seconds = seconds
        self._running: set[_GuardedCall] = set()
        # One for all calls, and usually for many one after the other: it is set for the earliest
        # deadline, and one that its call has met stays until then. To set and cancel one for each
        # call takes several times as long as everything else here.
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __call__(
        self, stream: StreamId | str | None = None, *, seconds: float | None = None
    ) -> _GuardedCall:
        """Return an async context manager for one call.

        Args:
            stream: Stream that the call is about, if it is about one.
            seconds: Longest time for this call, such as ``max_wait`` and the usual time.

        Raises:
            ClosedError: On entering, the queue is closed; on leaving, it was closed meanwhile.
            BackendUnavailableError: On leaving, the time had passed.
            StreamqError: On leaving, for an exception of the client.
        """
        return _GuardedCall(self, stream, self._seconds if seconds is None else seconds)

    @property
    def is_closed(self) -> bool:
        """Whether new calls are refused."""
        return self._is_closed

    def check(self, stream: StreamId | str | None = None) -> None:
        """Check that the queue is open, for calls that wait for nothing.

        Raises:
            ClosedError: It is closed.
        """
        if self._is_closed:
            raise closed_error(self.backend, stream)

    def close(self) -> None:
        """Refuse new calls, and end those under way. Idempotent.

        Call it first in ``aclose``, before anything is awaited.
        """
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for call in tuple(self._running):
            call.end()

    def _look_at(self, moment: float, loop: asyncio.AbstractEventLoop) -> None:
        """Look for calls that are late at a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(moment, _look, weakref.ref(self), loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the calls that are late, and set the timer for the next one."""
        self._timer, now = None, loop.time()
        for call in tuple(self._running):
            if call.until <= now:
                call.end()
        pending = [call.until for call in self._running if not call.is_ended]
        if (moment := min(pending, default=math.inf)) < math.inf:
            self._look_at(moment, loop)

    def _late(self, call: str, seconds: float, stream: str | None) -> BackendUnavailableError:
        at = f" at {self.address}" if self.address else ""
        return BackendUnavailableError(
            f"{self.backend}{at} did not answer {call} within {seconds:g} s; is it overloaded, or "
            "cut off from here?",
            backend=self.backend,
            stream=stream,
        )


class _GuardedCall:
    """One call: ended by cancelling its task, which then raises an error of streamq instead."""

    __slots__ = ("_cancelling", "_guard", "_seconds", "_stream", "_task", "is_ended", "until")

    def __init__(self, guard: Guard, stream: StreamId | str | None, seconds: float) -> None:
        self._guard = guard
        self._stream = stream
        self._seconds = seconds
        self.until = math.inf
        self.is_ended = False

    async def __aenter__(self) -> None:
        guard = self._guard
        if guard._is_closed:
            raise closed_error(guard.backend, self._stream)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a guarded call needs a task: await it in a coroutine")
        self._task = task
        self._cancelling = task.cancelling()
        guard._running.add(self)
        if self._seconds < math.inf:
            loop = task.get_loop()
            self.until = until = loop.time() + self._seconds
            timer = guard._timer
            if timer is None or until < timer.when():
                guard._look_at(until, loop)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._guard._running.discard(self)
        if exc is not None or self.is_ended:
            self._leave(exc, tb)

    def end(self) -> None:
        """Cancel the task: the time has passed, or the queue is being closed."""
        # A call that closes its own queue must be able to finish that.
        if not self.is_ended and self._task is not asyncio.current_task():
            self.is_ended = True
            self._task.cancel()

    def _leave(self, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Raise what the call ends with, if it is something else than it raised itself."""
        guard, task = self._guard, self._task
        stream = None if self._stream is None else str(self._stream)
        if self.is_ended:
            task.uncancel()
        if isinstance(exc, asyncio.CancelledError):
            if task.cancelling() > self._cancelling:
                return  # from outside, perhaps at the same time
            if guard._is_closed:
                raise closed_error(guard.backend, stream) from None
            if self.is_ended:
                call = "a call" if tb is None else tb.tb_frame.f_code.co_name.strip("_")
                raise guard._late(call, self._seconds, stream) from None
        elif exc is None:
            if guard._is_closed:
                raise closed_error(guard.backend, stream)
        elif isinstance(exc, Exception):
            error = exc if isinstance(exc, StreamqError) else guard._translate(exc, stream)
            if error is None:
                return  # a bug stays visible as what it is
            if guard._is_closed and isinstance(error, BackendError | BackendUnavailableError):
                raise closed_error(guard.backend, stream) from exc
            if error.backend is None or (error.stream is None and stream is not None):
                error = for_stream(error, stream, backend=guard.backend)
            if error is not exc:
                is_ours = isinstance(exc, StreamqError)
                raise error.with_traceback(tb if is_ours else None) from (
                    exc.__cause__ if is_ours else exc
                )


def _look(guard: weakref.ref[Guard], loop: asyncio.AbstractEventLoop) -> None:
    # A weak reference: the timer may outlast a queue that was dropped.
    if (found := guard()) is not None:
        found._look(loop)


def _no_error(exc: Exception, stream: str | None) -> None:
    """Leave an exception as it is."""
