"""Runs ``streamq.Produce``: a streaming activity for a workflow that may continue as new meanwhile.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from streamq.temporal._names import stream_name
from streamq.temporal.activities._watch import ChainRef, watch

from ._end_stream import end_stream
from ._stream_topic import StreamOwner, stream_owner, stream_topic

PRODUCE_WORKFLOW = "streamq.Produce"

_WATCH_HEARTBEAT = timedelta(seconds=60)
_WATCH_TIMEOUT = timedelta(days=3_650)


@dataclass(frozen=True)
class RetrySpec:
    """A retry policy as plain JSON; see :class:`temporalio.common.RetryPolicy`."""

    initial_seconds: float = 1.0
    backoff: float = 2.0
    longest_seconds: float | None = None
    max_attempts: int = 0
    non_retryable: list[str] | None = None

    @classmethod
    def of(cls, policy: RetryPolicy) -> RetrySpec:
        """Return a policy as plain JSON."""
        longest = policy.maximum_interval
        return cls(
            policy.initial_interval.total_seconds(),
            policy.backoff_coefficient,
            None if longest is None else longest.total_seconds(),
            policy.maximum_attempts,
            list(policy.non_retryable_error_types or ()) or None,
        )

    def policy(self) -> RetryPolicy:
        """Return it as Temporal's retry policy."""
        return RetryPolicy(
            initial_interval=timedelta(seconds=self.initial_seconds),
            backoff_coefficient=self.backoff,
            maximum_interval=_delta(self.longest_seconds),
            maximum_attempts=self.max_attempts,
            non_retryable_error_types=self.non_retryable,
        )


@dataclass(frozen=True)
class ProduceRequest:
    """The activity to run, and the workflow that owns its stream; plain JSON.

    Attributes:
        activity: Name of the streaming activity.
        args: Its arguments as payloads, in protobuf bytes as base64.
        workflow_id: Workflow that owns the stream.
        first_run_id: First run of that workflow's chain.
        topic: Which of the workflow's streams.
        task_queue: Where the activity runs, by default the task queue of ``streamq.Produce``.
        schedule_to_close_seconds: The activity's ``schedule_to_close_timeout``.
        schedule_to_start_seconds: The activity's ``schedule_to_start_timeout``.
        start_to_close_seconds: The activity's ``start_to_close_timeout``.
        heartbeat_seconds: The activity's ``heartbeat_timeout``.
        retry: Retry policy of the activity.
        workflow_attempt: Attempt of the owning workflow that makes the call.
        workflow_retries: Whether that workflow will be retried if it fails.
        watches_first: Whether the watch is scheduled before the activity, which may occupy the last
            activity slot. False in requests of earlier versions, whose histories have it after.
        call: Identifies the call, so that a call that is repeated after a reset is distinguished
            from a new one.
    """

    activity: str
    args: list[str]
    workflow_id: str
    first_run_id: str
    topic: str
    task_queue: str | None = None
    schedule_to_close_seconds: float | None = None
    schedule_to_start_seconds: float | None = None
    start_to_close_seconds: float | None = None
    heartbeat_seconds: float | None = None
    retry: RetrySpec | None = None
    workflow_attempt: int = 1
    workflow_retries: bool = False
    call: str | None = None
    watches_first: bool = False


def encode_payloads(payloads: Sequence[Payload]) -> list[str]:
    """Return payloads as plain JSON."""
    return [base64.b64encode(each.SerializeToString()).decode("ascii") for each in payloads]


@workflow.defn(name=PRODUCE_WORKFLOW)
class ProduceWorkflow:
    """Runs one streaming activity that writes another workflow's stream.

    It outlives the runs of that workflow, which continue as new meanwhile. Arguments and
    result pass through it unconverted. It fails with the activity's failure, ends the stream if the
    activity could not, and passes its cancellation on to the activity.

    **Orphans.** An activity ``streamq.watch`` waits for the end of the owner's chain of runs. If
    that ends without having cancelled this workflow (it was terminated, or timed out), the activity
    is cancelled. That costs one activity and three heartbeats a minute.
    """

    @workflow.run
    async def run(self, request: ProduceRequest) -> RawValue:
        """Run the activity and return its result unconverted."""
        owner = StreamOwner(
            request.workflow_id,
            request.first_run_id,
            request.workflow_attempt,
            request.workflow_retries,
            request.call,
        )
        stream = stream_name(request.workflow_id, request.first_run_id, request.topic)
        watching = _watch(request) if request.watches_first else None
        with stream_owner(owner), stream_topic(request.topic):
            producer: ActivityHandle[RawValue] = workflow.start_activity(
                request.activity,
                args=[RawValue(Payload.FromString(base64.b64decode(a))) for a in request.args],
                result_type=RawValue,
                task_queue=request.task_queue,
                schedule_to_close_timeout=_delta(request.schedule_to_close_seconds),
                schedule_to_start_timeout=_delta(request.schedule_to_start_seconds),
                start_to_close_timeout=_delta(request.start_to_close_seconds),
                heartbeat_timeout=_delta(request.heartbeat_seconds),
                retry_policy=request.retry.policy() if request.retry else None,
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        watching = watching or _watch(request)
        cancelled: str | None = None
        try:
            try:
                await workflow.wait([producer, watching], return_when=asyncio.FIRST_COMPLETED)
                if not producer.done() and not watching.cancelled() and not watching.exception():
                    cancelled = "the workflow has ended"
                    producer.cancel()
            except asyncio.CancelledError:
                cancelled = workflow.cancellation_reason() or "cancelled"
                producer.cancel()
            return await producer
        except ActivityError as exc:
            if cancelled is None and workflow.cancellation_reason() is not None:
                cancelled = workflow.cancellation_reason() or "cancelled"
            await end_stream(stream, exc, cancelled=cancelled, retries=request.workflow_retries)
            raise
        finally:
            watching.cancel()


def _watch(request: ProduceRequest) -> ActivityHandle[str]:
    return workflow.start_activity(
        watch,
        ChainRef(request.workflow_id, request.first_run_id),
        start_to_close_timeout=_WATCH_TIMEOUT,
        heartbeat_timeout=_WATCH_HEARTBEAT,
    )


def _delta(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
