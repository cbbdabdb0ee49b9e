"""Defines an agent of Pydantic AI whose model is a local server."""

from __future__ import annotations

from datetime import timedelta

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.durable_exec.temporal import TemporalDurability, WorkflowStreamTopic
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from temporalio.common import RetryPolicy

EVENTS = "agent-events"

client = AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="none", max_retries=0)
agent = Agent(
    OpenAIResponsesModel("fake", provider=OpenAIProvider(openai_client=client)),
    name="joker",
    capabilities=[
        TemporalDurability(
            event_stream_topic=WorkflowStreamTopic(
                EVENTS, batch_interval=timedelta(milliseconds=10)
            ),
            activity_config={
                "start_to_close_timeout": timedelta(seconds=30),
                "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            },
        )
    ],
)


@agent.tool_plain
def how_many_jokes() -> int:
    return 2
