"""Names the streams of standalone activities, and queries Temporal about such an activity.

A standalone activity is one that a client starts without a workflow. All attempts of one start are
one run, which has a run id of its own.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity
from temporalio.api.enums.v1 import ActivityExecutionStatus
from temporalio.api.workflowservice.v1 import DescribeActivityExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import ConfigurationError, StreamNotFoundError, StreamqError
from streamq._executions import Execution
from streamq._retry import RetryPolicy

from ._names import DEFAULT_TOPIC, check_topic
from ._rpc import RPC_TIMEOUT, connecting, rpc_error

_PREFIX = "ACTIVITY_EXECUTION_STATUS_"

_ENDED = {"COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"}


def activity_stream_name(activity_id: str, run_id: str, topic: str = DEFAULT_TOPIC) -> str:
    """Return the name of a standalone activity's stream: ``{id}/activity-{run id}/{topic}``.

    It stays the same for every attempt, and differs when the activity id is used again. No
    workflow has a stream of that name, whatever its id. ``ActivityHandle`` has both ids as ``id``
    and ``run_id``, also if a start with ``USE_EXISTING`` returned it; in the activity they are
    ``activity.info().activity_id`` and ``activity.info().activity_run_id``. For an activity that a
    workflow scheduled, :func:`stream_name` is the function.

    Args:
        activity_id: Id of the activity; it may contain ``/``.
        run_id: Its run id.
        topic: Which of the activity's streams; without ``/``.

    Raises:
        ConfigurationError: The topic is not usable, or an id is empty.
    """
    check_topic(topic)
    if not activity_id or not run_id:
        raise ConfigurationError(
            f"activity id {activity_id!r} and run id {run_id!r} must not be empty; only an "
            "activity that a client started has a run id"
        )
    return Execution("activity", activity_id, run_id).stream_name(topic)


def is_standalone(info: activity.Info) -> bool:
    """Whether a client started the activity, without a workflow."""
    return not info.workflow_id and bool(info.activity_run_id)


@dataclass(frozen=True, slots=True)
class ActivityRun:
    """One run of a standalone activity as the server describes it.

    Attributes:
        run_id: Its id.
        status: Its state in Temporal's terms: ``RUNNING``, ``PAUSED``, ``COMPLETED``, ``FAILED``,
            ``CANCELED``, ``TERMINATED``, ``TIMED_OUT``, or one that is newer than this version.
        closed_at: When it ended, by the server's clock, if it has.
    """

    run_id: str
    status: str
    closed_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, so that no attempt follows."""
        return self.status in _ENDED


async def describe_activity(
    client: Client, activity_id: str, run_id: str | None = None
) -> ActivityRun:
    """Describe one run of a standalone activity, by default the newest.

    Raises:
        RPCError: The call failed; ``UNIMPLEMENTED`` from a server without standalone activities.
    """
    # Not by a handle: that fails for a status that is newer than this SDK.
    request = DescribeActivityExecutionRequest(
        namespace=client.namespace, activity_id=activity_id, run_id=run_id or ""
    )
    with connecting():
        answer = await client.workflow_service.describe_activity_execution(
            request, retry=True, timeout=RPC_TIMEOUT
        )
    found = answer.info
    return ActivityRun(
        found.run_id,
        _status_name(found.status),
        found.close_time.ToDatetime(UTC) if found.HasField("close_time") else None,
    )


def _status_name(status: int) -> str:
    try:
        return ActivityExecutionStatus.Name(status).removeprefix(_PREFIX)  # type: ignore[arg-type]
    except ValueError:
        return f"status {status}"


def activity_rpc_error(error: RPCError, doing: str) -> StreamqError:
    """Return the streamq error for a failed call to Temporal about a standalone activity."""
    if error.status is RPCStatusCode.NOT_FOUND:
        return StreamNotFoundError(
            f"cannot {doing}: {error.message} (NOT_FOUND); check the activity id and the "
            "namespace. An activity that a workflow scheduled is found by its workflow"
        )
    if error.status is RPCStatusCode.UNIMPLEMENTED:
        return ConfigurationError(
            f"cannot {doing}: {error.message} (UNIMPLEMENTED); this Temporal server runs no "
            "activities without a workflow. Server 1.32 does, 1.31 with the dynamic configuration "
            "activity.enableStandalone; or run the activity in a workflow"
        )
    return rpc_error(error, doing)


async def wait_activity_started(
    client: Client, activity_id: str, retry: RetryPolicy, *, seconds: float
) -> tuple[str, bool]:
    """Return the newest run id of a standalone activity, waiting for its start.

    Describes it repeatedly, with pauses that grow from 50 ms to a second.

    Returns:
        The run id, and whether the activity did not exist at first.

    Raises:
        StreamNotFoundError: It was not started within ``seconds``.
        ConfigurationError: The server runs no standalone activities.
        BackendUnavailableError: Temporal stayed unreachable for the retry deadline.
        AccessDeniedError: Temporal refuses our credentials.
    """

    async def look() -> ActivityRun:
        try:
            return await describe_activity(client, activity_id)
        except RPCError as exc:
            raise activity_rpc_error(exc, f"describe activity {activity_id!r}") from exc

    until = time.monotonic() + seconds
    pause, waited = 0.05, False
    while True:
        try:
            return (await retry.run(look)).run_id, waited
        except StreamNotFoundError as exc:
            left = until - time.monotonic()
            if left <= 0:
                if not waited:
                    raise
                raise StreamNotFoundError(
                    f"activity {activity_id!r} was not started within {seconds:g} s in namespace "
                    f"{client.namespace!r} ({exc}); start_seconds= is the deadline"
                ) from exc
        waited = True
        await asyncio.sleep(min(pause * random.uniform(0.5, 1.0), left))
        pause = min(pause * 2, 1.0)


async def activity_ending(client: Client, activity_id: str, run_id: str) -> str | None:
    """Return how a standalone activity ended; ``None`` if it runs or Temporal does not answer."""
    try:
        run = await describe_activity(client, activity_id, run_id)
    except RPCError as exc:
        return "NOT_FOUND" if exc.status is RPCStatusCode.NOT_FOUND else None
    return run.status if run.has_ended else None
