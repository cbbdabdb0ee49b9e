"""Asks Temporal how an execution ended while its activity still ran.

Temporal then states only that it does not know the attempt any more. An execution is the workflow
that scheduled the activity, or the activity itself if a client started it.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import activity

from streamq._errors import StreamqError
from streamq._events import SealState
from streamq.temporal._activity_runs import activity_ending, is_standalone
from streamq.temporal._workflow_runs import has_chain_ended
from streamq.temporal.activities._context import ActivityContext
from streamq.temporal.activities._owner import stream_owner_of

_FAILED = {"TIMED_OUT": "TimeoutError", "FAILED": "ActivityError"}
"""Type of the error that readers get, for the states that are failures."""


@dataclass(frozen=True, slots=True)
class ExecutionEnding:
    """How the streams of an attempt end that Temporal no longer waits for.

    Attributes:
        state: CANCELLED or ERROR.
        message: Message for readers.
        error_type: With ERROR, type of the failure for readers.
    """

    state: SealState
    message: str
    error_type: str = ""


async def ending_of_execution(
    context: ActivityContext, info: activity.Info
) -> ExecutionEnding | None:
    """Return how the execution ended that an attempt works for.

    Returns:
        ``None`` if it has not ended, so that another attempt follows or writes already, or if
        Temporal does not answer.
    """
    client = context.client
    if is_standalone(info):
        status = await activity_ending(client, info.activity_id, str(info.activity_run_id))
        if status is None:
            return None
        message, error_type = f"the activity has ended ({status})", _FAILED.get(status)
        if error_type is None:
            return ExecutionEnding(SealState.CANCELLED, message)
        return ExecutionEnding(SealState.ERROR, message, error_type)
    try:
        owner = await stream_owner_of(info, context.origin, client, context.settings)
    except StreamqError:
        return None
    if not await has_chain_ended(client, *owner):
        return None
    return ExecutionEnding(SealState.CANCELLED, "the workflow has ended")
