"""Tests Temporal's LangGraph integration."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.worker import Worker
from tests.temporal.integrations.conftest import ReadTopic
from tests.temporal.support.processes import Shared

from streamq import Chunk
from streamq.temporal import StreamqPlugin

pytest.importorskip("langgraph", reason="install langgraph")

from temporalio.langgraph import LangGraphPlugin
from tests.temporal.integrations.langgraph_program import (
    PROGRESS,
    TOKENS,
    StreamsGraph,
    make_graph,
    tell,
    tell_in_a_thread,
)


@pytest.mark.parametrize("place", ["activity", "workflow"])
@pytest.mark.parametrize("node", [tell, tell_in_a_thread])
async def test_tokens_and_progress_arrive(
    client: Client, task_queue: str, sqlite: Shared, read: ReadTopic, place: str, node: Any
) -> None:
    """Nodes in activities, whose first attempt fails, and nodes in the workflow."""
    graphs = LangGraphPlugin(graphs={"story": make_graph(node, place)}, streaming_topic=TOKENS)
    plugin = StreamqPlugin(sqlite.queue, sqlite.settings, route_workflow_streams=True)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[StreamsGraph],
        plugins=[graphs, plugin],
        debug_mode=True,
    ):
        handle = await client.start_workflow(
            StreamsGraph.run,
            "> ",
            id=f"graph/{uuid.uuid4().hex}",
            task_queue=task_queue,
            execution_timeout=timedelta(seconds=30),
        )
        tokens = await read(handle, TOKENS, sqlite)
        progress = await read(handle, PROGRESS, sqlite)
        await handle.result()
    found = [each.value["token"] if isinstance(each, Chunk) else "-" for each in tokens[:-1]]
    assert found == (["a", "b", "-", "a", "b", "c"] if place == "activity" else ["a", "b", "c"])
    assert [each.value for each in progress[:-1]] == [{"tell": {"text": "> abc"}}]
