"""Cancels the workflow or standalone activity that a stream is named after, and no later one.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import ActivityHandle, Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import BackendUnavailableError
from streamq._executions import Execution
from streamq._retry import RetryPolicy

from ._activity_runs import activity_rpc_error, describe_activity
from ._rpc import RPC_TIMEOUT, connecting, rpc_error
from ._workflow_runs import describe_run

_TRIES = 10
_OVER = (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION)


async def cancel_execution(client: Client, execution: Execution, retry: RetryPolicy) -> bool:
    """Request the cancellation of an execution, in whichever run of its chain it is.

    A run is cancelled by its id, after it was found to belong to the chain: a later start of the
    same id, and the next firing of a cron schedule, are never hit. Requesting it again changes
    nothing.

    Returns:
        Whether it still ran; otherwise nothing was requested.

    Raises:
        StreamNotFoundError: Temporal does not know it, or no longer.
        ConfigurationError: The server runs no activities without a workflow.
        BackendUnavailableError: Temporal stayed unreachable for the retry deadline.
        AccessDeniedError: Temporal refuses our credentials.

    Cancellation: it was requested, or not.
    """
    call = _cancel_activity if execution.kind == "activity" else _cancel_workflow
    return await retry.run(lambda: call(client, execution))


async def _cancel_workflow(client: Client, execution: Execution) -> bool:
    try:
        for _ in range(_TRIES):
            newest = await describe_run(client, execution.id)
            if newest.has_ended:
                return False
            if await newest.first_run_id(client, execution.id) != execution.run_id:
                await describe_run(client, execution.id, execution.run_id)  # it has to be known
                return False
            handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(
                execution.id, run_id=newest.run_id
            )
            try:
                with connecting():
                    await handle.cancel(rpc_timeout=RPC_TIMEOUT)
            except RPCError as exc:
                if exc.status is RPCStatusCode.ALREADY_EXISTS:  # requested before
                    return True
                if exc.status not in _OVER:
                    raise
                continue  # this run has ended, and another one may have followed
            return True
    except RPCError as exc:
        raise rpc_error(exc, f"cancel workflow {execution.id!r}") from exc
    raise BackendUnavailableError(
        f"workflow {execution.id!r} went on to another run in each of {_TRIES} attempts to cancel "
        "it; try again",
        backend="temporal",
    )


async def _cancel_activity(client: Client, execution: Execution) -> bool:
    try:
        run = await describe_activity(client, execution.id, execution.run_id)
        if run.has_ended:
            return False
        handle: ActivityHandle[Any] = client.get_activity_handle(
            execution.id, run_id=execution.run_id
        )
        with connecting():
            await handle.cancel(rpc_timeout=RPC_TIMEOUT)
    except RPCError as exc:
        if exc.status is RPCStatusCode.FAILED_PRECONDITION:  # it has just ended
            return False
        raise activity_rpc_error(exc, f"cancel activity {execution.id!r}") from exc
    return True
