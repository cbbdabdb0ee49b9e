"""Tests several topics of one execution in one iteration."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.workflows import TwoTopics, say

from streamq import (
    Chunk,
    ClosedError,
    ConfigurationError,
    IdleTimeoutError,
    ProducerGoneError,
    ReadFailure,
    Seal,
    Settings,
    StreamNotFoundError,
    StreamWriter,
)
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    TopicEvent,
    TopicsSubscription,
    streaming_activity,
    subscribe_topics,
)


def shown(item: TopicEvent[Any]) -> tuple[str, object]:
    """Return the topic, and the value or the kind of the event."""
    match item.event:
        case Chunk():
            return item.topic, item.event.value
        case Seal():
            return item.topic, item.event.state.name
        case ReadFailure():
            return item.topic, type(item.event.error)
        case other:
            return item.topic, type(other)


async def rest(events: TopicsSubscription[Any]) -> list[tuple[str, object]]:
    return [shown(item) async for item in events]


def of(topic: str, items: list[tuple[str, object]]) -> list[object]:
    return [what for each, what in items if each == topic]


@streaming_activity
async def answer(prompt: str, stream: StreamWriter[str], log: StreamWriter[int]) -> str:
    """Write two topics in turn: default and log."""
    for number in range(3):
        await log.send_chunk(number)
        await stream.send_chunk(prompt)
        await stream.flush()
    return prompt


@pytest.fixture
async def two_topics(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> AsyncIterator[WorkflowHandle[Any, Any]]:
    """A workflow whose turns write one topic after the other; its worker runs."""
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[TwoTopics],
        activities=[say],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        handle = await client.start_workflow(
            TwoTopics.run, task_queue, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        yield handle
        await handle.result()


async def test_topics_of_a_workflow_in_one_iteration(
    two_topics: WorkflowHandle[Any, Any], queue: ChunkQueue, settings: Settings
) -> None:
    """A page that shows a draft and the final text needs one loop, and one connection."""
    topics = ["draft", "final"]
    async with subscribe_topics(two_topics, topics, queue=queue, settings=settings) as events:
        items = await rest(events)
        assert {
            topic: stream.name.rpartition("/")[2] for topic, stream in events.streams.items()
        } == {
            "draft": "draft",
            "final": "final",
        }
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert of("draft", items) == ["draft", "END"]
    assert of("final", items) == ["final", "END"]
    assert [topic for topic, _ in items].index("draft") == 0, "as they come"


async def test_topics_of_one_activity_go_on_at_their_own_places(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A reader that reconnects misses nothing of either topic."""
    async with run_worker(answer):
        handle = await start("answer", "x")
        async with subscribe_topics(
            handle, ["default", "log"], queue=queue, settings=settings
        ) as events:
            first = [shown(await anext(events)) for _ in range(3)]
            places = events.cursors
        await handle.result()
    async with subscribe_topics(
        handle, ["default", "log"], from_=places, queue=queue, settings=settings
    ) as events:
        items = [*first, *await rest(events)]
    assert of("default", items) == ["x", "x", "x", "END"]
    assert of("log", items) == [0, 1, 2, "END"]


async def test_topic_that_nobody_writes_fails_with_the_workflow(
    two_topics: WorkflowHandle[Any, Any], queue: ChunkQueue, settings: Settings
) -> None:
    """A mistyped topic must not keep the page open for ever, nor hide the others."""
    async with subscribe_topics(
        two_topics, ["final", "fnial"], queue=queue, settings=settings
    ) as events:
        items: list[tuple[str, object]] = []
        error: Exception | None = None
        async for item in events:
            items.append(shown(item))
            if isinstance(item.event, ReadFailure):
                error = item.event.error
    assert of("final", items) == ["final", "END"]
    assert of("fnial", items) == [ProducerGoneError]
    assert isinstance(error, ProducerGoneError)
    assert error.status == "COMPLETED"
    assert "nothing was streamed under this topic" in str(error)


async def test_topic_of_a_terminated_workflow_fails(
    start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Nobody seals a stream whose workflow was terminated before its activity began."""
    handle = await start("nobody", "x")
    async with subscribe_topics(handle, ["a", "b"], queue=queue, settings=settings) as events:
        waiting = asyncio.create_task(rest(events))
        await handle.terminate()
        assert sorted(await waiting, key=str) == [
            ("a", ProducerGoneError),
            ("b", ProducerGoneError),
        ]


async def test_silent_topic_is_a_failure_of_its_own(
    start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A reader with a deadline hears which topic is silent."""
    handle = await start("nobody", "x")
    async with subscribe_topics(
        handle, ["a", "b"], idle_seconds=0.05, queue=queue, settings=settings
    ) as events:
        items = await rest(events)
    assert sorted(items, key=str) == [("a", IdleTimeoutError), ("b", IdleTimeoutError)]
    await handle.terminate()


async def test_leaving_early_leaves_no_task_behind(
    start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A browser that goes away must leave neither a long poll nor readers behind."""
    handle = await start("nobody", "x")
    before = asyncio.all_tasks()
    async with subscribe_topics(handle, ["a", "b"], queue=queue, settings=settings) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        assert len(asyncio.all_tasks()) > len(before)
    assert asyncio.all_tasks() == before
    with pytest.raises(ClosedError):
        await anext(events)
    await handle.terminate()


async def test_what_cannot_be_used_is_refused(client: Client, settings: Settings) -> None:
    """Errors come where the mistake is, before anything is connected."""
    handle = client.get_workflow_handle("no-such-workflow")
    for topics in ("draft", [], ["a/b"]):
        with pytest.raises(ConfigurationError, match="topic"):
            subscribe_topics(handle, topics)
    with pytest.raises(ConfigurationError, match="idle_seconds"):
        subscribe_topics(handle, ["a"], idle_seconds=-1)
    with pytest.raises(ClosedError, match="enter"):
        await anext(subscribe_topics(handle, ["a"]))
    with pytest.raises(StreamNotFoundError, match="no-such-workflow"):
        async with subscribe_topics(handle, ["a"], settings=settings, start_seconds=0.0):
            pass
