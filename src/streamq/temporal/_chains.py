"""Finds, in the events that began its runs, the first run of a workflow's chain of runs.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ContinueAsNewInitiator
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes as Start
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from ._lineage import read_lineage
from ._rpc import RPC_TIMEOUT, connecting

_CRON = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE
_UNSPECIFIED = ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_UNSPECIFIED


def run_of_new_start(handle: WorkflowHandle[Any, Any]) -> str | None:
    """Return the run id if the handle was got by starting a new workflow, which it then begins.

    ``first_execution_run_id`` does not state that: a start that attached to a running workflow has
    set it too, with servers before 1.32 and with update-with-start to the run that was current.
    """
    # The response has no public name. Every SDK that is supported keeps it.
    response = getattr(handle, "_start_workflow_response", None)
    return response.run_id if response is not None and response.started else None


async def first_run_of_chain(client: Client, workflow_id: str, run_id: str) -> str | None:
    """Return the first run of the chain that a run belongs to.

    Retries, resets and continued runs belong to the chain of the run before them. Each firing of a
    cron schedule begins a chain. Takes one request; two for a continued run; one for each earlier
    run of the firing where an SDK without streamq's plugin has continued it.

    Returns:
        The run id; ``None`` if Temporal no longer knows an earlier run that has to be seen.

    Raises:
        RPCError: A call failed; ``NOT_FOUND``: there is no such run.
    """
    start = await _start_of(client, workflow_id, run_id)
    is_cron = bool(start.cron_schedule)
    while True:
        if _begins_chain(start):
            return start.original_execution_run_id or run_id
        before = start.continued_execution_run_id
        lineage = read_lineage(start.header.fields)
        if lineage is not None and lineage.holds(
            continued_from=before, cron_schedule=start.cron_schedule, attempt=start.attempt
        ):
            return lineage.first_run_id
        try:
            if not is_cron:
                # A workflow that continues as new may have left its cron schedule behind.
                first = start.first_execution_run_id
                is_cron = bool((await _start_of(client, workflow_id, first)).cron_schedule)
                if not is_cron:
                    return first
            start, run_id = await _start_of(client, workflow_id, before), before
        except RPCError as exc:
            if exc.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None if is_cron else start.first_execution_run_id


def _begins_chain(start: Start) -> bool:
    if not start.continued_execution_run_id:
        return True
    if start.initiator != _UNSPECIFIED:
        return start.initiator == _CRON
    # The time-skipping server states no initiator. A run that the workflow has continued itself
    # begins at once, a retry has a higher attempt.
    waited = start.first_workflow_task_backoff.ToTimedelta()
    return bool(start.cron_schedule) and start.attempt <= 1 and waited.total_seconds() > 0


async def _start_of(client: Client, workflow_id: str, run_id: str) -> Start:
    request = GetWorkflowExecutionHistoryRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=1,
        skip_archival=True,
    )
    with connecting():
        answer = await client.workflow_service.get_workflow_execution_history(
            request, retry=True, timeout=RPC_TIMEOUT
        )
    return answer.history.events[0].workflow_execution_started_event_attributes
