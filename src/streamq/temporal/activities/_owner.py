"""Finds the workflow, and the first run of its chain, that the running activity streams for.

Runs ``streamq.first_run`` too, by which a workflow finds what it cannot know of itself.
Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from temporalio import activity
from temporalio.client import Client

from streamq._errors import ConfigurationError, StreamqError
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq.temporal._failure import application_error, final_failure
from streamq.temporal._origin import Origin
from streamq.temporal._workflow_runs import find_first_run_id

from ._context import activity_context

FIRST_RUN_ACTIVITY = "streamq.first_run"


async def stream_owner_of(
    info: activity.Info, origin: Origin | None, client: Client, settings: Settings
) -> tuple[str, str]:
    """Return the workflow id and first run id in the names of an activity's streams.

    Temporal is asked if the worker that scheduled the activity has no plugin, or if the workflow
    does not know the first run itself: it is a retry of a cron schedule's firing.

    Raises:
        ApplicationError: No workflow scheduled the activity; not retryable.
        StreamqError: Temporal could not be queried for the first run id.
    """
    if info.workflow_id is None or info.workflow_run_id is None:
        raise final_failure(
            ConfigurationError,
            f"activity {info.activity_id!r} has neither a workflow nor a run id of its own, after "
            "which its stream could be named; Temporal server 1.32 gives a run id to activities "
            "that a client starts",
        )
    if origin is not None and origin.first_execution_run_id is not None:
        return origin.workflow_id or info.workflow_id, origin.first_execution_run_id
    retry = RetryPolicy(deadline_seconds=settings.retry_seconds, backend="temporal")
    first = await find_first_run_id(client, info.workflow_id, info.workflow_run_id, retry)
    return info.workflow_id, first


@activity.defn(name=FIRST_RUN_ACTIVITY)
async def first_run() -> str:
    """Return the first run of the chain of the workflow that scheduled this activity.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    context = activity_context()
    try:
        _, first = await stream_owner_of(activity.info(), None, context.client, context.settings)
    except StreamqError as exc:
        raise application_error(exc) from exc
    return first
