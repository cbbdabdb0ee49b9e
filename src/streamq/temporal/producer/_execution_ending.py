"""Asks Temporal how an execution ended while its activity still ran.

Temporal then states only that it does not know the attempt any more. An execution is the workflow
that scheduled the activity, or the activity itself if a client started it.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from temporalio import activity

from streamq._errors import StreamqError
from streamq._events import SealState
from streamq.temporal._activity_runs import activity_ending, is_standalone
from streamq.temporal._workflow_runs import has_chain_ended, was_chain_cancelled
from streamq.temporal.activities._context import ActivityContext
from streamq.temporal.activities._owner import stream_owner_of

from ._ending import Ending

_FAILED = {"TIMED_OUT": "TimeoutError", "FAILED": "ActivityError"}
"""Type of the error that readers get, for the states that are failures."""


async def ending_of_execution(context: ActivityContext, info: activity.Info) -> Ending | None:
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
            return Ending(SealState.CANCELLED, message=message)
        return Ending(SealState.ERROR, error_type, message)
    try:
        owner = await stream_owner_of(info, context.origin, client, context.settings)
    except StreamqError:
        return None
    if not await has_chain_ended(client, *owner):
        return None
    how = "was cancelled" if await was_chain_cancelled(client, *owner) else "has ended"
    return Ending(SealState.CANCELLED, message=f"the workflow {how}")
