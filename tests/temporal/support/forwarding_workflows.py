"""Defines workflows that call streamq's own activities; the sandbox imports them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.workflow import ActivityCancellationType

HOUR = timedelta(hours=1)


@workflow.defn
class Calls:
    """Calls one of streamq's activities, and waits until its cancellation is reported."""

    @workflow.run
    async def run(
        self, activity: str, request: Any, heartbeat_seconds: float, task_queue: str | None = None
    ) -> Any:
        return await workflow.execute_activity(
            activity,
            request,
            task_queue=task_queue,
            start_to_close_timeout=HOUR,
            heartbeat_timeout=timedelta(seconds=heartbeat_seconds),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
