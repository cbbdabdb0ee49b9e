"""Ends the streams of writers that an activity opened itself and left by an exception.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import temporalio.exceptions
from temporalio import activity
from temporalio.activity import _CompleteAsyncError

from streamq._errors import FencedError, SealedError, StreamqError, error_text, is_cancellation
from streamq._events import SealState, StreamId
from streamq.driver_parts._cleanup import to_the_end
from streamq.temporal._failure import shown_to_readers
from streamq.temporal.activities._context import ActivityContext
from streamq.writing._owner import Decision, current_owner
from streamq.writing._writer import StreamWriter

from ._ending import Ending
from ._leaving import Leavings, is_destroyed

_SEAL_SECONDS = 10.0
_MOST_LEFT = 32
"""Most writers that wait for the end of the activity, since each has a task and perhaps a queue."""

logger = logging.getLogger("streamq.temporal")

R = TypeVar("R")


class _Trace:
    """Lives as long as the exception that it is attached to.

    Most classes of exceptions do not support weak references themselves.
    """


@dataclass(slots=True)
class _Left:
    """How the stream of a writer ends whose block was left by an exception.

    Attributes:
        handled: If the activity handles the exception.
        at_once: If the end of the activity cannot be waited for.
        is_handled: Whether the activity has handled it.
        trace: Dead once the exception no longer exists.
    """

    handled: Ending
    at_once: Ending
    is_handled: bool = False
    trace: weakref.ref[_Trace] | None = None


class OwnWriters:
    """Owns the writers that an activity opens with :func:`streamq.open_writer`.

    Whether the exception that leaves a writer's block also leaves the activity, and whether an
    attempt follows, is known when the activity ends. Its stream waits until then, or until the
    exception no longer exists: it then cannot leave the activity.

    Args:
        context: Context of the running activity.
        info: The attempt.
        converts: Whether streamq's errors become failures of their type.
    """

    def __init__(self, context: ActivityContext, info: activity.Info, *, converts: bool) -> None:
        self._leavings = Leavings(context, info, converts=converts)
        self._loop = asyncio.get_running_loop()
        self._left: dict[StreamWriter, _Left] = {}
        self._sealing: dict[asyncio.Task[None], StreamId] = {}
        self._ends_here = False
        self._is_over = False

    def left(self, writer: StreamWriter, error: BaseException) -> Decision:
        """Take over a writer, or decide at once about it.

        That is necessary if its event loop is another one, which ends now, or if a task that the
        activity has left behind ends after it. A writer that an error has stopped cannot seal.
        """
        self._ends_here = self._ends_here or isinstance(error, _CompleteAsyncError)
        if writer._sender.error is not None:
            return Decision(True)
        if self._is_over:
            return _decision(_of_block(error))
        ending = self._leavings.at_once(error)
        if asyncio.get_running_loop() is not self._loop:
            return _decision(ending)
        self._left[writer] = left = _Left(_of_block(error), ending)
        self._trace(error, writer, left)
        waiting = [each for each, left in self._left.items() if not left.is_handled]
        if len(waiting) > _MOST_LEFT:
            self._seal(waiting[0], self._left[waiting[0]].at_once)
        return Decision(False)

    async def opens(self, stream: StreamId) -> None:
        """Wait for the seal of an exception that was handled, so that it precedes an opening."""
        if asyncio.get_running_loop() is not self._loop:
            return
        if any(writer.stream == stream for writer in self._left):
            await asyncio.sleep(0)  # the exception may have been handled a moment ago
        if sealing := [task for task, each in self._sealing.items() if each == stream]:
            await asyncio.wait(sealing)

    async def run(self, work: Callable[[], Awaitable[R]]) -> R:
        """Run the activity; seal and close afterwards what its exceptions have left."""
        task = asyncio.current_task()
        token = current_owner.set(self)
        try:
            result = await work()
        except BaseException as exc:
            if is_destroyed(exc, task) or not (self._left or self._sealing or self._ends_here):
                raise
            failure = await to_the_end(self._leave(exc))
            if failure is exc:
                raise
            raise failure from failure.__cause__
        finally:
            self._is_over = True
            current_owner.reset(token)
        await to_the_end(self._return())
        return result

    def _trace(self, error: BaseException, writer: StreamWriter, left: _Left) -> None:
        task = asyncio.current_task()

        def died(_: weakref.ref[_Trace]) -> None:  # in any thread, as garbage is collected
            # The exception of a task that has ended may have ended the activity's work, too.
            if task is None or task.done():
                return
            left.is_handled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._handled, writer)

        trace = error.__dict__.setdefault("_streamq_trace", _Trace())
        left.trace = weakref.ref(trace, died)

    def _handled(self, writer: StreamWriter) -> None:
        if writer in self._left:
            self._seal(writer, self._left[writer].handled)

    def _seal(self, writer: StreamWriter, ending: Ending) -> None:
        del self._left[writer]
        task = self._loop.create_task(_end_one(writer, ending))
        self._sealing[task] = writer.stream
        task.add_done_callback(self._sealing.pop)

    async def _leave(self, error: BaseException) -> BaseException:
        self._is_over = True
        if isinstance(error, _CompleteAsyncError) and not self._ends_here:
            await self._return()  # the process that completes the activity does not write these
            return error
        failure = error
        if self._left or self._ends_here:
            leaving = await self._leavings.of(error)
            failure = leaving.failure
            for writer in list(self._left):
                self._seal(writer, leaving.ending)
        await self._sealed()
        return failure

    async def _return(self) -> None:
        # The activity has handled these exceptions, so that no attempt follows.
        for writer in list(self._left):
            self._handled(writer)
        await self._sealed()

    async def _sealed(self) -> None:
        if self._sealing:
            await asyncio.wait(set(self._sealing))


def _decision(ending: Ending) -> Decision:
    return Decision(True, ending.state, ending.error_type, ending.message)


def _of_block(error: BaseException) -> Ending:
    if is_cancellation(error, temporalio.exceptions.CancelledError):
        return Ending(SealState.CANCELLED)
    return Ending(SealState.ERROR, *shown_to_readers(error))


async def _end_one(writer: StreamWriter, ending: Ending) -> None:
    try:
        async with asyncio.timeout(_SEAL_SECONDS):
            if ending.state is not None:
                await ending.seal(writer)
    except (SealedError, FencedError):
        pass  # another seal of this writer was in transit, or the stream was opened again
    except (StreamqError, TimeoutError) as exc:
        logger.warning("stream %s could not be sealed: %s", writer.stream, error_text(exc))
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEAL_SECONDS):
                await writer.aclose()
