"""Tests Temporal's Google GenAI integration, on a model that a local server plays."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker
from tests.temporal.integrations.conftest import ReadTopic
from tests.temporal.integrations.fake_model import FakeModel, Say
from tests.temporal.support.processes import Shared

from streamq import Chunk, Reset
from streamq.temporal import StreamqPlugin

genai = pytest.importorskip("google.genai", reason="install google-genai")

from temporalio.google_genai import GoogleGenAIPlugin  # noqa: E402
from tests.temporal.integrations.genai_program import (  # noqa: E402
    GEMINI,
    HostsNothing,
    StreamsGemini,
)

TEXT = "One. Two. Three. Four."


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
async def test_chunks_arrive_and_a_retried_call_is_one_reset(
    temporal_address: str, task_queue: str, sqlite: Shared, read: ReadTopic
) -> None:
    """The sample of streamed content; the workflow without a stream still fails, as it should."""
    async with FakeModel([Say(TEXT, fail_after=2), Say(TEXT)]) as model:
        options = genai.types.HttpOptions(base_url=model.url)
        gemini = genai.Client(api_key="none", http_options=options)
        client = await Client.connect(temporal_address, plugins=[GoogleGenAIPlugin(gemini)])
        plugin = StreamqPlugin(sqlite.queue, sqlite.settings, route_workflow_streams=True)
        async with Worker(
            client,
            task_queue=task_queue,
            workflows=[StreamsGemini, HostsNothing],
            plugins=[plugin],
            debug_mode=True,
        ):
            handle = await client.start_workflow(
                StreamsGemini.run,
                "count",
                id=f"gemini/{uuid.uuid4().hex}",
                task_queue=task_queue,
                execution_timeout=timedelta(seconds=60),
            )
            events = await read(handle, GEMINI, sqlite)
            assert await handle.result() == TEXT
            with pytest.raises(WorkflowFailureError) as caught:
                await client.execute_workflow(
                    HostsNothing.run,
                    "count",
                    id=f"gemini/{uuid.uuid4().hex}",
                    task_queue=task_queue,
                    execution_timeout=timedelta(seconds=60),
                )
            assert "WorkflowStream" in str(caught.value.cause)
        await gemini.aio.aclose()
        gemini.close()
    texts = [
        each.value["candidates"][0]["content"]["parts"][0]["text"]
        if isinstance(each, Chunk)
        else "-"
        for each in events[:-1]
    ]
    assert texts == [*Say(TEXT).deltas[:2], "-", *Say(TEXT).deltas]
    assert len([each for each in events if isinstance(each, Reset)]) == 1
