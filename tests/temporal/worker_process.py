"""A worker in a process of its own, for tests that kill it.

Usage: ``worker_process.py ADDRESS TASK_QUEUE``; the backend comes from the environment.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import StreamWriter
from streamq.temporal import StreamqPlugin, streaming_activity


@streaming_activity
async def count(stream: StreamWriter, chunks: int, hang_at: int) -> int:
    """Send chunks; the first attempt hangs for ever after some of them."""
    attempt = activity.info().attempt
    for i in range(chunks):
        await stream.send_chunk(f"{attempt}.{i}")
        if attempt == 1 and i + 1 == hang_at:
            await stream.flush()
            await asyncio.Event().wait()
    return attempt


async def main(address: str, task_queue: str) -> None:
    client = await Client.connect(address, plugins=[StreamqPlugin()])
    await Worker(
        client,
        task_queue=task_queue,
        activities=[count],
        # Else the workflow waits 10 s for the dead worker's cache after a kill.
        sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
    ).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
