"""Defines a workflow as the documents of Pydantic AI have it; nothing here knows streamq."""

from __future__ import annotations

from datetime import timedelta

from pydantic_ai.durable_exec.temporal import AgentEventStream
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from tests.temporal.integrations.pydantic_agent import agent


@workflow.defn
class Assists:
    """Runs the agent; its events are published by the activity of the model and by the workflow."""

    @workflow.init
    def __init__(self, prompt: str) -> None:
        # No reader of streamq acknowledges: what it reads outlives the workflow.
        self.events = AgentEventStream(drain_timeout=timedelta(milliseconds=1))

    @workflow.run
    async def run(self, prompt: str) -> str:
        async with self.events:
            return (await agent.run(prompt)).output
