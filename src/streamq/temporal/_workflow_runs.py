"""Queries Temporal about the chain of runs behind a stream: its first run, its state, its end.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import temporalio.api.history.v1
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistoryEventAsyncIterator,
    WorkflowHistoryEventFilterType,
)
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StreamNotFoundError,
    StreamqError,
)
from streamq._retry import RetryPolicy

_RPC_TIMEOUT = timedelta(seconds=5)
_LONG_POLL_TIMEOUT = timedelta(seconds=70)

_TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.ABORTED,
    RPCStatusCode.CANCELLED,
}
_DENIED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}

_STATUSES = {status.value: status for status in WorkflowExecutionStatus}
_ENDED = {
    WorkflowExecutionStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED,
    WorkflowExecutionStatus.CANCELED,
    WorkflowExecutionStatus.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT,
}

_CLOSED_BY = {
    "workflow_execution_completed_event_attributes": WorkflowExecutionStatus.COMPLETED,
    "workflow_execution_failed_event_attributes": WorkflowExecutionStatus.FAILED,
    "workflow_execution_canceled_event_attributes": WorkflowExecutionStatus.CANCELED,
    "workflow_execution_terminated_event_attributes": WorkflowExecutionStatus.TERMINATED,
    "workflow_execution_timed_out_event_attributes": WorkflowExecutionStatus.TIMED_OUT,
    "workflow_execution_continued_as_new_event_attributes": (
        WorkflowExecutionStatus.CONTINUED_AS_NEW
    ),
}


def rpc_error(error: RPCError, doing: str) -> StreamqError:
    """Return the streamq error for a failed call to Temporal."""
    message = f"cannot {doing}: {error.message} ({error.status.name})"
    if error.status is RPCStatusCode.NOT_FOUND:
        return StreamNotFoundError(message + "; check the workflow id and the namespace")
    if error.status in _DENIED:
        return AccessDeniedError(message, backend="temporal")
    if error.status in _TRANSIENT:
        return BackendUnavailableError(message, backend="temporal")
    return BackendError(message, backend="temporal")


@contextmanager
def connecting() -> Iterator[None]:
    """Turn the bare ``RuntimeError`` of a lazy client that cannot connect into an ``RPCError``."""
    try:
        yield
    except RuntimeError as exc:
        raise RPCError(str(exc), RPCStatusCode.UNAVAILABLE, b"") from exc


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workflow as the server describes it.

    Attributes:
        run_id: Its id.
        first_run_id: The first run of its chain.
        status: Its state; ``None`` if this SDK has no name for that.
        started_at: When it began, by the server's clock.
        closed_at: When it ended, if it has.
    """

    run_id: str
    first_run_id: str
    status: WorkflowExecutionStatus | None
    started_at: datetime
    closed_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended and no other run of its chain follows, if it is the newest."""
        return self.status in _ENDED


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
            request, retry=True, timeout=_RPC_TIMEOUT
        )
    found = answer.workflow_execution_info
    newest_id, first = found.execution.run_id, found.first_run_id
    if not first:
        # Servers before 1.24 do not describe it; the first event of the run has it.
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=newest_id)
        async for event in handle.fetch_history_events(page_size=1, rpc_timeout=_RPC_TIMEOUT):
            first = event.workflow_execution_started_event_attributes.first_execution_run_id
            break
    return Run(
        newest_id,
        first or newest_id,
        _STATUSES.get(found.status),
        found.start_time.ToDatetime(UTC),
        found.close_time.ToDatetime(UTC) if found.HasField("close_time") else None,
    )


async def find_first_run_id(
    client: Client, workflow_id: str, run_id: str | None, retry: RetryPolicy
) -> str:
    """Return the run id of the first run of a chain, retrying while Temporal is unreachable.

    Raises:
        StreamNotFoundError: There is no such workflow.
        BackendUnavailableError: Temporal stayed unreachable for the retry deadline.
        AccessDeniedError: Temporal refuses our credentials.
    """

    async def look() -> Run:
        try:
            return await describe_run(client, workflow_id, run_id)
        except RPCError as exc:
            raise rpc_error(exc, f"describe workflow {workflow_id!r}") from exc

    return (await retry.run(look)).first_run_id


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
    """Whether no run of the chain is running any more; false if Temporal does not answer."""
    try:
        newest = await describe_run(client, workflow_id)
    except RPCError as exc:
        return exc.status is RPCStatusCode.NOT_FOUND
    return newest.first_run_id != first_run_id or newest.has_ended


async def has_workflow_ended(client: Client, workflow_id: str) -> bool:
    """Whether the newest run of a workflow has ended; false if Temporal does not answer."""
    try:
        return (await describe_run(client, workflow_id)).has_ended
    except RPCError as exc:
        return exc.status is RPCStatusCode.NOT_FOUND


async def wait_closed(
    client: Client, workflow_id: str, first_run_id: str, *, patience_seconds: float
) -> str:
    """Wait until the last run of the chain has ended.

    Long-polls for the close event of each run, so that no payload is decoded and few requests are
    made. Outages are waited out.

    Args:
        client: Of the workflow's namespace.
        workflow_id: Id of the workflow.
        first_run_id: First run of the chain.
        patience_seconds: Give up when Temporal stays unreachable for this long.

    Returns:
        The state of the last run, in Temporal's terms: ``COMPLETED``, ``FAILED``, ``CANCELED``,
        ``TERMINATED``, ``TIMED_OUT``; ``NOT_FOUND`` if the server no longer knows the workflow.

    Raises:
        StreamqError: Temporal refused, or stayed unreachable.
    """
    run_id, status = first_run_id, ""
    pages = _close_events(client, workflow_id, run_id)
    give_up, pause = 0.0, 0.05
    while True:
        try:
            next_run = None
            if not status:
                status, next_run = await _next_page(pages)
            give_up, pause = 0.0, 0.05
            if not status:
                continue
            if next_run is None:
                next_run = await _newer_run(client, workflow_id, first_run_id, run_id)
            if next_run is None:
                return status
            run_id, status = next_run, ""
            pages = _close_events(client, workflow_id, run_id)
            continue
        except RPCError as exc:
            now = time.monotonic()
            give_up = give_up or now + patience_seconds
            if exc.status not in _TRANSIENT or now >= give_up:
                raise rpc_error(exc, f"watch workflow {workflow_id!r}") from exc
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2.0)


def _close_events(
    client: Client, workflow_id: str, run_id: str
) -> WorkflowHistoryEventAsyncIterator:
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    return handle.fetch_history_events(
        wait_new_event=True,
        event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT,
        skip_archival=True,
        rpc_timeout=_LONG_POLL_TIMEOUT,
    )


async def _next_page(pages: WorkflowHistoryEventAsyncIterator) -> tuple[str, str | None]:
    """Poll once; return the state of the closed run (empty while it runs) and the next run."""
    try:
        with connecting():
            await pages.fetch_next_page()
    except RPCError as exc:
        if exc.status is not RPCStatusCode.NOT_FOUND:
            raise
        return "NOT_FOUND", None  # removed after the namespace's retention; a newer run may exist
    for event in pages.current_page or ():
        ending = _ending(event)
        if ending is not None:
            return ending
    return "", None


def _ending(event: temporalio.api.history.v1.HistoryEvent) -> tuple[str, str | None] | None:
    kind = event.WhichOneof("attributes")
    status = _CLOSED_BY.get(kind or "")
    if status is None:
        return None
    attributes = getattr(event, str(kind))
    return status.name, getattr(attributes, "new_execution_run_id", "") or None


async def _newer_run(
    client: Client, workflow_id: str, first_run_id: str, closed_run_id: str
) -> str | None:
    """Return the newest run if it is another run of the chain, after a reset for example."""
    try:
        newest = await describe_run(client, workflow_id)
    except RPCError as exc:
        if exc.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    if newest.first_run_id == first_run_id and newest.run_id != closed_run_id:
        return newest.run_id
    return None
