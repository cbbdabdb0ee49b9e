"""Starts, awaits and cancels the producer of a stream that a workflow follows."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Protocol

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.converter import DefaultFailureConverter
from temporalio.exceptions import (
    ActivityError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
)

from streamq._errors import ProducerGoneError
from streamq.temporal._failure import final_failure, is_refused
from streamq.temporal._names import producer_id
from streamq.temporal.activities._watch import Outcome, outcome

from ._chain import first_run_id
from ._end_stream import workflow_retries
from ._produce_workflow import PRODUCE_WORKFLOW, ProduceRequest, RetrySpec, encode_payloads
from ._producer_call import ProducerCall
from ._run_state import run_state
from ._stream_topic import stream_topic

_END_SECONDS = 60.0
_RESULT_HEARTBEAT = timedelta(seconds=60)
_RESULT_TIMEOUT = timedelta(days=3_650)


class Producer(Protocol):
    """The producer of a stream that a workflow follows."""

    @property
    def future(self) -> asyncio.Future[Any] | None:
        """The activity or child workflow that this run started, if it started one."""

    @property
    def producer_id(self) -> str | None:
        """Id of the workflow that runs it, if an earlier run started it."""

    @property
    def refusal(self) -> FailureError | None:
        """Its failure, if it has ended because another call of the workflow owns the stream."""

    async def start(self) -> None:
        """Start the producer, unless it runs already."""

    async def result(self) -> Any:
        """Wait for the activity's result.

        Raises:
            FailureError: The activity failed.
        """

    async def settle(self, *, cancel: bool) -> FailureError | None:
        """Wait for its end, after cancelling it if requested; return its failure, if it failed."""


class ActivityProducer:
    """An activity that this run starts."""

    def __init__(self, call: ProducerCall) -> None:
        self._call = call
        self.future: workflow.ActivityHandle[Any] | None = None
        self.producer_id = None

    @property
    def refusal(self) -> FailureError | None:
        """The activity's failure, if another call of the workflow owns the stream."""
        return _refusal(self.future)

    async def start(self) -> None:
        """Schedule the activity."""
        call = self._call
        with stream_topic(call.topic):
            self.future = workflow.start_activity(
                call.activity,
                args=call.args,
                result_type=call.result_type,
                task_queue=call.task_queue,
                schedule_to_close_timeout=call.schedule_to_close_timeout,
                schedule_to_start_timeout=call.schedule_to_start_timeout,
                start_to_close_timeout=call.start_to_close_timeout,
                heartbeat_timeout=call.heartbeat_timeout,
                retry_policy=call.retry_policy,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )

    async def result(self) -> Any:
        """Wait for the activity's result."""
        assert self.future is not None
        return await self.future

    async def settle(self, *, cancel: bool) -> FailureError | None:
        """Wait for the activity's end."""
        assert self.future is not None
        return await _settle(self.future, cancel=cancel, bounded=False)


class ChildProducer:
    """A child workflow that runs the activity and outlives this run."""

    def __init__(self, call: ProducerCall) -> None:
        self._call = call
        self.future: workflow.ChildWorkflowHandle[Any, Any] | None = None
        self.producer_id = None

    @property
    def refusal(self) -> FailureError | None:
        """The activity's failure, if another call of the workflow owns the stream."""
        failure = _refusal(self.future)
        return _activity_failure(failure) if isinstance(failure, ChildWorkflowError) else failure

    async def start(self) -> None:
        """Start the child, and end one that an earlier attempt of the workflow left running."""
        call, info = self._call, workflow.info()
        request = ProduceRequest(
            call.name,
            encode_payloads(workflow.payload_converter().to_payloads(call.args)),
            info.workflow_id,
            first_run_id(),
            call.topic,
            call.task_queue,
            _seconds(call.schedule_to_close_timeout),
            _seconds(call.schedule_to_start_timeout),
            _seconds(call.start_to_close_timeout),
            _seconds(call.heartbeat_timeout),
            RetrySpec.of(call.retry_policy) if call.retry_policy else None,
            info.attempt,
            workflow_retries(),
            f"{info.original_execution_run_id}/{_count_call(call.topic)}",
            watches_first=True,
        )
        self.future = await workflow.start_child_workflow(
            PRODUCE_WORKFLOW,
            request,
            id=producer_id(call.stream),
            result_type=call.result_type,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            id_reuse_policy=WorkflowIDReusePolicy.TERMINATE_IF_RUNNING,
        )

    async def result(self) -> Any:
        """Wait for the activity's result."""
        assert self.future is not None
        try:
            return await self.future
        except ChildWorkflowError as exc:
            failure = _activity_failure(exc)
        raise failure  # not in the handler: that would change its cause

    async def settle(self, *, cancel: bool) -> FailureError | None:
        """Wait for the child's end; at most a minute if it was cancelled."""
        assert self.future is not None
        failure = await _settle(self.future, cancel=cancel, bounded=cancel)
        return _activity_failure(failure) if isinstance(failure, ChildWorkflowError) else failure


class ResumedProducer:
    """A child workflow that an earlier run of this workflow started."""

    def __init__(self, stream: str, result_type: type | None) -> None:
        self.future = None
        self.producer_id = producer_id(stream)
        self.refusal = None  # only a query of Temporal would find it
        self._result_type = result_type
        self._found: Outcome | None = None

    async def start(self) -> None:
        """Do nothing: the child runs already."""

    async def result(self) -> Any:
        """Wait for the activity's result; costs one activity."""
        if self._found is None:
            self._found = await workflow.execute_activity(
                outcome,
                self.producer_id,
                start_to_close_timeout=_RESULT_TIMEOUT,
                heartbeat_timeout=_RESULT_HEARTBEAT,
            )
        return self._unwrap(self._found)

    async def settle(self, *, cancel: bool) -> FailureError | None:
        """Wait for the child's end, at most a minute."""
        if cancel and self._found is None:
            handle: workflow.ExternalWorkflowHandle[Any] = workflow.get_external_workflow_handle(
                self.producer_id
            )
            try:
                await handle.cancel()
            except FailureError as exc:  # it has ended already
                workflow.logger.debug("%s is not cancelled: %s", self.producer_id, exc)
        if self._found is None:
            try:
                self._found = await workflow.execute_activity(
                    outcome,
                    self.producer_id,
                    schedule_to_close_timeout=timedelta(seconds=_END_SECONDS),
                )
            except ActivityError as exc:
                workflow.logger.warning("%s has not ended: %s", self.producer_id, exc.cause)
                return None
        try:
            self._unwrap(self._found)
        except FailureError as exc:
            return exc
        return None

    def _unwrap(self, found: Outcome) -> Any:
        converter = workflow.payload_converter()
        failure = found.failure_proto()
        if failure is not None:
            raise DefaultFailureConverter().from_failure(failure, converter)
        if found.status == "CANCELED":
            raise CancelledError("the producer was cancelled")
        if found.status != "COMPLETED":
            raise final_failure(
                ProducerGoneError,
                f"the producer of this stream, workflow {self.producer_id!r}, has no result: it is "
                f"{found.status}",
            )
        payload = found.payload()
        hints = None if self._result_type is None else [self._result_type]
        return None if payload is None else converter.from_payloads([payload], hints)[0]


async def _settle(
    future: asyncio.Future[Any], *, cancel: bool, bounded: bool
) -> FailureError | None:
    if cancel and not future.done():
        future.cancel()
    await workflow.wait([future], timeout=_END_SECONDS if bounded else None)
    if not future.done():
        return None
    if future.cancelled():
        return CancelledError("cancelled before it was started")
    failure = future.exception()
    if failure is None or isinstance(failure, FailureError):
        return failure
    raise failure


def _refusal(future: asyncio.Future[Any] | None) -> FailureError | None:
    if future is None or not future.done() or future.cancelled():
        return None
    failure = future.exception()
    return failure if isinstance(failure, FailureError) and is_refused(failure) else None


def _activity_failure(failure: ChildWorkflowError) -> FailureError:
    """Return the activity's failure, without the child workflow's around it."""
    cause = failure.cause
    return cause if isinstance(cause, ActivityError) else failure


def _count_call(topic: str) -> int:
    """Count the detached calls of this run on one topic; replay counts the same."""
    counts = run_state().calls
    counts[topic] = counts.get(topic, 0) + 1
    return counts[topic]


def _seconds(delta: timedelta | None) -> float | None:
    return None if delta is None else delta.total_seconds()
