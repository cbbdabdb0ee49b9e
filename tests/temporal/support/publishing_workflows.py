"""Defines workflows that publish by the names of Workflow Streams; the sandbox imports them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from streamq.temporal.workflow_streams import WorkflowStream, WorkflowStreamState


@workflow.defn
class ContinuesPublishing:
    """Continues as new while its published items are being sent."""

    @workflow.init
    def __init__(
        self, run: int = 1, noted: int = 0, state: WorkflowStreamState | None = None
    ) -> None:
        self.noted = noted
        self.stream = WorkflowStream(prior_state=state)
        self.notes = self.stream.topic("notes", type=str)

    @workflow.signal
    def note(self, text: str) -> None:
        self.noted += 1
        self.notes.publish(text)

    @workflow.run
    async def run(
        self, run: int = 1, noted: int = 0, state: WorkflowStreamState | None = None
    ) -> int:
        self.notes.publish(f"run {run}")
        if run == 1:
            await asyncio.sleep(0.001)  # so that the publishing begins
            await self.stream.continue_as_new(lambda state: [run + 1, self.noted, state])
        await workflow.wait_condition(lambda: self.noted > 1)
        return self.noted


@workflow.defn
class RetriesPublishing:
    """Fails at first; the second attempt publishes other items."""

    @workflow.init
    def __init__(self) -> None:
        self.notes = WorkflowStream().topic("notes", type=str)

    @workflow.run
    async def run(self) -> None:
        self.notes.publish(f"attempt {workflow.info().attempt}")
        if workflow.info().attempt == 1:
            raise ApplicationError("once")


@workflow.defn
class PublishesMuch:
    """Publishes one item that is too large for a payload."""

    @workflow.init
    def __init__(self) -> None:
        self.notes = WorkflowStream().topic("notes", type=str)

    @workflow.run
    async def run(self) -> None:
        self.notes.publish("x" * 1_600_000)


@workflow.defn
class HostsWithoutOption:
    """Hosts streamq's stream, as after changing the import line; its activity has the SDK's client.

    That is what integrations are.
    """

    @workflow.init
    def __init__(self, words: list[str]) -> None:
        self.notes = WorkflowStream().topic("notes", type=str)

    @workflow.run
    async def run(self, words: list[str]) -> None:
        await workflow.execute_activity(
            "speak", {"words": words}, start_to_close_timeout=timedelta(seconds=20)
        )
        self.notes.publish("over")


@workflow.defn
class TakesSignals:
    """Hosts streamq's stream, and returns what became of the batches that it got by signals."""

    @workflow.init
    def __init__(self, state: WorkflowStreamState) -> None:
        self.stream = WorkflowStream(prior_state=state)
        self.is_over = False

    @workflow.signal
    def end(self) -> None:
        self.is_over = True

    @workflow.run
    async def run(self, state: WorkflowStreamState) -> tuple[str, list[WorkflowStreamState]]:
        await workflow.wait_condition(lambda: self.is_over)
        failure = "none"
        try:
            await self.stream.flush()
        except ApplicationError as exc:
            failure = str(exc.type)
        ages = timedelta(seconds=900), timedelta()
        return failure, [self.stream.get_state(publisher_ttl=each) for each in ages]
