"""Asks Temporal how an execution ended while its activity still ran.

Temporal then states only that it does not know the attempt any more. An execution is the workflow
that scheduled the activity, or the activity itself if a client started it.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from temporalio.client import Client

from streamq._events import SealState
from streamq._executions import execution_of
from streamq.temporal._activity_runs import activity_ending
from streamq.temporal._workflow_runs import has_chain_ended

from ._ending import Ending

_FAILED = {"TIMED_OUT": "TimeoutError", "FAILED": "ActivityError"}
"""Type of the error that readers get, for the states that are failures."""


async def ending_of_execution(client: Client, stream: str) -> Ending | None:
    """Return how the execution ended after which a stream is named.

    Returns:
        ``None`` if it has not ended, so that another attempt follows or writes already, or if
        Temporal does not answer.
    """
    execution = execution_of(stream)
    if execution is None:
        return None
    if execution.kind == "workflow":
        if await has_chain_ended(client, execution.id, execution.run_id):
            return Ending(SealState.CANCELLED, message="the workflow has ended")
        return None
    status = await activity_ending(client, execution.id, execution.run_id)
    if status is None:
        return None
    message = f"the activity has ended ({status})"
    error_type = _FAILED.get(status)
    if error_type is None:
        return Ending(SealState.CANCELLED, message=message)
    return Ending(SealState.ERROR, error_type, message)
