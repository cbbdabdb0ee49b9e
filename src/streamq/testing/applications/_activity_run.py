"""Runs one attempt of an activity by the SDK's own activity worker, without a server.

Only the core below that worker is replaced, which polls for tasks and reports what becomes of them.
Arguments, result, heartbeats and failure pass through the data converter, functions in threads run
in a thread pool, and a cancellation reaches the function, as on any worker.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import temporalio.service
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio import activity
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.common.v1 import RetryPolicy as RetryPolicyProto
from temporalio.bridge.proto import ActivityHeartbeat, ActivityTaskCompletion
from temporalio.bridge.proto.activity_task import (
    ActivityCancellationDetails,
    ActivityTask,
    Cancel,
    Start,
)
from temporalio.bridge.worker import PollShutdownError  # type: ignore[attr-defined]
from temporalio.client import Client
from temporalio.common import MetricMeter, RetryPolicy
from temporalio.converter import ActivitySerializationContext, DataConverter
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)
from temporalio.worker._activity import _ActivityWorker

from streamq._errors import ConfigurationError
from streamq.temporal._origin import Origin
from streamq.temporal.producer._given_writers import given_writers, giving_writers

from ._script import CancelReason, Script

_DETAILS = {
    CancelReason.REQUESTED: {"is_cancelled": True},
    CancelReason.WORKFLOW_ENDED: {"is_not_found": True},
    CancelReason.TIMED_OUT: {"is_timed_out": True},
    CancelReason.WORKER_SHUTDOWN: {"is_worker_shutdown": True},
    CancelReason.PAUSED: {"is_paused": True},
    CancelReason.RESET: {"is_reset": True},
}
TOKEN = b"recorded"
TASK_QUEUE = "recorded"
WORKFLOW_TYPE = "Recorded"


@dataclass(frozen=True)
class AttemptTask:
    """What the server tells a worker about one attempt.

    Attributes:
        function: The activity.
        arguments: Its arguments.
        number: Number of the attempt.
        workflow_id: Id of its workflow.
        run_id: AttemptRun of that workflow, which is also the first one of its chain.
        topic: Topic that the workflow chose, if it did.
        scheduled: When the activity was scheduled.
        started: When this attempt was scheduled, and started.
        retry_policy: How it is retried.
        start_to_close_timeout: How long an attempt may take.
        schedule_to_close_timeout: How long all attempts may take, if that is limited.
        heartbeat_timeout: How long it may be silent.
        heartbeat_details: Payloads of the last heartbeat of an earlier attempt.
    """

    function: Callable[..., Any]
    arguments: Sequence[Any]
    number: int
    workflow_id: str
    run_id: str
    topic: str | None
    scheduled: datetime
    started: datetime
    retry_policy: RetryPolicy
    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    heartbeat_details: Sequence[Payload]

    @property
    def definition(self) -> activity._Definition:
        """The SDK's definition of the activity."""
        return activity._Definition.must_from_callable(self.function)

    @property
    def name(self) -> str:
        """Name of the activity."""
        return str(self.definition.name)

    def context(self, namespace: str) -> ActivitySerializationContext:
        """Return what converters may know about the activity."""
        return ActivitySerializationContext(
            namespace=namespace,
            activity_id="1",
            activity_type=self.name,
            activity_task_queue=TASK_QUEUE,
            workflow_id=self.workflow_id,
            workflow_type=WORKFLOW_TYPE,
            is_local=False,
        )

    async def start(self, converter: DataConverter, namespace: str) -> ActivityTask:
        """Return the message with which the core starts the attempt."""
        policy = RetryPolicyProto()
        self.retry_policy.apply_to_proto(policy)
        origin = Origin(self.run_id, self.run_id, 1, False, self.topic)
        start = Start(
            workflow_namespace=namespace,
            workflow_type=WORKFLOW_TYPE,
            workflow_execution=WorkflowExecution(workflow_id=self.workflow_id, run_id=self.run_id),
            activity_id="1",
            activity_type=self.name,
            header_fields=origin.to_headers({}),
            input=await converter.encode(self.arguments),
            heartbeat_details=self.heartbeat_details,
            scheduled_time=_timestamp(self.scheduled),
            current_attempt_scheduled_time=_timestamp(self.started),
            started_time=_timestamp(self.started),
            attempt=self.number,
            schedule_to_close_timeout=_duration(self.schedule_to_close_timeout),
            start_to_close_timeout=_duration(self.start_to_close_timeout),
            heartbeat_timeout=_duration(self.heartbeat_timeout),
            retry_policy=policy,
        )
        return ActivityTask(task_token=TOKEN, start=start)


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _duration(time: timedelta | None) -> Duration | None:
    if time is None:
        return None
    duration = Duration()
    duration.FromTimedelta(time)
    return duration


class _Core:
    """Gives the worker one task, and keeps what it reports."""

    def __init__(self) -> None:
        self._tasks: asyncio.Queue[ActivityTask | None] = asyncio.Queue()
        self.completion: asyncio.Future[ActivityTaskCompletion] = (
            asyncio.get_running_loop().create_future()
        )
        self.heartbeat: list[Payload] = []

    def give(self, task: ActivityTask | None) -> None:
        """Give the worker a task; ``None`` is the last."""
        self._tasks.put_nowait(task)

    async def poll_activity_task(self) -> ActivityTask:
        task = await self._tasks.get()
        if task is None:
            raise PollShutdownError
        return task

    async def complete_activity_task(self, completion: ActivityTaskCompletion) -> None:
        self.completion.set_result(completion)

    def record_activity_heartbeat(self, heartbeat: ActivityHeartbeat) -> None:
        self.heartbeat = list(heartbeat.details)


@dataclass
class AttemptRun:
    """One attempt while it runs, and what became of it.

    Args:
        task: What is run.
        client: The worker's client.
        interceptors: The worker's, streamq's included.
        executor: Runs functions in threads.
        watch: Makes the writers that the function gets of those that were opened.

    Attributes:
        script: What happens to it.
        sent: Returns how many chunks it has sent.
        cancelled: Why it was cancelled, if it was.
        heartbeats: What the function itself sent.
        last_heartbeat: Payloads of the last heartbeat, with those of streamq.
        error: The exception that left the function.
        completion: What the worker reported.
    """

    task: AttemptTask
    client: Client
    interceptors: Sequence[Interceptor]
    executor: ThreadPoolExecutor
    watch: Callable[[dict[str, Any]], dict[str, Any]]
    heartbeats: list[tuple[Any, ...]] = field(default_factory=list)
    last_heartbeat: Sequence[Payload] = ()
    error: BaseException | None = None
    completion: ActivityTaskCompletion = field(default_factory=ActivityTaskCompletion)
    script: Script | None = None
    sent: Callable[[], int] = lambda: 0
    cancelled: CancelReason | None = None
    _worker: _ActivityWorker | None = None

    async def run(self) -> None:
        """Run the attempt to its end.

        Raises:
            ConfigurationError: This version of the SDK runs activities in another way.
        """
        core = _Core()
        converter = self.client.data_converter.with_context(
            self.task.context(self.client.namespace)
        )
        core.give(await self.task.start(converter, self.client.namespace))
        worker = self._worker = self._made(core)
        timeout = asyncio.get_running_loop().call_later(
            self.task.start_to_close_timeout.total_seconds(), self.cancel, CancelReason.TIMED_OUT
        )
        running = asyncio.create_task(worker.run(), name="streamq-recorded-worker")
        try:
            await asyncio.wait((running, core.completion), return_when=asyncio.FIRST_COMPLETED)
            if not core.completion.done():
                await running
            self.completion = core.completion.result()
        except asyncio.CancelledError:
            self.cancel(CancelReason.WORKER_SHUTDOWN)
            raise
        finally:
            timeout.cancel()
            core.give(None)
            await asyncio.gather(running, return_exceptions=True)
            await worker.wait_all_completed()
            self.last_heartbeat = core.heartbeat

    def cancel(self, reason: CancelReason) -> None:
        """Cancel the attempt as the core does; the first reason counts."""
        worker = self._worker
        if worker is None or TOKEN not in worker._running_activities:
            return
        running = worker._running_activities[TOKEN]
        if running.done or running.cancellation_details.details is not None:
            return
        if reason is CancelReason.WORKER_SHUTDOWN:
            worker.notify_shutdown()
        self.cancelled = reason
        details = ActivityCancellationDetails(**_DETAILS[reason])
        worker._handle_cancel_activity_task(TOKEN, Cancel(details=details))

    def _made(self, core: _Core) -> _ActivityWorker:
        parts: dict[str, Any] = {
            "bridge_worker": lambda: core,
            "task_queue": TASK_QUEUE,
            "activities": [self.task.function],
            "activity_executor": self.executor,
            "shared_state_manager": None,
            "data_converter": self.client.data_converter,
            "interceptors": [*self.interceptors, _Innermost(self)],
            "metric_meter": MetricMeter.noop,
            "client": self.client,
            "encode_headers": False,
        }
        try:
            inspect.signature(_ActivityWorker).bind(**parts)
        except TypeError as exc:
            raise ConfigurationError(
                f"record() does not know how temporalio {temporalio.service.__version__} runs "
                f"activities ({exc}); take a newer streamq, or test with a real worker in "
                "temporalio.testing.WorkflowEnvironment"
            ) from exc
        return _ActivityWorker(**parts)


class _Innermost(Interceptor):
    """Stands next to the function, behind every other interceptor."""

    def __init__(self, run: AttemptRun) -> None:
        self._run = run

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Inbound(next, self._run)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, run: AttemptRun) -> None:
        super().__init__(next)
        self._run = run

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_Outbound(outbound, self._run))

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        run = self._run
        try:
            with giving_writers(run.watch(given_writers())):
                if run.script is not None:
                    run.script.begins()
                result = await super().execute_activity(input)
                if run.script is not None:
                    await run.script.returned(run.sent())
                return result
        except BaseException as exc:
            run.error = exc
            raise


class _Outbound(ActivityOutboundInterceptor):
    def __init__(self, next: ActivityOutboundInterceptor, run: AttemptRun) -> None:
        super().__init__(next)
        self._run = run

    def heartbeat(self, *details: Any) -> None:
        self._run.heartbeats.append(details)
        super().heartbeat(*details)
