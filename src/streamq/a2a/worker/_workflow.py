"""Defines ``streamq.AgentTask``: the workflow that runs one streaming activity as an A2A task.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, VersioningBehavior
from temporalio.exceptions import FailureError

from streamq.temporal.workflow._chain import workflow_stream_name
from streamq.temporal.workflow._end_stream import end_stream

from ._input import TaskInput
from ._task import AgentTask

AGENT_WORKFLOW = "streamq.AgentTask"


@workflow.defn(name=AGENT_WORKFLOW)
class AgentTaskWorkflow:
    """Runs a streaming activity, whose stream is the task's one artifact."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self._task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> Any:
        """Run the activity, and return its result."""
        async with self._task:
            try:
                return await workflow.execute_activity(
                    request.activity,
                    args=request.args,
                    start_to_close_timeout=timedelta(seconds=request.start_to_close_seconds),
                    heartbeat_timeout=timedelta(seconds=request.heartbeat_seconds),
                    retry_policy=RetryPolicy(maximum_attempts=request.max_attempts),
                    cancellation_type=(
                        workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
                    ),
                )
            except FailureError as exc:
                reason = workflow.cancellation_reason()
                await end_stream(workflow_stream_name(), exc, cancelled=reason)
                raise


@workflow.defn(name=AGENT_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class PinnedAgentTaskWorkflow(AgentTaskWorkflow):
    """Stays with the version that began the task, as its activity does."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: TaskInput) -> Any:
        """Run as the base class does."""
        return await super().run(request)
