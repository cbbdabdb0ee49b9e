"""Runs a worker of the agents in its own process, for tests that kill it.

Usage: ``worker_process.py ADDRESS TASK_QUEUE``. The environment configures the backend.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import StreamWriter
from streamq.a2a import AgentPlugin
from streamq.temporal import StreamqPlugin, streaming_activity


@streaming_activity(name="write")
async def write_until(stream: StreamWriter[Any], path: str) -> None:
    """Send chunks; the first attempt then hangs, the next one goes on once a file exists."""
    attempt = activity.info().attempt
    for i in range(20):
        await stream.send_chunk(f"{attempt}.{i} ")
    await stream.flush()
    while attempt == 1 or not Path(path).exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.02)
    await stream.send_chunk("end")


async def main(address: str, task_queue: str) -> None:
    client = await Client.connect(address)
    plugins = [StreamqPlugin(), AgentPlugin()]
    await Worker(
        client,
        task_queue=task_queue,
        activities=[write_until],
        plugins=plugins,
        # Else the workflow waits 10 s for the dead worker's cache after a kill.
        sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
    ).run()


asyncio.run(main(*sys.argv[1:]))
