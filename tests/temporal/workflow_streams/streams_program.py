"""A program written for Workflow Streams of the Temporal SDK; a test changes its import line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.workflow_streams import (
    WorkflowStream,
    WorkflowStreamClient,
    WorkflowStreamState,
)

RUNS, STEPS, OUTSIDE = 2, 23, 10
EXECUTIONS: list[int] = []
"""The run of each execution of the activity: a busy server may lose its end and repeat it."""


@dataclass
class Progress:
    step: int
    text: str


@dataclass
class Input:
    run: int = 1
    stream: WorkflowStreamState | None = None


@activity.defn
async def produce(run: int) -> None:
    EXECUTIONS.append(run)
    client = WorkflowStreamClient.from_within_activity(
        batch_interval=timedelta(milliseconds=20), max_batch_size=7
    )
    progress, log = client.topic("progress", type=Progress), client.topic("log")
    async with client:
        for step in range(STEPS):
            progress.publish(Progress(step, f"run {run}"), force_flush=step == 0)
            if step % 5 == 0:
                log.publish({"run": run, "step": step})
                await asyncio.sleep(0.005)
            if step == 11:
                await client.flush()


@workflow.defn
class Job:
    @workflow.init
    def __init__(self, given: Input) -> None:
        self.stream = WorkflowStream(prior_state=given.stream)
        self.status = self.stream.topic("status", type=str)
        self.is_seen = False

    @workflow.run
    async def run(self, given: Input) -> str:
        self.status.publish(f"run {given.run} begins")
        await workflow.execute_activity(
            produce, given.run, start_to_close_timeout=timedelta(seconds=10)
        )
        self.status.publish(f"run {given.run} is done")
        if given.run < RUNS:
            await self.stream.continue_as_new(lambda state: [Input(given.run + 1, state)])
        await workflow.wait_condition(lambda: self.is_seen)
        self.stream.truncate(0)
        self.status.publish("seen")
        return "over"

    @workflow.signal
    def seen(self) -> None:
        self.is_seen = True


async def announce(client: Client, workflow_id: str) -> None:
    outside = WorkflowStreamClient.create(client, workflow_id)
    async with outside:
        for number in range(OUTSIDE):
            outside.topic("outside").publish(number)
            await outside.flush()


async def follow(
    client: Client, workflow_id: str, topics: list[str] | None = None, from_offset: int = 0
) -> AsyncIterator[tuple[int, str, Any]]:
    subscriber = WorkflowStreamClient.create(client, workflow_id)
    async for item in subscriber.subscribe(topics, from_offset=from_offset):
        yield item.offset, item.topic, item.data


async def follow_progress(client: Client, workflow_id: str) -> list[Progress]:
    topic = WorkflowStreamClient.create(client, workflow_id).topic("progress", type=Progress)
    return [item.data async for item in topic.subscribe()]


async def count(client: Client, workflow_id: str) -> int:
    return await WorkflowStreamClient.create(client, workflow_id).get_offset()
