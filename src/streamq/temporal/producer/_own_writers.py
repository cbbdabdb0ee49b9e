"""Ends the streams of writers that an activity opened itself and left by an exception.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import temporalio.exceptions
from temporalio import activity
from temporalio.activity import _CompleteAsyncError

from streamq._errors import SealedError, StreamqError, error_text, is_cancellation
from streamq._events import SealState
from streamq.driver_parts._cleanup import to_the_end
from streamq.temporal._failure import shown_to_readers
from streamq.temporal.activities._context import ActivityContext
from streamq.writing._owner import Decision, current_owner
from streamq.writing._writer import StreamWriter

from ._ending import Ending
from ._leaving import Leavings, is_destroyed

_SEAL_SECONDS = 10.0

logger = logging.getLogger("streamq.temporal")

R = TypeVar("R")


class OwnWriters:
    """Owns the writers that an activity opens with :func:`streamq.open_writer`.

    Whether the exception that leaves a writer's block also leaves the activity, and whether an
    attempt follows, is known when the activity ends. Its streams wait until then.

    Args:
        context: Context of the running activity.
        info: The attempt.
        converts: Whether streamq's errors become failures of their type.
    """

    def __init__(self, context: ActivityContext, info: activity.Info, *, converts: bool) -> None:
        self._leavings = Leavings(context, info, converts=converts)
        self._loop = asyncio.get_running_loop()
        self._left: list[tuple[StreamWriter, BaseException]] = []
        self._ends_here = False
        self._is_over = False

    def left(self, writer: StreamWriter, error: BaseException) -> Decision:
        """Take over a writer, or decide at once about it.

        That is necessary if its event loop is another one, which ends now, or if a task that the
        activity has left behind ends after it.
        """
        self._ends_here = self._ends_here or isinstance(error, _CompleteAsyncError)
        if self._is_over:
            ending = _of_block(error)
        elif asyncio.get_running_loop() is self._loop:
            self._left.append((writer, error))
            return Decision(False)
        else:
            ending = self._leavings.at_once(error)
        return Decision(True, ending.state, ending.error_type, ending.message)

    async def run(self, work: Callable[[], Awaitable[R]]) -> R:
        """Run the activity; seal and close afterwards what its exceptions have left."""
        task = asyncio.current_task()
        token = current_owner.set(self)
        try:
            result = await work()
        except BaseException as exc:
            if is_destroyed(exc, task) or not (self._left or self._ends_here):
                raise
            failure = await to_the_end(self._leave(exc))
            if failure is exc:
                raise
            raise failure from failure.__cause__
        finally:
            self._is_over = True
            current_owner.reset(token)
        # The activity has handled these exceptions, so that no attempt follows.
        await to_the_end(self._end({each: _of_block(error) for each, error in self._left}))
        return result

    async def _leave(self, error: BaseException) -> BaseException:
        self._is_over = True
        leaving = await self._leavings.of(error)
        await self._end({writer: leaving.ending for writer, _ in self._left})
        return leaving.failure

    async def _end(self, endings: dict[StreamWriter, Ending]) -> None:
        await asyncio.gather(*(_end_one(writer, ending) for writer, ending in endings.items()))


def _of_block(error: BaseException) -> Ending:
    if is_cancellation(error, temporalio.exceptions.CancelledError):
        return Ending(SealState.CANCELLED)
    return Ending(SealState.ERROR, *shown_to_readers(error))


async def _end_one(writer: StreamWriter, ending: Ending) -> None:
    try:
        async with asyncio.timeout(_SEAL_SECONDS):
            if ending.state is not None:
                await ending.seal(writer)
    except SealedError:
        pass  # another seal of this writer was in transit
    except (StreamqError, TimeoutError) as exc:
        logger.warning("stream %s could not be sealed: %s", writer.stream, error_text(exc))
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEAL_SECONDS):
                await writer.aclose()
