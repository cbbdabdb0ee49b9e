"""Workflows that ask, report, reply and reject, through two replicas that share nothing."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from a2a.types.a2a_pb2 import GetTaskRequest, TaskState
from google.protobuf.json_format import MessageToDict
from tests.temporal.a2a.agents import Pair, Planner, Quiz, gate, write_values
from tests.temporal.a2a.replicas import (
    TRANSPORTS,
    Stage,
    generations,
    request,
    sent,
    streamed,
    text_of,
    watch,
)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_task_asks_and_goes_on_with_the_answer(stage: Stage, transport: str) -> None:
    """A question ends the request, and the follow-up message continues the same task."""
    replica = await stage.replica(workflow=Planner)
    async with replica.starter(transport) as client:
        asked = await sent(client, request("plan"))
        done = await sent(client, request("Friday", task_id=asked.id))
    assert asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    assert asked.status.message.parts[0].text == "On which day?"
    assert done.id == asked.id
    assert done.status.state == TaskState.TASK_STATE_COMPLETED
    summed, artifact = done.artifacts
    assert (summed.artifact_id, summed.name, summed.metadata["of"]) == ("sum", "Sum", "two")
    assert [part.WhichOneof("content") for part in summed.parts] == ["text", "data"]
    assert (artifact.artifact_id, artifact.name) == ("answer", "Answer")
    assert artifact.metadata["day"] == "Friday"
    assert artifact.parts[0].text == "Friday"
    said = [each.parts[0].text for each in done.history]
    assert said == ["plan", "thinking", "On which day?", "Friday"]


@pytest.mark.parametrize(
    "replicas", list(itertools.product((0, 1), repeat=2)), ids=lambda each: f"{each[0]}{each[1]}"
)
async def test_a_subscriber_of_one_replica_sees_a_follow_up_to_another(
    stage: Stage, replicas: tuple[int, int]
) -> None:
    """It does not matter which replica a request reaches: none of them owns a task."""
    both = [await stage.replica(workflow=Planner) for _ in range(2)]
    watched, told = (both[each] for each in replicas)
    async with watched.client() as watching, told.starter() as client:
        task = await sent(client, request("plan"))
        watcher = watch(watching, task.id)
        await watcher.until(bool)
        done = await sent(client, request("Friday", task_id=task.id))
        seen = await watcher.end()
    assert done.status.state == TaskState.TASK_STATE_COMPLETED
    assert text_of(seen, "answer") == "Friday"
    assert seen[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    first = generations(seen)[0]
    assert generations(seen) == list(range(first, first + len(seen)))


async def test_a_stream_ends_where_the_task_waits_for_its_client(stage: Stage) -> None:
    """A client that streams gets its turn back, and streams the rest with its answer."""
    replica = await stage.replica(workflow=Planner)
    async with replica.client() as client:
        first = await streamed(client, request("authenticate"))
        task = first[0].task
        second = await streamed(client, request("done", task_id=task.id))
    state = first[-1].status_update.status.state
    assert state == TaskState.TASK_STATE_AUTH_REQUIRED
    assert second[0].task.id == task.id
    assert second[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert text_of(second, "answer") == "done"


async def test_an_agent_may_reply_without_a_task(stage: Stage) -> None:
    """Small talk needs no task, and leaves none behind."""
    replica = await stage.replica(workflow=Planner, can_reply=True)
    async with replica.client() as client, replica.starter() as starter:
        [streamed_one] = await streamed(client, request("hello"))
        [sent_one] = await streamed(starter, request("hello", at_once=True))
    for each in (streamed_one, sent_one):
        assert each.message.parts[0].text == "hello yourself"


async def test_an_agent_that_may_reply_may_begin_a_task(stage: Stage) -> None:
    """A stream begins with the task as it was before its first event, also if that is late."""
    replica = await stage.replica(workflow=Planner, can_reply=True)
    async with replica.client() as client:
        events = await streamed(client, request("plan"))
    assert events[0].task.status.state == TaskState.TASK_STATE_SUBMITTED
    assert generations(events) == list(range(len(events)))


async def test_an_agent_may_reject_a_task(stage: Stage) -> None:
    """A rejection is an ending of its own, with a text for the client."""
    replica = await stage.replica(workflow=Planner)
    async with replica.starter() as client:
        task = await sent(client, request("reject"))
    assert task.status.state == TaskState.TASK_STATE_REJECTED
    assert task.status.message.parts[0].text == "not today"


async def test_two_artifacts_grow_at_once_in_one_order(stage: Stage) -> None:
    """Every client of every replica sees the events of both activities in the same order."""
    both = [await stage.replica(workflow=Pair) for _ in range(2)]
    async with both[0].starter() as client, both[0].client() as one, both[1].client() as other:
        task = await sent(client, request("a wait:pair b c d", at_once=True))
        watchers = [watch(each, task.id) for each in (one, other)]
        for each in watchers:
            await each.until(lambda seen: text_of(seen, "left") == text_of(seen, "right") == "a ")
        gate("pair").set()
        first, second = [await each.end() for each in watchers]
    shared = min(len(first), len(second)) - 1
    assert first[-shared:] == second[-shared:]
    assert text_of(first, "left") == text_of(first, "right") == "a b c d "


async def test_an_activity_sends_every_kind_of_part(stage: Stage) -> None:
    """Text, JSON, bytes and references arrive as what A2A has for them."""
    replica = await stage.replica(activity=write_values)
    async with replica.starter() as client:
        task = await sent(client, request("go"))
        again = await client.get_task(GetTaskRequest(id=task.id))
    [artifact] = task.artifacts
    assert artifact.name == "All"
    assert artifact.metadata["page"] == 1
    text, data, raw, file, content, unmarked = artifact.parts[:6]
    assert text.text == "text"
    assert MessageToDict(data.data) == {"rows": [1, 2.5, None]}
    assert raw.raw == b"\x00\xff"
    assert (file.url, file.media_type, file.filename) == (
        "https://example.org/a.bin",
        "image/png",
        "a.png",
    )
    assert (content.raw, content.media_type, content.filename) == (b"1,2", "text/csv", "a.csv")
    assert MessageToDict(unmarked.data) == {"streamq_a2a": "unknown"}
    assert [each.parts[0].text for each in task.history] == ["go", "looking"]
    assert again == task


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_answer_that_leads_to_the_next_question_returns_with_it(
    stage: Stage, transport: str
) -> None:
    """The next question may be in the log before the replica looks: it is the answer as well."""
    replica = await stage.replica(workflow=Quiz)
    async with replica.starter(transport) as client:
        task = await sent(client, request("go"))
        asked = [task.status.message.parts[0].text]
        while task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED:
            async with asyncio.timeout(20):
                task = await sent(client, request("next", task_id=task.id))
            asked += [part.text for part in task.status.message.parts]
    assert asked == [f"question {number}" for number in range(4)]
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
