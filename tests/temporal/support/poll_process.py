"""Runs a worker in its own process that reads streams for workflows, and may die while reading.

Usage: ``python -m tests.temporal.support.poll_process ADDRESS TASK_QUEUE [dies]``. The environment
configures the backend. With ``dies`` the process kills itself (SIGKILL) when its third poll has
received events and before Temporal has them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
)
from tests.temporal.support.following_workflows import Follows

from streamq import open_queue
from streamq.temporal import StreamqPlugin


class Dies(Interceptor):
    """Kills the process between receiving and acknowledging."""

    def __init__(self) -> None:
        self.polls = 0

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap activities."""
        outer = self

        class Dying(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                result = await super().execute_activity(input)
                outer.polls += bool(result.count)
                if outer.polls == 3:
                    sys.stdout.write(f"{result.count}\n")
                    sys.stdout.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

        return Dying(next)


async def main(address: str, task_queue: str, *, dies: bool) -> None:
    client = await Client.connect(address)
    async with await open_queue() as queue:
        await Worker(
            client,
            task_queue=task_queue,
            workflows=[Follows],
            interceptors=[Dies()] if dies else [],
            # Else the workflow waits 10 s for the dead worker's cache after a kill.
            sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
            plugins=[StreamqPlugin(queue)],
        ).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], dies="dies" in sys.argv[3:]))
