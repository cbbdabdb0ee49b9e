"""Tests which topic a call writes, and calls that are refused because another one writes it.

Places that share the chosen topic, and how each is checked: ``stream_activity`` with functions,
threads, generators, methods and names, attached, detached and in a task of its own,
``execute_activity``, ``start_activity``, local activities and methods, by the streams that readers
outside find under both topics. A name in the call wins. A child workflow has streams of its own, so
that the block does not change its topic. ``streamq.poll`` and ``streamq.seal`` get the whole name
of a stream, and ``WorkflowStream`` writes one log, so that neither asks for a topic.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from tests.temporal.support.reading import failure_of, outline, read_all
from tests.temporal.support.topic_workflows import (
    FUNCTIONS,
    ChoosesTopics,
    NamesTheTopic,
    Speaker,
    StartsAChild,
    TwoAtOnceOnOneTopic,
    TwoTurnsOnOneTopic,
    speak,
    speak_as_declared,
    speak_by_yielding,
    speak_in_thread,
    speak_twice,
)

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, subscribe

WORKFLOWS = [
    ChoosesTopics,
    NamesTheTopic,
    StartsAChild,
    TwoAtOnceOnOneTopic,
    TwoTurnsOnOneTopic,
]
READ_IN_WORKFLOW = [*FUNCTIONS, "detached", "task"]
AWAITED = [
    "execute_activity",
    "start_activity",
    "execute_local_activity",
    "execute_activity_method",
]


@pytest.fixture
async def worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=WORKFLOWS,
        activities=[
            speak,
            speak_twice,
            speak_as_declared,
            speak_by_yielding,
            speak_in_thread,
            Speaker().speak_by_method,
        ],
        activity_executor=ThreadPoolExecutor(4),
        plugins=[StreamqPlugin(queue, settings)],
    )


@pytest.fixture
def start(client: Client, task_queue: str) -> Any:
    async def started(workflow: Any, *args: Any) -> WorkflowHandle[Any, Any]:
        return await client.start_workflow(
            workflow.run, args=args, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )

    return started


async def test_chosen_topic_holds_for_every_way_to_call(
    worker: Worker, start: Any, queue: ChunkQueue, settings: Settings
) -> None:
    """Two turns in one workflow must not read each other's stream."""

    async def check(shape: str) -> tuple[object, object]:
        handle = await start(ChoosesTopics, shape)
        result = await asyncio.wait_for(handle.result(), 20)
        stories = []
        for turn in ("turn-1", "turn-2"):
            async with subscribe(handle, topic=turn, queue=queue, settings=settings) as events:
                stories.append(outline([event async for event in events]))
        history = await handle.fetch_history()
        await Replayer(workflows=WORKFLOWS, plugins=[StreamqPlugin()]).replay_workflow(history)
        return result, stories

    shapes = [*READ_IN_WORKFLOW, *AWAITED]
    async with worker:
        found = dict(zip(shapes, await asyncio.gather(*map(check, shapes)), strict=True))
    read = [["turn-1"], ["turn-2"]]
    stories: list[object] = [["turn-1", "END"], ["turn-2", "END"]]
    assert found == {
        **dict.fromkeys(READ_IN_WORKFLOW, (read, stories)),
        **{shape: ([None, None], stories) for shape in AWAITED},
    }


async def test_topic_of_the_call_wins(worker: Worker, start: Any) -> None:
    """An option of the call is nearer to it than the block around it."""
    async with worker:
        handle = await start(NamesTheTopic)
        assert await asyncio.wait_for(handle.result(), 15) == ["named", "text"]


async def test_a_child_workflow_has_streams_of_its_own(worker: Worker, start: Any) -> None:
    """Readers of the child look where its own request says."""
    async with worker:
        handle = await start(StartsAChild)
        found = await asyncio.wait_for(handle.result(), 15)
    child, _, topic = found["stream"].rsplit("/", 2)
    assert child != handle.id
    assert topic == "default"


async def test_refused_producer_raises_when_its_stream_is_left(
    worker: Worker, start: Any, queue: ChunkQueue, settings: Settings
) -> None:
    """The second turn would pass for the first one, and its work would be lost."""

    async def check(leaving: str, detached: bool) -> None:
        handle = await start(TwoTurnsOnOneTopic, leaving, detached)
        failure = await failure_of(handle)
        assert isinstance(failure, ApplicationError)
        assert (failure.type, failure.non_retryable) == ("SealedError", True)
        assert "stream_topic" in failure.message
        assert outline(await read_all(handle, queue, settings)) == ["turn-1", "END"]

    async with worker:
        cases = itertools.product(("read", "unread", "early"), (False, True))
        await asyncio.gather(*(check(*case) for case in cases))


async def test_refusal_that_was_caught_is_not_raised_again(worker: Worker, start: Any) -> None:
    """A workflow that has dealt with it goes on."""
    async with worker:
        handle = await start(TwoTurnsOnOneTopic, "caught", False)
        assert await asyncio.wait_for(handle.result(), 15) == "caught"


async def test_own_error_of_the_workflow_is_raised_first(worker: Worker, start: Any) -> None:
    """What leaves the block is the workflow's own error; a refusal does not replace it."""
    async with worker:
        handle = await start(TwoTurnsOnOneTopic, "own error", False)
        failure = await failure_of(handle)
    assert isinstance(failure, ApplicationError)
    # The loop has raised the refusal already, if the producer had ended by then.
    assert failure.type in ("OwnError", "SealedError")


async def test_refused_producer_does_not_end_the_stream_of_the_other_call(
    worker: Worker, start: Any, queue: ChunkQueue, settings: Settings
) -> None:
    """Of two simultaneous calls on one topic one is refused; the other one is not disturbed.

    A busy server may schedule the calls in two different milliseconds. The later one then takes the
    stream over from the earlier one, and readers get a RESET between them.
    """
    async with worker:
        handle = await start(TwoAtOnceOnOneTopic)
        found = await asyncio.wait_for(handle.result(), 15)
        story = outline(await read_all(handle, queue, settings))
    [read] = [each for each in found if isinstance(each, list)]
    assert "FencedError" in found
    winner, refused = read[-1], {"one": "two", "two": "one"}[read[-1]]
    assert (read, story) in (
        ([winner, winner], [winner, winner, "END"]),
        ([refused, winner, winner], [refused, "RESET 2", winner, winner, "END"]),
    )
