"""Defines programs for Workflow Streams of the SDK, which know nothing of streamq."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.contrib.workflow_streams import (
    WorkflowStream,
    WorkflowStreamClient,
    WorkflowStreamState,
)
from temporalio.exceptions import ApplicationError

OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=20),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=3),
}


@dataclass
class Speech:
    """What an activity publishes.

    Attributes:
        words: Words, to the topic ``words``.
        way: How it makes its client.
        fail_at: For each attempt, after how many words it fails.
        target: Workflow to publish to, by default its own.
        task_queue: Where it runs, by default on the workflow's workers.
    """

    words: list[str]
    way: str = "from_within_activity"
    fail_at: list[int] = field(default_factory=list)
    target: str | None = None
    task_queue: str | None = None


def publisher(way: str, target: str | None) -> WorkflowStreamClient:
    """Return a client in one of the ways in which integrations make it."""
    options: Any = {"batch_interval": timedelta(milliseconds=5)}
    info, client = activity.info(), activity.client()
    if way == "from_within_activity":
        return WorkflowStreamClient.from_within_activity(**options)
    if way == "create":
        return WorkflowStreamClient.create(client, target or str(info.workflow_id), **options)
    handle: Any = client.get_workflow_handle(str(info.workflow_id), run_id=info.workflow_run_id)
    return WorkflowStreamClient(handle, client=client, **options)


@activity.defn
async def speak(speech: Speech) -> str:
    attempt = activity.info().attempt
    limits = [*speech.fail_at, *[len(speech.words)] * attempt]
    async with publisher(speech.way, speech.target) as stream:
        topic = stream.topic("words", type=str)
        for word in speech.words[: limits[attempt - 1]]:
            topic.publish(f"{word}{attempt}")
            await asyncio.sleep(0.001)
        if attempt <= len(speech.fail_at):
            raise ApplicationError("as the test wants")
    return " ".join(speech.words)


@workflow.defn
class Speaks:
    """Runs speeches one after the other, or all at once, and publishes what it does."""

    @workflow.init
    def __init__(self, speeches: list[Speech], at_once: bool = False, ending: str = "") -> None:
        self.stream = WorkflowStream()
        self.notes = self.stream.topic("notes", type=str)
        self.notes.publish("begins")

    @workflow.run
    async def run(self, speeches: list[Speech], at_once: bool = False, ending: str = "") -> None:
        calls: list[workflow.ActivityHandle[str]] = []
        for speech in speeches:
            if calls and not at_once:
                await calls[-1]
            call = workflow.start_activity(speak, speech, task_queue=speech.task_queue, **OPTIONS)
            calls.append(call)
        await asyncio.gather(*calls)
        self.notes.publish("ends")
        if ending == "wait":
            await workflow.wait_condition(lambda: False)
        if ending == "once" and workflow.info().attempt > 1:
            return
        if ending:
            raise ApplicationError(ending)


@workflow.defn
class Continues:
    """Continues as new twice, with what it has published and nobody sent."""

    @workflow.init
    def __init__(self, run: int, state: WorkflowStreamState | None = None) -> None:
        self.stream = WorkflowStream(prior_state=state)
        self.notes = self.stream.topic("notes", type=str)

    @workflow.run
    async def run(self, run: int, state: WorkflowStreamState | None = None) -> None:
        for number in range(3):
            self.notes.publish(f"{run}.{number}")
        if run % 2:
            await asyncio.sleep(0.001)  # so that the sending begins
        if run < 4:
            await self.stream.continue_as_new(lambda state: [run + 1, state])


@workflow.defn
class Receives:
    """Hosts a stream, until a signal ends it."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.is_over = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.is_over)

    @workflow.signal
    def end(self) -> None:
        self.is_over = True


async def poll_original(client: Client, workflow_id: str) -> list[Any]:
    """Read as programs of the SDK do, by updates of the workflow."""
    reader = WorkflowStreamClient.create(client, workflow_id)
    return [item.data async for item in reader.subscribe(["words"], result_type=str)]
