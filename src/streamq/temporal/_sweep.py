"""``streamq.Sweep``: a workflow that puts away what crashed producers left, made for a schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy as ActivityRetryPolicy
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import ConfigurationError, StreamqError
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq._sweep import Life, SweepRequest, SweepSummary, Verdict
from streamq._sweep import sweep as run_sweep
from streamq.driver import ChunkQueue

from ._chain import Run, describe_run, rpc_error
from ._context import activity_context
from ._failure import application_error
from ._input import from_json, invalid_request
from ._pulse import Pulse

SWEEP_WORKFLOW = "streamq.Sweep"
SWEEP_ACTIVITY = "streamq.sweep"

_PATIENCE_SECONDS = 5.0
_LONGEST_SWEEP = timedelta(hours=1)
_HEARTBEAT = timedelta(seconds=30)
_ATTEMPTS = 3
_NO_WORKFLOW = "/temporal.api.errordetails.v1.NotFoundFailure"


class WorkflowJudge:
    """Asks Temporal whether the workflow behind a stream is over.

    In doubt it is not: while Temporal cannot be asked, for a state that is not known here, and for
    a workflow that has only just ended. Once Temporal has failed to answer it is not asked again.

    Args:
        client: Of the workflows' namespace; may be lazy.
        request: How bold to be.
        patience_seconds: How long an outage of Temporal is waited out.
    """

    def __init__(self, client: Client, request: SweepRequest, *, patience_seconds: float) -> None:
        self._client = client
        self._grace = timedelta(seconds=request.grace_seconds)
        self._takes_unknown = request.unknown
        self._retry = RetryPolicy(deadline_seconds=patience_seconds)
        self._answers = False
        self._first = asyncio.Lock()
        self.problem: str | None = None
        """Why Temporal could not be asked, if it was necessary and could not."""

    async def __call__(self, workflow_id: str, first_run_id: str) -> Verdict:
        """Return whether the chain that began with a run is over."""
        if not self._answers:
            async with self._first:  # an outage is met, and logged, once
                return await self._ask(workflow_id, first_run_id)
        return await self._ask(workflow_id, first_run_id)

    async def _ask(self, workflow_id: str, first_run_id: str) -> Verdict:
        if self.problem is None:
            try:
                newest = await self._retry.run(lambda: self._newest(workflow_id))
            except StreamqError as exc:
                self.problem = self.problem or str(exc)
            else:
                self._answers = True
                return self._judge(workflow_id, first_run_id, newest)
        return Verdict(Life.UNSURE, f"Temporal did not say whether workflow {workflow_id!r} runs")

    async def _newest(self, workflow_id: str) -> Run | None:
        try:
            return await describe_run(self._client, workflow_id)
        except RPCError as exc:
            if exc.status is RPCStatusCode.NOT_FOUND:
                # A namespace that does not exist is "not found" as well.
                if any(each.type_url.endswith(_NO_WORKFLOW) for each in exc.grpc_status.details):
                    return None
                raise ConfigurationError(
                    f"Temporal does not know namespace {self._client.namespace!r}: {exc.message}; "
                    "set STREAMQ_TEMPORAL_NAMESPACE"
                ) from exc
            raise rpc_error(exc, f"ask Temporal about workflow {workflow_id!r}") from exc

    def _judge(self, workflow_id: str, first_run_id: str, newest: Run | None) -> Verdict:
        if newest is None:
            reason = (
                f"workflow {workflow_id!r} is not known to namespace {self._client.namespace!r}"
            )
            if self._takes_unknown:
                return Verdict(Life.OVER, reason)
            return Verdict(Life.UNSURE, f"{reason}; it may run in another one")
        if newest.first_run_id != first_run_id:
            # A chain has ended before its id can be used again.
            ended_at, how = newest.started_at, "its id has been used again"
        elif newest.is_over and newest.status and newest.closed_at:
            ended_at, how = newest.closed_at, newest.status.name
        elif newest.closed_at is None and newest.status is not None:
            return Verdict(Life.RUNNING, f"workflow {workflow_id!r} runs")
        else:
            return Verdict(Life.UNSURE, f"workflow {workflow_id!r} is neither running nor over")
        quiet = datetime.now(UTC) - ended_at
        if quiet < self._grace:
            return Verdict(
                Life.UNSURE,
                f"workflow {workflow_id!r} ended ({how}) only {max(quiet.total_seconds(), 0):.0f} "
                f"s ago; it is left alone for {self._grace.total_seconds():g} s",
            )
        return Verdict(Life.OVER, f"workflow {workflow_id!r} ended ({how})")


async def sweep_queue(
    queue: ChunkQueue,
    settings: Settings,
    client: Client,
    request: SweepRequest,
    *,
    on_progress: Callable[[int], None] = lambda streams: None,
) -> SweepSummary:
    """Sweep a queue, asking Temporal which workflows are over; see :func:`streamq._sweep.sweep`.

    Raises:
        ConfigurationError: The request makes no sense.
        StreamqError: The backend failed. That Temporal did is one of the summary's problems.
    """
    patience = min(settings.retry_seconds, _PATIENCE_SECONDS)
    judge = WorkflowJudge(client, request, patience_seconds=patience)
    summary = await run_sweep(queue, settings, request, judge, on_progress=on_progress)
    problem = judge.problem
    return replace(summary, problems=[*summary.problems, problem]) if problem else summary


@activity.defn(name=SWEEP_ACTIVITY)
async def sweep(request: SweepRequest) -> SweepSummary:
    """Sweep the worker's queue; see :class:`SweepWorkflow`.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    context = activity_context()
    async with Pulse(activity.info(), context.settings.cancel_seconds, activity.heartbeat):
        try:
            return await sweep_queue(context.queue, context.settings, activity.client(), request)
        except StreamqError as exc:
            raise application_error(exc) from exc


@workflow.defn(name=SWEEP_WORKFLOW)
class SweepWorkflow:
    """Ends and removes what crashed producers left, once; a schedule repeats it.

    The result is what ``streamq sweep --json`` prints.
    """

    @workflow.run
    async def run(self, request: dict[str, Any] | SweepRequest | None = None) -> SweepSummary:
        """Sweep the queue of the workers on this task queue.

        Args:
            request: What to do, as plain data, by default everything of the workers' tenant.
        """
        try:
            if not isinstance(request, SweepRequest):
                request = from_json(SweepRequest, {} if request is None else request)
        except ConfigurationError as exc:
            raise invalid_request(str(exc)) from None
        return await workflow.execute_activity(
            sweep,
            request,
            start_to_close_timeout=_LONGEST_SWEEP,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=ActivityRetryPolicy(maximum_attempts=_ATTEMPTS),
        )
