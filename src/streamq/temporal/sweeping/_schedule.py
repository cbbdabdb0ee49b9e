"""Creates, updates and deletes the schedule that repeats ``streamq.Sweep``."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import ConfigurationError
from streamq._sweep import SweepRequest
from streamq.temporal._rpc import connecting, rpc_error

from ._workflow import SWEEP_WORKFLOW

_RPC_TIMEOUT = timedelta(seconds=10)
_CATCHUP = timedelta(minutes=1)
_SHORTEST = timedelta(seconds=1)


def schedule_id(tenant: str, prefix: str = "") -> str:
    """Return the id of the schedule for these streams: one for each tenant and prefix."""
    return f"streamq-sweep-{tenant}" + (f"-{prefix}" if prefix else "")


async def schedule_sweep(
    client: Client, tenant: str, request: SweepRequest, *, every: timedelta, task_queue: str
) -> bool:
    """Repeat ``streamq.Sweep`` at an interval; replaces an earlier schedule for these streams.

    A sweep that is due while the last one runs is skipped. A schedule that is paused stays paused.

    Args:
        client: A client of the namespace whose workflows write the streams.
        tenant: Tenant of the streams; set in the request.
        request: What each sweep does.
        every: Interval, at least a second.
        task_queue: Task queue of workers that have the plugin.

    Returns:
        Whether the schedule is new.

    Raises:
        ConfigurationError: The interval is too short.
        StreamqError: Temporal refused, or cannot be reached.
    """
    if every < _SHORTEST:
        raise ConfigurationError(f"a sweep every {every} is too often; the shortest is {_SHORTEST}")
    name = schedule_id(tenant, request.prefix)
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            SWEEP_WORKFLOW, replace(request, tenant=tenant), id=name, task_queue=task_queue
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=_CATCHUP),
        state=ScheduleState(note="ends and removes what crashed producers left in streamq"),
    )

    def replaced(found: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule.state = found.description.schedule.state
        return ScheduleUpdate(schedule)

    try:
        with connecting():
            await client.create_schedule(name, schedule, rpc_timeout=_RPC_TIMEOUT)
        return True
    except ScheduleAlreadyRunningError:
        pass
    except RPCError as exc:
        raise rpc_error(exc, f"create schedule {name!r}") from exc
    try:
        await client.get_schedule_handle(name).update(replaced, rpc_timeout=_RPC_TIMEOUT)
    except RPCError as exc:
        raise rpc_error(exc, f"update schedule {name!r}") from exc
    return False


async def unschedule_sweep(client: Client, tenant: str, prefix: str = "") -> bool:
    """Delete the schedule for these streams; a sweep that runs is not stopped.

    Returns:
        Whether there was one.

    Raises:
        StreamqError: Temporal refused, or cannot be reached.
    """
    name = schedule_id(tenant, prefix)
    try:
        with connecting():
            await client.get_schedule_handle(name).delete(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as exc:
        if exc.status is RPCStatusCode.NOT_FOUND:
            return False
        raise rpc_error(exc, f"delete schedule {name!r}") from exc
    return True
