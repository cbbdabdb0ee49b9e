"""Interceptors: workflows tell their activities the first run id, workers tell them the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from streamq._settings import Settings
from streamq.driver import ChunkQueue

from ._context import ActivityContext, Origin, current
from ._names import Owner, chosen_owner, chosen_topic
from ._poll import POLL_ACTIVITY


class StreamqInterceptor(Interceptor):
    """The plugin's interceptor for both sides of a worker.

    Args:
        resources: Returns the queue and settings in use, ``None`` when no worker runs.
    """

    def __init__(self, resources: Callable[[], tuple[ChunkQueue, Settings] | None]) -> None:
        self._resources = resources

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Give activities their queue."""
        return _ActivityInbound(next, self._resources)

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """Add the origin to what workflows schedule."""
        return _WorkflowInbound


class _ActivityInbound(ActivityInboundInterceptor):
    def __init__(
        self,
        next: ActivityInboundInterceptor,
        resources: Callable[[], tuple[ChunkQueue, Settings] | None],
    ) -> None:
        super().__init__(next)
        self._resources = resources

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        resources = self._resources()
        if resources is None:
            return await super().execute_activity(input)
        queue, settings = resources
        context = ActivityContext(queue, settings, Origin.from_headers(input.headers))
        token = current.set(context)
        try:
            return await super().execute_activity(input)
        finally:
            current.reset(token)


class _WorkflowInbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound))


class _WorkflowOutbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        if input.activity != POLL_ACTIVITY:  # it asks nothing of it, and headers are history
            input.headers = _origin().to_headers(input.headers)
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        if input.activity != POLL_ACTIVITY:  # it asks nothing of it, and headers are history
            input.headers = _origin().to_headers(input.headers)
        return super().start_local_activity(input)


def workflow_retries() -> bool:
    """Whether the running workflow will be tried again if it fails; its retry policy says so."""
    info = workflow.info()
    policy = info.retry_policy
    return policy is not None and info.attempt != policy.maximum_attempts


def _origin() -> Origin:
    info = workflow.info()
    owner = chosen_owner() or Owner(
        info.workflow_id, info.first_execution_run_id, info.attempt, workflow_retries()
    )
    return Origin(
        owner.first_execution_run_id,
        owner.call or info.original_execution_run_id,
        owner.attempt,
        owner.retries,
        chosen_topic(),
        owner.workflow_id,
    )
