"""Decides, for every way of leaving an attempt, what Temporal gets and how the streams end.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import temporalio.exceptions
from temporalio import activity
from temporalio.activity import _CompleteAsyncError
from temporalio.exceptions import ApplicationError

from streamq._errors import (
    ConfigurationError,
    FencedError,
    SerializationError,
    StreamqError,
    is_cancellation,
)
from streamq._events import SealState
from streamq.temporal._activity_runs import is_standalone
from streamq.temporal._failure import (
    application_error,
    failure_type,
    final_failure,
    is_final,
    is_retryable,
    shown_to_readers,
)
from streamq.temporal.activities._context import ActivityContext

from ._ending import OPEN, Ending
from ._execution_ending import ending_of_execution
from ._opening import FENCED_HINT
from ._recording import Recording

_WORKER_SHUTDOWN = ApplicationError(
    "Worker is shutting down and this activity did not complete in time", type="WorkerShutdown"
)
_ACTIVITY_PAUSE = ApplicationError(
    "Unhandled activity cancel error produced by activity pause", type="ActivityPause"
)
_ACTIVITY_RESET = ApplicationError(
    "Unhandled activity cancel error produced by activity reset", type="ActivityReset"
)
"""The failures that the SDK reports for an activity that such an event has cancelled."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """How an attempt was left.

    Attributes:
        failure: The exception for Temporal; its cause is set.
        ending: How the streams end, in agreement with what Temporal will record.
    """

    failure: BaseException
    ending: Ending


class Leavings:
    """Decides for one attempt what an exception that leaves it means.

    Args:
        context: Context of the running activity.
        info: The attempt.
        converts: Whether streamq's errors become failures of their type that say whether they can
            be retried, as for streaming activities.
    """

    def __init__(self, context: ActivityContext, info: activity.Info, *, converts: bool) -> None:
        self.recording = Recording(context.client, info)
        self._context = context
        self._info = info
        self._converts = converts
        self._started = time.monotonic()

    async def of(self, error: BaseException) -> Leaving:
        """Return what an exception of any class means that has left the user's function."""
        if self._is_cancelled(error):
            return await self._cancelled(error)
        return await self._failed(error)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether it is Temporal's cancellation; that of the user's own tasks is a failure."""
        is_one = is_cancellation(error, temporalio.exceptions.CancelledError)
        return is_one and activity.is_cancelled()

    def at_once(self, error: BaseException) -> Ending:
        """Return how a stream ends that was left by an exception, without waiting for anything."""
        if isinstance(error, _CompleteAsyncError):
            error = _refused(self._info)
        elif self._is_cancelled(error):
            details = activity.cancellation_details()
            is_requested = details is not None and details.cancel_requested
            return Ending(SealState.CANCELLED, message="cancelled") if is_requested else OPEN
        if isinstance(error, FencedError):
            return OPEN
        return self._after(self._converted(error))

    async def of_cancellation(self) -> Ending:
        """Return how the streams of an activity end that Temporal has cancelled."""
        details = activity.cancellation_details()
        if details is None:
            return OPEN
        if details.cancel_requested:
            return Ending(SealState.CANCELLED, message="cancelled")
        if details.not_found:
            # The server states this of a superseded attempt, and of a reset or retried run, too.
            return await ending_of_execution(self._context, self._info) or OPEN
        if self._info.is_local:
            return OPEN  # another worker runs the workflow task again, and the activity with it
        if details.reset and not details.paused:
            # The server then counts the attempts of a standalone activity from 1 again.
            return OPEN if is_standalone(self._info) else self._after(_ACTIVITY_RESET)
        if details.worker_shutdown and not details.paused:
            return self._after(_WORKER_SHUTDOWN)
        if details.paused and not details.reset and is_standalone(self._info):
            return self._after(_ACTIVITY_PAUSE)  # which counts as any other failure there
        # After a pause an attempt follows, whatever the policy. The server ends what timed out.
        return OPEN

    async def _cancelled(self, error: BaseException) -> Leaving:
        if activity.cancellation_details() is None:
            # The SDK cancels without details an activity whose heartbeat it cannot encode.
            return await self._failed(
                ApplicationError(
                    "the details of a heartbeat cannot be encoded; the worker's log has the reason",
                    type=failure_type(SerializationError),
                )
            )
        ending = await self.of_cancellation()
        if isinstance(error, BaseExceptionGroup):  # the SDK would take it for a failure
            error = temporalio.exceptions.CancelledError("Cancelled")
        return Leaving(error, ending)

    async def _failed(self, error: BaseException) -> Leaving:
        if isinstance(error, FencedError):  # a newer attempt, or another call, has the stream
            return Leaving(self._converted(error), OPEN)
        if isinstance(error, _CompleteAsyncError):
            error = _refused(self._info)
        failure, recorded = await self.recording.sendable(self._converted(error))
        return Leaving(failure, self._after(recorded))

    def _converted(self, error: BaseException) -> BaseException:
        if not isinstance(error, StreamqError) or not self._converts:
            return error
        failure = application_error(
            error, hint=FENCED_HINT if isinstance(error, FencedError) else ""
        )
        failure.__cause__ = error
        return failure

    def _after(self, recorded: BaseException) -> Ending:
        """Return ERROR if neither the activity nor its workflow is retried after a failure."""
        origin = self._context.origin
        if origin is not None and origin.workflow_retries:
            return OPEN
        elapsed = timedelta(seconds=time.monotonic() - self._started)
        if not is_final(recorded, self._info, elapsed):
            return OPEN
        kind, text = shown_to_readers(recorded)
        return Ending(SealState.ERROR, kind, text, is_retryable(recorded, self._info))


def is_destroyed(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether a coroutine is being destroyed by the interpreter, so that it must not await."""
    if not isinstance(error, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not task
    except RuntimeError:  # there is no event loop any more
        return True


def _refused(info: activity.Info) -> ApplicationError:
    return final_failure(
        ConfigurationError,
        f"activity {info.activity_type} called activity.raise_complete_async(), but its stream "
        "ends as the function ends: return when the work is done. An activity that another "
        "process completes opens no stream; that process writes it with streamq.open_writer",
    )
