"""Defines a workflow that outlives its activity and states how Temporal recorded its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError


@dataclass
class Call:
    """An activity to call, with one argument."""

    activity: str
    argument: str
    max_attempts: int = 0
    seconds: float = 20.0


@dataclass
class Outcome:
    """How Temporal recorded the end of an activity."""

    state: str
    type: str = ""
    message: str = ""
    non_retryable: bool = False


@workflow.defn
class Survives:
    """Calls one activity, and goes on after its end until it is signalled to end."""

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._ends = False
        self._activity: workflow.ActivityHandle[object] | None = None

    @workflow.run
    async def run(self, call: Call) -> Outcome:
        try:
            self._activity = workflow.start_activity(
                call.activity,
                call.argument,
                start_to_close_timeout=timedelta(seconds=call.seconds),
                heartbeat_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(milliseconds=10), maximum_attempts=call.max_attempts
                ),
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
            await self._activity
            self._outcome = Outcome("COMPLETED")
        except ActivityError as exc:
            self._outcome = _failed(exc.cause)
        await workflow.wait_condition(lambda: self._ends)
        return self._outcome

    @workflow.signal
    def cancel_activity(self) -> None:
        if self._activity is not None:
            self._activity.cancel()

    @workflow.signal
    def end(self) -> None:
        self._ends = True

    @workflow.update
    async def outcome(self) -> Outcome:
        await workflow.wait_condition(lambda: self._outcome is not None)
        assert self._outcome is not None
        return self._outcome


def _failed(cause: BaseException | None) -> Outcome:
    if isinstance(cause, CancelledError):
        return Outcome("CANCELLED")
    if isinstance(cause, ApplicationError):
        return Outcome("FAILED", cause.type or "", cause.message, cause.non_retryable)
    return Outcome("FAILED", type(cause).__name__, str(cause))
