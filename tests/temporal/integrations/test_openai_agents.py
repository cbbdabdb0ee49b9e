"""Tests Temporal's OpenAI Agents integration, on a model that a local server plays.

The cases are those of the integration's own streaming tests and samples. The workflows are as the
samples have them, in ``openai_programs.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.temporal.integrations.conftest import ReadTopic
from tests.temporal.integrations.fake_model import CallTool, FakeModel, Say
from tests.temporal.support.processes import Shared

from streamq import Chunk, Reset, Seal
from streamq.temporal import StreamqPlugin
from streamq.temporal.workflow_streams import WorkflowStreamClient

agents = pytest.importorskip("agents", reason="make test-full installs openai-agents")
openai = pytest.importorskip("openai")

from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel  # noqa: E402
from agents.items import TResponseStreamEvent  # noqa: E402
from agents.models.interface import Model, ModelProvider  # noqa: E402
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle  # noqa: E402
from temporalio.common import RawValue, RetryPolicy  # noqa: E402
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin  # noqa: E402
from temporalio.worker import Worker  # noqa: E402
from tests.temporal.integrations.openai_programs import (  # noqa: E402
    DONE,
    EVENTS,
    ITEMS,
    Prompt,
    StreamsInParallel,
    StreamsItems,
    StreamsText,
    how_many_jokes,
)

JOKES = "Why did the developer go broke? He used up all his cache."


class Local(ModelProvider):
    """Provides the model that the local server plays."""

    def __init__(self, url: str, kind: Any) -> None:
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self._kind = kind

    def get_model(self, model_name: str | None) -> Model:
        return self._kind("fake", self.client)  # type: ignore[no-any-return]


@asynccontextmanager
async def worker(
    address: str,
    task_queue: str,
    shared: Shared,
    url: str,
    *,
    routes: bool = True,
    kind: Any = OpenAIResponsesModel,
    **parameters: Any,
) -> AsyncIterator[Client]:
    """Run a worker as the samples do, with streamq's plugin beside the integration's."""
    parameters = {
        "streaming_topic": EVENTS,
        "start_to_close_timeout": timedelta(seconds=30),
        "heartbeat_timeout": timedelta(seconds=10),
        "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        "streaming_batch_interval": timedelta(milliseconds=10),
        **parameters,
    }
    provider = Local(url, kind)
    plugin = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(**parameters), model_provider=provider
    )
    client = await Client.connect(address, plugins=[plugin])
    async with (
        provider.client,
        Worker(
            client,
            task_queue=task_queue,
            workflows=[StreamsText, StreamsItems, StreamsInParallel],
            activities=[how_many_jokes],
            # The first decoding of an event builds pydantic's schema of all of them, for seconds.
            debug_mode=True,
            plugins=[StreamqPlugin(shared.queue, shared.settings, route_workflow_streams=routes)],
        ),
    ):
        yield client


async def start(client: Client, run: Any, task_queue: str) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        run,
        Prompt("Tell me jokes."),
        id=f"agents/{uuid.uuid4().hex}",
        task_queue=task_queue,
        execution_timeout=timedelta(seconds=60),
    )


def deltas(events: list[Any]) -> list[str]:
    values = [event.value for event in events if isinstance(event, Chunk)]
    return [each["delta"] for each in values if each["type"] == "response.output_text.delta"]


async def test_every_delta_arrives(
    temporal_address: str, task_queue: str, shared: Shared, read: ReadTopic
) -> None:
    """The sample of streamed text, with the option alone; the workflow sees the same events."""
    async with (
        FakeModel([Say(JOKES)]) as model,
        worker(temporal_address, task_queue, shared, model.url) as client,
    ):
        handle = await start(client, StreamsText.run, task_queue)
        events = await read(handle, EVENTS, shared)
        assert await handle.result() == JOKES
        assert deltas(events) == Say(JOKES).deltas
        assert isinstance(events[-1], Seal)
        assert not [each for each in events if isinstance(each, Reset)]
        types = [each.value["type"] for each in events[:-1]]
        assert await handle.query(StreamsText.event_types) == types
        done = await read(handle, DONE, shared)
        assert [event.value for event in done[:-1]] == [True]


async def test_retried_model_call_is_one_reset(
    temporal_address: str, task_queue: str, shared: Shared, read: ReadTopic
) -> None:
    """The second turn fails after four deltas: what readers keep is what the workflow got."""
    replies: list[Say | CallTool] = [
        CallTool("how_many_jokes"),
        Say(JOKES, fail_after=4),
        Say(JOKES),
    ]
    async with (
        FakeModel(replies) as model,
        worker(temporal_address, task_queue, shared, model.url) as client,
    ):
        handle = await start(client, StreamsText.run, task_queue)
        events = await read(handle, EVENTS, shared)
        assert await handle.result() == JOKES
        resets = [place for place, each in enumerate(events) if isinstance(each, Reset)]
        assert len(resets) == 1
        assert deltas(events[: resets[0]]) == Say(JOKES).deltas[:4]
        final = events[resets[0] :]
        assert deltas(final) == Say(JOKES).deltas
        # The first turn is a part of the story, which begins anew at the reset.
        types = [each.value["type"] for each in final if isinstance(each, Chunk)]
        assert await handle.query(StreamsText.event_types) == types


async def test_items_of_the_workflow_arrive(
    temporal_address: str, task_queue: str, sqlite: Shared, read: ReadTopic
) -> None:
    """The sample of agent-level events, which workflow code publishes."""
    async with (
        FakeModel([CallTool("how_many_jokes"), Say(JOKES)]) as model,
        worker(temporal_address, task_queue, sqlite, model.url) as client,
    ):
        handle = await start(client, StreamsItems.run, task_queue)
        events = await read(handle, ITEMS, sqlite)
        assert await handle.result() == JOKES
        kinds = [event.value["kind"] for event in events if isinstance(event, Chunk)]
        assert kinds == ["agent", "tool_call_item", "tool_call_output_item", "message_output_item"]
        assert deltas(await read(handle, EVENTS, sqlite)) == Say(JOKES).deltas


@pytest.mark.full
async def test_deltas_of_chat_completions_arrive(
    temporal_address: str, task_queue: str, sqlite: Shared, read: ReadTopic
) -> None:
    """OpenAI's older protocol, which most other servers speak."""
    kind = OpenAIChatCompletionsModel
    async with (
        FakeModel([Say(JOKES)]) as model,
        worker(temporal_address, task_queue, sqlite, model.url, kind=kind) as client,
    ):
        handle = await start(client, StreamsText.run, task_queue)
        assert deltas(await read(handle, EVENTS, sqlite)) == Say(JOKES).deltas
        assert await handle.result() == JOKES


@pytest.mark.full
async def test_two_agents_share_a_topic(
    temporal_address: str, task_queue: str, sqlite: Shared, read: ReadTopic
) -> None:
    """Two calls at the same time, one of which is retried: nothing of the other is lost."""
    replies: list[Say | CallTool] = [Say("a b c d"), Say("a b c d", fail_after=2), Say("a b c d")]
    async with (
        FakeModel(replies) as model,
        worker(temporal_address, task_queue, sqlite, model.url) as client,
    ):
        handle = await start(client, StreamsInParallel.run, task_queue)
        events = await read(handle, EVENTS, sqlite)
        assert await handle.result() == ["a b c d"] * 2
        reset = next(place for place, each in enumerate(events) if isinstance(each, Reset))
        assert sorted(deltas(events[reset:])) == sorted(2 * Say("a b c d").deltas)


async def test_readers_of_workflow_streams_get_the_same(
    temporal_address: str, task_queue: str, sqlite: Shared, read: ReadTopic
) -> None:
    """The sample's reader, with the import line changed: several topics in one order."""
    async with (
        FakeModel([Say(JOKES, fail_after=4), Say(JOKES)]) as model,
        worker(temporal_address, task_queue, sqlite, model.url) as client,
    ):
        handle = await start(client, StreamsText.run, task_queue)
        reader = WorkflowStreamClient.create(
            client, handle.id, queue=sqlite.queue, settings=sqlite.settings
        )
        converter = client.data_converter.payload_converter
        found: list[str] = []
        async for item in reader.subscribe([EVENTS, DONE], result_type=RawValue):
            if item.topic == DONE:
                break
            kind: Any = TResponseStreamEvent
            event = converter.from_payload(item.data.payload, kind)
            if event.type == "response.output_text.delta":
                found.append(event.delta)
        assert found == Say(JOKES).deltas[:4] + Say(JOKES).deltas
        assert await handle.result() == JOKES


@pytest.mark.parametrize(
    ("option", "value"), [("streaming_topic", None), ("use_local_activity", True)]
)
async def test_what_the_integration_cannot_stream_fails(
    temporal_address: str, task_queue: str, sqlite: Shared, option: str, value: Any
) -> None:
    """As the integration has it: streaming needs a topic, and local activities do not stream."""
    async with (
        FakeModel([]) as model,
        worker(temporal_address, task_queue, sqlite, model.url, **{option: value}) as client,
    ):
        handle = await start(client, StreamsText.run, task_queue)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert option in str(caught.value.cause)


async def test_worker_without_the_option_warns(
    temporal_address: str,
    task_queue: str,
    sqlite: Shared,
    read: ReadTopic,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Users who install both expect that they work together."""
    async with (
        FakeModel([]) as model,
        worker(temporal_address, task_queue, sqlite, model.url, routes=False),
    ):
        pass
    [record] = [each for each in caplog.records if each.name == "streamq.temporal"]
    assert "OpenAI Agents (temporalio-openai-agents 1." in record.message
    assert "StreamqPlugin(route_workflow_streams=True)" in record.message
