"""Runs a worker process: its activities record every chunk before they send it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import OnRetry, StreamWriter
from streamq.temporal import StreamqPlugin, streaming_activity

from ._consumer import Consumer
from ._ledger import Ledger
from ._schedule import HEARTBEAT_SECONDS
from ._setup import TASK_QUEUE, Setup, configure, open_patiently
from ._workload import StreamPlan, digest, make_value

_MAX_ACTIVITIES = 40
_POLLERS = 2


class Producers:
    """The activities of one worker process, and their ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @streaming_activity(on_retry=OnRetry.RESTART)
    async def restart(self, plan: dict[str, Any], stream: StreamWriter) -> int:
        """Send a different text in each attempt."""
        return await self._produce(StreamPlan(**plan), stream, f"epoch {stream.epoch}")

    @streaming_activity(on_retry=OnRetry.RESUME)
    async def resume(self, plan: dict[str, Any], stream: StreamWriter) -> int:
        """Continue where the previous attempt stopped."""
        return await self._produce(StreamPlan(**plan), stream, "all attempts")

    @streaming_activity(on_retry=OnRetry.REPLAY)
    async def replay(self, plan: dict[str, Any], stream: StreamWriter) -> int:
        """Send the same text from the beginning in each attempt."""
        return await self._produce(StreamPlan(**plan), stream, "all attempts")

    async def _produce(self, plan: StreamPlan, stream: StreamWriter, author: str) -> int:
        name, epoch, write = str(stream.stream), stream.epoch, self._ledger.write
        write(
            t="open",
            s=name,
            e=epoch,
            a=stream.attempt,
            n=stream.position,
            discards=stream.discards,
            began=activity.info().started_time.timestamp(),
        )
        for seq in range(stream.position, plan.chunks):
            value = make_value(plan, seq, author)
            write(t="send", s=name, e=epoch, n=seq, d=digest(value))
            await stream.send_chunk(value)
            if (seq + 1) % plan.flush_every == 0:
                await stream.flush()
                write(t="ack", s=name, e=epoch, n=stream.durable_position, at=time.time())
            if plan.pause_seconds:
                await asyncio.sleep(plan.pause_seconds)
        write(t="done", s=name, e=epoch)
        return plan.chunks


async def run_worker(setup: Setup, name: str) -> None:
    """Work until killed."""
    settings = configure(setup.worker_settings)
    path = setup.attempts_directory / f"{name}-{os.getpid()}-{os.urandom(3).hex()}.jsonl"
    with Ledger(path) as ledger:
        queue = await open_patiently(settings, setup.credentials_file)
        client = await Client.connect(setup.worker_temporal_addresses[name])
        producers = Producers(ledger)
        await Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=[Consumer],
            activities=[producers.restart, producers.resume, producers.replay],
            plugins=[StreamqPlugin(queue, settings)],
            max_concurrent_activities=_MAX_ACTIVITIES,
            # A poller of a paused worker holds a task until that times out.
            max_concurrent_activity_task_polls=_POLLERS,
            max_concurrent_workflow_task_polls=_POLLERS,
            max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS / 5),
            # Otherwise a workflow waits 10 s for the cache of a killed worker.
            sticky_queue_schedule_to_start_timeout=timedelta(milliseconds=200),
        ).run()


def arguments_of(plan: StreamPlan) -> list[Any]:
    """Return the arguments that the workflow passes to the activity."""
    return [asdict(plan)]
