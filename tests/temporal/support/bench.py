"""Runs one producer under a workflow that outlives it, and compares its stream with Temporal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from tests.temporal.support.following_workflows import Follows
from tests.temporal.support.surviving_workflow import Call, Outcome, Survives

from streamq import Event, Settings
from streamq.driver import ChunkQueue
from streamq.temporal import DEFAULT_TOPIC, StreamqPlugin, subscribe


class Bench:
    """Runs a worker with one activity, starts workflows that call it, and reads their streams."""

    def __init__(
        self, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
    ) -> None:
        self.client, self.queue, self.settings = client, queue, settings
        self.task_queue = task_queue
        self.pool = ThreadPoolExecutor(40)

    def worker(self, function: Callable[..., Any], **options: Any) -> Worker:
        return Worker(
            self.client,
            task_queue=self.task_queue,
            workflows=[Survives, Follows],
            activities=[function],
            activity_executor=self.pool,
            plugins=[StreamqPlugin(self.queue, self.settings)],
            **options,
        )

    async def start(self, argument: str = "", **options: Any) -> WorkflowHandle[Any, Outcome]:
        return await self.client.start_workflow(
            Survives.run,
            Call("produce", argument, **options),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=self.task_queue,
        )

    async def story(
        self, handle: WorkflowHandle[Any, Any], topic: str = DEFAULT_TOPIC
    ) -> list[Event]:
        queue, settings = self.queue, self.settings
        reading = subscribe(handle, queue=queue, settings=settings, topic=topic, idle_seconds=15)
        async with reading as events:
            return [event async for event in events]

    async def ending(self, handle: WorkflowHandle[Any, Outcome]) -> tuple[list[Event], Outcome]:
        """Return what readers got and what Temporal recorded, while the workflow goes on."""
        events = await self.story(handle)
        async with asyncio.timeout(90):
            outcome = await handle.execute_update(Survives.outcome)
        await handle.signal(Survives.end)
        return events, outcome
