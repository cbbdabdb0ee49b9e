"""Defines workflows as the samples of Temporal's OpenAI Agents integration have them.

Nothing here knows streamq: the option of the plugin alone routes what they stream.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from agents import Agent, Runner
from temporalio import activity, workflow
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamState
from temporalio.openai_agents.workflow import activity_as_tool

EVENTS, ITEMS, DONE = "events", "items", "done"


@dataclass
class Item:
    kind: str
    detail: str


@dataclass
class Prompt:
    text: str
    state: WorkflowStreamState | None = None


@activity.defn
async def how_many_jokes() -> int:
    return 2


def joker() -> Agent[None]:
    tool = activity_as_tool(how_many_jokes, start_to_close_timeout=timedelta(seconds=10))
    return Agent(name="Joker", instructions="Tell jokes.", tools=[tool])


@workflow.defn
class StreamsText:
    """Streams the deltas of the model, and publishes a terminator."""

    @workflow.init
    def __init__(self, prompt: Prompt) -> None:
        self.stream = WorkflowStream(prior_state=prompt.state)
        self.done = self.stream.topic(DONE, type=bool)
        self.types: list[str] = []

    @workflow.run
    async def run(self, prompt: Prompt) -> str:
        result = Runner.run_streamed(joker(), input=prompt.text)
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                self.types.append(event.data.type)
        self.done.publish(True)
        return result.final_output_as(str)

    @workflow.query
    def event_types(self) -> list[str]:
        return self.types


@workflow.defn
class StreamsItems:
    """Publishes what the agent does, step by step, from workflow code."""

    @workflow.init
    def __init__(self, prompt: Prompt) -> None:
        self.stream = WorkflowStream(prior_state=prompt.state)
        self.items = self.stream.topic(ITEMS, type=Item)

    @workflow.run
    async def run(self, prompt: Prompt) -> str:
        result = Runner.run_streamed(joker(), input=prompt.text)
        async for event in result.stream_events():
            if event.type == "agent_updated_stream_event":
                self.items.publish(Item("agent", event.new_agent.name))
            elif event.type == "run_item_stream_event":
                self.items.publish(Item(event.item.type, ""))
        return result.final_output_as(str)


@workflow.defn
class StreamsInParallel:
    """Runs two agents at the same time, which stream to one topic."""

    @workflow.init
    def __init__(self, prompt: Prompt) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, prompt: Prompt) -> list[str]:
        async def one(name: str) -> str:
            agent = Agent[None](name=name)
            result = Runner.run_streamed(agent, input=f"{prompt.text} {name}")
            async for _ in result.stream_events():
                pass
            return result.final_output_as(str)

        return list(await asyncio.gather(one("first"), one("second")))
