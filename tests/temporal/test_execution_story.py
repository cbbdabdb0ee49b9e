"""Tests the story of a workflow's stream, by its handle."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from temporalio.client import Client
from tests.temporal.support.fixture_types import Run, Start

from streamq import ConfigurationError, Settings, StreamNotFoundError, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import read_story, streaming_activity, subscribe


@dataclasses.dataclass
class Step:
    number: int


@streaming_activity
async def count_steps(stream: StreamWriter[Step], most: int) -> int:
    for number in range(most):
        await stream.send_chunk(Step(number))
    return most


async def test_story_of_a_workflow_by_its_handle(
    run_worker: Run, start: Start, client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Who has a handle need not know the name of the stream, nor how its values are encoded."""
    async with run_worker(count_steps):
        handle = await start("count_steps", 3, topic="steps")
        await handle.result()
    story = await read_story(handle, "steps", queue=queue, settings=settings, value_type=Step)
    assert story.values == [Step(0), Step(1), Step(2)]
    assert (story.state, story.attempt, story.offset) == ("END", 1, 4)
    by_id = await read_story(handle.id, "steps", client=client, queue=queue, settings=settings)
    assert by_id.values == [{"number": number} for number in range(3)]
    async with subscribe(
        handle, "steps", from_=story.cursor, queue=queue, settings=settings
    ) as events:
        assert [event.to_dict()["event"] async for event in events] == ["end"]


async def test_story_before_the_first_chunk_is_empty_on_request(
    start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A page asks right after the start of the workflow, when no activity has begun."""
    handle = await start("count_steps", 1)
    story = await read_story(handle, queue=queue, settings=settings, must_exist=False)
    assert (story.values, story.state, story.attempt) == ([], "OPEN", 0)
    with pytest.raises(StreamNotFoundError, match="must_exist=False"):
        await read_story(handle, queue=queue, settings=settings)
    await handle.terminate()


async def test_story_of_no_workflow_is_a_typed_error(client: Client, settings: Settings) -> None:
    """A mistyped id must not look like an empty answer; a name of a stream is no id."""
    handle = client.get_workflow_handle(uuid.uuid4().hex)
    with pytest.raises(StreamNotFoundError, match=handle.id):
        await read_story(handle, settings=settings, must_exist=False)
    with pytest.raises(ConfigurationError, match="client=client"):
        await read_story("chat-7/run/default", settings=settings)
