"""Workflows that publish, written for Workflow Streams, imported by the sandbox."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from streamq.temporal.workflow_streams import WorkflowStream, WorkflowStreamState


@workflow.defn
class ContinuesPublishing:
    """Continues as new while what it has published is on its way."""

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
    """Fails at first; what it says the second time is news."""

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
    """Publishes one item that no payload can carry."""

    @workflow.init
    def __init__(self) -> None:
        self.notes = WorkflowStream().topic("notes", type=str)

    @workflow.run
    async def run(self) -> None:
        self.notes.publish("x" * 1_600_000)
