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

from temporalio.client import (
    Client,
    CompleteAsyncActivityInput,
    Interceptor,
    OutboundInterceptor,
)
from temporalio.worker import Worker
from tests.temporal.support.following_workflows import Follows

from streamq import open_queue
from streamq.temporal import StreamqPlugin


class Dies(Interceptor):
    """Kills the process between receiving and acknowledging."""

    def __init__(self) -> None:
        self.polls = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Wrap the call by which a poll that waited outside of its slot completes."""
        outer = self

        class Dying(OutboundInterceptor):
            async def complete_async_activity(self, input: CompleteAsyncActivityInput) -> None:
                result: Any = input.result
                outer.polls += bool(result.count)
                if outer.polls == 3:
                    sys.stdout.write(f"{result.count}\n")
                    sys.stdout.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                await super().complete_async_activity(input)

        return Dying(next)


async def main(address: str, task_queue: str, *, dies: bool) -> None:
    client = await Client.connect(address, interceptors=[Dies()] if dies else [])
    async with await open_queue() as queue:
        await Worker(
            client,
            task_queue=task_queue,
            workflows=[Follows],
            # Else the workflow waits 10 s for the dead worker's cache after a kill.
            sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
            plugins=[StreamqPlugin(queue)],
        ).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], dies="dies" in sys.argv[3:]))
