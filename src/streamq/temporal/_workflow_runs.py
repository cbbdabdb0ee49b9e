"""Asks Temporal about the runs behind a stream: their state, and the first run of their chain.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import StreamNotFoundError
from streamq._retry import RetryPolicy

from ._chains import first_run_of_chain
from ._rpc import RPC_TIMEOUT, connecting, rpc_error

_STATUSES = {status.value: status for status in WorkflowExecutionStatus}
_ENDED = {
    WorkflowExecutionStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED,
    WorkflowExecutionStatus.CANCELED,
    WorkflowExecutionStatus.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT,
}

logger = logging.getLogger("streamq.temporal")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workflow as the server describes it.

    Attributes:
        run_id: Its id.
        workflow_first_run_id: The first run since the workflow was started.
        has_begun: Whether it has had work; false while it waits for its time.
        status: Its state; ``None`` if this SDK has no name for that.
        started_at: When it began, by the server's clock.
        closed_at: When it ended, if it has.
    """

    run_id: str
    workflow_first_run_id: str
    has_begun: bool
    status: WorkflowExecutionStatus | None
    started_at: datetime
    closed_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended and no other run of its chain follows, if it is the newest."""
        return self.status in _ENDED

    async def first_run_id(self, client: Client, workflow_id: str) -> str | None:
        """Return the first run of its chain, as :func:`first_run_of_chain` does."""
        if self.run_id == self.workflow_first_run_id:
            return self.run_id
        return await first_run_of_chain(client, workflow_id, self.run_id)

    def may_write_for(self, first_run_id: str) -> bool:
        """Whether it may write the streams that are named after a run of an earlier chain.

        Before each firing of a cron schedule had streams of its own, all of them wrote those that
        are named after the workflow's first run. A firing that began then ends with them.
        """
        is_open = self.closed_at is None
        return is_open and self.has_begun and self.workflow_first_run_id == first_run_id


async def describe_run(client: Client, workflow_id: str, run_id: str | None = None) -> Run:
    """Describe one run, by default the newest.

    Raises:
        RPCError: The call failed.
    """
    # Not by a handle: that fails for a status that is newer than this SDK (PAUSED).
    request = DescribeWorkflowExecutionRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id or ""),
    )
    with connecting():
        answer = await client.workflow_service.describe_workflow_execution(
            request, retry=True, timeout=RPC_TIMEOUT
        )
    found = answer.workflow_execution_info
    return Run(
        found.execution.run_id,
        found.first_run_id,
        found.history_length > 1,  # the first event states that the run exists
        _STATUSES.get(found.status),
        found.start_time.ToDatetime(UTC),
        found.close_time.ToDatetime(UTC) if found.HasField("close_time") else None,
    )


async def find_first_run_id(
    client: Client, workflow_id: str, run_id: str | None, retry: RetryPolicy
) -> str:
    """Return the first run of the chain of a run, by default the newest, through outages.

    Raises:
        StreamNotFoundError: There is no such workflow, or an earlier run is no longer known.
        BackendUnavailableError: Temporal stayed unreachable for the retry deadline.
        AccessDeniedError: Temporal refuses our credentials.
    """

    async def look() -> str | None:
        try:
            run = await describe_run(client, workflow_id, run_id)
            return await run.first_run_id(client, workflow_id)
        except RPCError as exc:
            raise rpc_error(exc, f"describe workflow {workflow_id!r}") from exc

    first = await retry.run(look)
    if first is None:
        raise StreamNotFoundError(
            f"Temporal no longer knows the runs with which this firing of workflow {workflow_id!r} "
            "began, so that the stream's name cannot be found: the namespace's retention is "
            "shorter than the firing; find the name with 'streamq ls' and read it with open_reader"
        )
    return first


async def wait_started(
    client: Client, workflow_id: str, run_id: str | None, retry: RetryPolicy, *, seconds: float
) -> tuple[str, bool]:
    """Return the first run id as :func:`find_first_run_id` does, waiting for the workflow's start.

    Describes it repeatedly, with pauses that grow from 50 ms to a second. A run that is given by
    its id exists already or never will, so that it is not waited for.

    Returns:
        The run id, and whether the workflow did not exist at first.

    Raises:
        StreamNotFoundError: It was not started within ``seconds``.
        StreamqError: As for :func:`find_first_run_id`.
    """
    until = time.monotonic() + seconds
    pause, waited = 0.05, False
    while True:
        try:
            return await find_first_run_id(client, workflow_id, run_id, retry), waited
        except StreamNotFoundError as exc:
            left = until - time.monotonic()
            if run_id is not None:
                raise
            if left <= 0:
                if not waited:
                    raise
                raise StreamNotFoundError(
                    f"workflow {workflow_id!r} was not started within {seconds:g} s in namespace "
                    f"{client.namespace!r} ({exc}); start_seconds= is the deadline"
                ) from exc
        waited = True
        await asyncio.sleep(min(pause * random.uniform(0.5, 1.0), left))
        pause = min(pause * 2, 1.0)


async def has_chain_ended(client: Client, workflow_id: str, first_run_id: str) -> bool:
    """Whether no run writes the chain's streams any more; false if Temporal does not answer."""
    try:
        newest = await describe_run(client, workflow_id)
        if newest.has_ended:
            return True
        if newest.may_write_for(first_run_id):
            return False
        first = await newest.first_run_id(client, workflow_id)
    except RPCError as exc:
        return _is_unknown(exc, workflow_id)
    return first is not None and first != first_run_id


async def was_chain_cancelled(client: Client, workflow_id: str, first_run_id: str) -> bool:
    """Whether a chain has ended by its cancellation; false if that cannot be found out."""
    try:
        newest = await describe_run(client, workflow_id)
        if newest.status is not WorkflowExecutionStatus.CANCELED:
            return False
        return await newest.first_run_id(client, workflow_id) == first_run_id
    except RPCError:
        return False


async def has_workflow_ended(client: Client, workflow_id: str) -> bool:
    """Whether the newest run of a workflow has ended; false if Temporal does not answer."""
    try:
        return (await describe_run(client, workflow_id)).has_ended
    except RPCError as exc:
        return _is_unknown(exc, workflow_id)


def _is_unknown(error: RPCError, workflow_id: str) -> bool:
    """Whether the server does not know the workflow; a failure is logged as one that has not."""
    if error.status is RPCStatusCode.NOT_FOUND:
        return True
    logger.info("%s; it counts as running", rpc_error(error, f"describe workflow {workflow_id!r}"))
    return False
