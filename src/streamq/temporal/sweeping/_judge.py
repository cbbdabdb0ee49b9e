"""Asks Temporal whether the workflow behind a stream has ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import ConfigurationError, StreamqError
from streamq._retry import RetryPolicy
from streamq._sweep import Life, SweepRequest, Verdict
from streamq.temporal._rpc import rpc_error
from streamq.temporal._workflow_runs import Run, describe_run

_NO_WORKFLOW = "/temporal.api.errordetails.v1.NotFoundFailure"


class WorkflowJudge:
    """Asks Temporal whether the workflow behind a stream has ended.

    In doubt the answer is that it has not: while Temporal cannot be reached, for a state that this
    version does not know, and for a workflow that ended only a moment ago. Once Temporal has failed
    to answer it is not queried again.

    Args:
        client: A client of the workflows' namespace; may be lazy.
        request: States the grace period, and what to do with unknown workflows.
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
        """Why Temporal could not be queried, if that failed."""

    async def __call__(self, workflow_id: str, first_run_id: str) -> Verdict:
        """Return whether the chain that began with a run has ended."""
        if not self._answers:
            async with self._first:  # so that an outage is waited out, and logged, only once
                return await self._ask(workflow_id, first_run_id)
        return await self._ask(workflow_id, first_run_id)

    async def _ask(self, workflow_id: str, first_run_id: str) -> Verdict:
        if self.problem is None:
            try:
                newest, first = await self._retry.run(lambda: self._newest(workflow_id))
            except StreamqError as exc:
                self.problem = self.problem or str(exc)
            else:
                self._answers = True
                return self._judge(workflow_id, first_run_id, newest, first)
        return Verdict(Life.UNSURE, f"Temporal did not say whether workflow {workflow_id!r} runs")

    async def _newest(self, workflow_id: str) -> tuple[Run | None, str | None]:
        """Return the newest run and the first run of its chain, as far as Temporal knows them."""
        try:
            newest = await describe_run(self._client, workflow_id)
            return newest, await newest.first_run_id(self._client, workflow_id)
        except RPCError as exc:
            if exc.status is RPCStatusCode.NOT_FOUND:
                # The server answers "not found" for an unknown namespace as well.
                if any(each.type_url.endswith(_NO_WORKFLOW) for each in exc.grpc_status.details):
                    return None, None
                raise ConfigurationError(
                    f"Temporal does not know namespace {self._client.namespace!r}: {exc.message}; "
                    "set STREAMQ_TEMPORAL_NAMESPACE"
                ) from exc
            raise rpc_error(exc, f"ask Temporal about workflow {workflow_id!r}") from exc

    def _judge(
        self, workflow_id: str, first_run_id: str, newest: Run | None, first_of_newest: str | None
    ) -> Verdict:
        if newest is None:
            reason = (
                f"workflow {workflow_id!r} is not known to namespace {self._client.namespace!r}"
            )
            if self._takes_unknown:
                return Verdict(Life.OVER, reason)
            return Verdict(Life.UNSURE, f"{reason}; it may run in another one")
        if first_of_newest is None:
            return Verdict(
                Life.UNSURE, f"Temporal no longer knows the first runs of workflow {workflow_id!r}"
            )
        if first_of_newest != first_run_id:
            # An id can be used again, and a cron schedule fires again, only after the chain's end.
            ended_at, how = newest.started_at, "its id has been used again, or it was due again"
        elif newest.has_ended and newest.status and newest.closed_at:
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
