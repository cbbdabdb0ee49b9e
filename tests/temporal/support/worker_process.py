"""Runs a worker in its own process, for tests that kill or stop it.

Usage: ``worker_process.py ADDRESS TASK_QUEUE [stops|forwards]``. The environment configures the
backend. With ``stops`` the process stops itself (SIGSTOP) right before the first attempt opens its
stream, and prints ``refused`` when the backend refuses an append. With ``forwards`` delivery
``signal`` has a heartbeat timeout of 2 seconds instead of 10, so that its death is noticed soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import FencedError, StreamWriter, open_queue
from streamq.temporal import StreamqPlugin, streaming_activity
from streamq.temporal.generic import _delivery
from streamq.testing import Call, Fault, FaultyQueue, Forward


@streaming_activity
async def count(stream: StreamWriter, chunks: int, hang_at: int, gate: str = "") -> int:
    """Send chunks and stop after some: the first attempt for ever, others until a file exists."""
    attempt = activity.info().attempt
    for i in range(chunks):
        await stream.send_chunk(f"{attempt}.{i}")
        if i + 1 == hang_at:
            await stream.flush()
            if attempt == 1:
                await asyncio.Event().wait()
            while gate and not Path(gate).exists():  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.02)
    return attempt


class Deaf(Fault):
    """Makes the call even if cancelled, as a call is that has been sent already."""

    async def apply(self, call: Call, forward: Forward) -> Any:
        making = asyncio.ensure_future(forward(call))
        while not making.done():
            with contextlib.suppress(asyncio.CancelledError, FencedError):
                await asyncio.shield(making)
        if isinstance(making.exception(), FencedError):
            sys.stdout.write("refused\n")
            sys.stdout.flush()
        return await making


class StandStill(Deaf):
    """Stops the whole process before the call is made."""

    async def apply(self, call: Call, forward: Forward) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        return await super().apply(call, forward)


async def main(address: str, task_queue: str, *, stops: bool) -> None:
    client = await Client.connect(address)
    async with await open_queue() as queue:
        faulty = FaultyQueue(queue)
        if stops:
            faulty.script("append", StandStill())
            faulty.always("append", Deaf())
        await Worker(
            client,
            task_queue=task_queue,
            activities=[count],
            # The poll of a process that stands still would swallow the next attempt.
            max_concurrent_activities=1 if stops else None,
            # Else the workflow waits 10 s for the dead worker's cache after a kill.
            sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
            plugins=[StreamqPlugin(faulty)],
        ).run()


if __name__ == "__main__":
    if "forwards" in sys.argv[3:]:
        _delivery._HEARTBEAT = timedelta(seconds=2)
    asyncio.run(main(sys.argv[1], sys.argv[2], stops="stops" in sys.argv[3:]))
