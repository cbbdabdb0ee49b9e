"""Asks Temporal whether the workflow or the standalone activity behind a stream has ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import ConfigurationError, StreamqError
from streamq._executions import Execution
from streamq._retry import RetryPolicy
from streamq._sweep import Life, SweepRequest, Verdict
from streamq.temporal._activity_runs import ActivityRun, describe_activity
from streamq.temporal._rpc import rpc_error
from streamq.temporal._workflow_runs import Run, describe_run

_NO_EXECUTION = "/temporal.api.errordetails.v1.NotFoundFailure"

_CLOCK_SECONDS = 1.0


class ExecutionJudge:
    """Asks Temporal whether the workflow or the standalone activity behind a stream has ended.

    In doubt the answer is that it has not: while Temporal cannot be reached, for a state that this
    version does not know, and for an execution that ended only a moment ago. Once Temporal has
    failed to answer it is not queried again.

    Args:
        client: A client of the executions' namespace; may be lazy.
        request: States the grace period, and what to do with unknown executions.
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

    async def __call__(self, execution: Execution) -> Verdict:
        """Return whether a workflow's chain of runs, or a standalone activity, has ended."""
        if not self._answers:
            async with self._first:  # so that an outage is waited out, and logged, only once
                return await self._ask(execution)
        return await self._ask(execution)

    async def _ask(self, execution: Execution) -> Verdict:
        if self.problem is None:
            look = self._activity if execution.kind == "activity" else self._workflow
            try:
                verdict = await self._retry.run(lambda: look(execution))
            except StreamqError as exc:
                self.problem = self.problem or str(exc)
            else:
                self._answers = True
                return verdict
        return Verdict(Life.UNSURE, f"Temporal did not say whether {execution} runs")

    async def _workflow(self, execution: Execution) -> Verdict:
        try:
            newest = await describe_run(self._client, execution.id)
            first = await newest.first_run_id(self._client, execution.id)
        except RPCError as exc:
            return self._unknown(execution, exc)
        return self._judge_workflow(execution, newest, first)

    async def _activity(self, execution: Execution) -> Verdict:
        try:
            run = await describe_activity(self._client, execution.id, execution.run_id)
        except RPCError as exc:
            if exc.status is RPCStatusCode.UNIMPLEMENTED:
                # Namespaces of several servers may share a tenant; workflows can be judged here.
                return Verdict(
                    Life.UNSURE,
                    f"this Temporal server runs no activities without a workflow ({exc.message}); "
                    f"{execution} may run on another one",
                )
            return self._unknown(execution, exc)
        return self._judge_activity(execution, run)

    def _unknown(self, execution: Execution, error: RPCError) -> Verdict:
        """Return the verdict on an execution that is not found.

        Raises:
            StreamqError: The call failed for another reason.
        """
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise rpc_error(error, f"ask Temporal about {execution}") from error
        # The server answers "not found" for an unknown namespace as well.
        if not any(each.type_url.endswith(_NO_EXECUTION) for each in error.grpc_status.details):
            raise ConfigurationError(
                f"Temporal does not know namespace {self._client.namespace!r}: {error.message}; "
                "set STREAMQ_TEMPORAL_NAMESPACE"
            ) from error
        reason = f"{execution} is not known to namespace {self._client.namespace!r}"
        if self._takes_unknown:
            return Verdict(Life.OVER, reason)
        return Verdict(Life.UNSURE, f"{reason}; it may run in another one")

    def _judge_workflow(
        self, execution: Execution, newest: Run, first_of_newest: str | None
    ) -> Verdict:
        if first_of_newest is None:
            return Verdict(Life.UNSURE, f"Temporal no longer knows the first runs of {execution}")
        if first_of_newest != execution.run_id:
            if newest.may_write_for(execution.run_id):
                return Verdict(
                    Life.UNSURE,
                    f"{execution} was due again, and the firing that runs may have begun when all "
                    "of them had one stream",
                )
            # An id can be used again, and a cron schedule fires again, only after the chain's end.
            how = "its id has been used again, or it was due again"
            return self._over(execution, newest.started_at, how)
        if newest.has_ended and newest.status and newest.closed_at:
            return self._over(execution, newest.closed_at, newest.status.name)
        if newest.closed_at is None and newest.status is not None:
            return Verdict(Life.RUNNING, f"{execution} runs")
        return Verdict(Life.UNSURE, f"{execution} is neither running nor over")

    def _judge_activity(self, execution: Execution, run: ActivityRun) -> Verdict:
        if run.has_ended and run.closed_at:
            return self._over(execution, run.closed_at, run.status)
        if run.status == "RUNNING":
            return Verdict(Life.RUNNING, f"{execution} runs")
        return Verdict(Life.UNSURE, f"{execution} is neither running nor over ({run.status})")

    def _over(self, execution: Execution, ended_at: datetime, how: str) -> Verdict:
        quiet = datetime.now(UTC) - ended_at
        if quiet.total_seconds() < -_CLOCK_SECONDS:
            return Verdict(
                Life.UNSURE,
                f"{execution} ended ({how}) {-quiet.total_seconds():.0f} s in the future: this "
                "host's clock is behind that of the Temporal server",
            )
        if quiet < self._grace:
            return Verdict(
                Life.UNSURE,
                f"{execution} ended ({how}) only {max(quiet.total_seconds(), 0):.0f} "
                f"s ago; it is left alone for {self._grace.total_seconds():g} s",
            )
        return Verdict(Life.OVER, f"{execution} ended ({how})")
