"""Tests Pydantic AI's durable agents, on a model that a local server plays."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.worker import Worker
from tests.temporal.integrations.conftest import ReadTopic
from tests.temporal.integrations.fake_model import CallTool, FakeModel, Say
from tests.temporal.support.processes import Shared

from streamq import Chunk, Reset
from streamq.temporal import StreamqPlugin

pytest.importorskip("pydantic_ai", reason="install pydantic-ai-slim")

from pydantic_ai.durable_exec.temporal import AgentPlugin, PydanticAIPlugin
from tests.temporal.integrations.pydantic_agent import EVENTS, agent, client
from tests.temporal.integrations.pydantic_program import Assists

TEXT = "Why did the developer go broke?"


def deltas(events: list[Any]) -> str:
    """Return the text of the deltas."""
    text = ""
    for event in events:
        value = event.value if isinstance(event, Chunk) else {}
        if value.get("event_kind") == "part_start" and value["part"]["part_kind"] == "text":
            text += value["part"]["content"]
        elif value.get("event_kind") == "part_delta":
            text += value["delta"].get("content_delta") or ""
    return text


async def test_events_of_the_agent_arrive_and_a_retried_call_is_one_reset(
    temporal_address: str, task_queue: str, sqlite: Shared, read: ReadTopic
) -> None:
    """A tool, then an answer that breaks off and is retried."""
    replies: list[Say | CallTool] = [CallTool("how_many_jokes"), Say(TEXT, fail_after=3), Say(TEXT)]
    async with FakeModel(replies) as model:
        client.base_url = f"{model.url}/v1"
        temporal = await Client.connect(temporal_address, plugins=[PydanticAIPlugin()])
        plugin = StreamqPlugin(sqlite.queue, sqlite.settings, route_workflow_streams=True)
        async with Worker(
            temporal,
            task_queue=task_queue,
            workflows=[Assists],
            plugins=[AgentPlugin(agent), plugin],
            debug_mode=True,
        ):
            handle = await temporal.start_workflow(
                Assists.run,
                "Tell me jokes.",
                id=f"pydantic/{uuid.uuid4().hex}",
                task_queue=task_queue,
                execution_timeout=timedelta(seconds=60),
            )
            events = await read(handle, EVENTS, sqlite)
            assert await handle.result() == TEXT
        await client.close()
    [reset] = [place for place, each in enumerate(events) if isinstance(each, Reset)]
    assert deltas(events[:reset]) == "".join(Say(TEXT).deltas[:3])
    assert deltas(events[reset:]) == TEXT
    kinds = [each.value["event_kind"] for each in events[reset:] if isinstance(each, Chunk)]
    assert {"function_tool_call", "function_tool_result"} <= set(kinds)
    assert kinds[-1] == "agent_run_result"
