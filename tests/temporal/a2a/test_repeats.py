"""Sends the same first message again: it starts one task, and each answer names it."""

from __future__ import annotations

import asyncio

import pytest
from a2a.types.a2a_pb2 import GetTaskRequest, SendMessageRequest, TaskState
from a2a.utils.errors import InvalidParamsError
from tests.temporal.a2a.agents import Planner, Relay, gate
from tests.temporal.a2a.replicas import (
    TRANSPORTS,
    Stage,
    request,
    sent,
    streamed,
    text_of,
)


async def _workflows(stage: Stage, *ids: str) -> int:
    """Return how many workflows the task queue has, once those of these ids are visible."""
    query = f"TaskQueue = '{stage.task_queue}'"
    async with asyncio.timeout(20):
        while True:
            found = [each.id async for each in stage.client.list_workflows(query)]
            if set(ids) <= set(found):
                return len(found)
            await asyncio.sleep(0.05)


def _again(wanted: SendMessageRequest) -> SendMessageRequest:
    found = SendMessageRequest()
    found.CopyFrom(wanted)
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_same_first_message_starts_one_task(stage: Stage, transport: str) -> None:
    """A client whose answer was lost sends again, to any replica, and the work is done once."""
    both = [await stage.replica() for _ in range(2)]
    async with both[0].starter(transport) as one, both[1].starter(transport) as other:
        wanted = request("a b", context_id="talk")
        first, second = await asyncio.gather(sent(one, wanted), sent(other, _again(wanted)))
        third = await sent(one, _again(wanted))
    async with both[1].client(transport) as client:
        events = await streamed(client, _again(wanted))
    assert first.id == second.id == third.id == events[0].task.id
    assert len(events) == 1
    assert text_of(events) == "a b "
    assert third.status.state == TaskState.TASK_STATE_COMPLETED
    assert len(third.history) == 1
    assert await _workflows(stage, first.id) == 1


async def test_a_repeat_joins_the_task_that_runs(stage: Stage) -> None:
    """Whoever sends again while the task runs sees all of it, as the first one does."""
    replica = await stage.replica()
    async with replica.starter() as starter, replica.client() as client:
        wanted = request("a wait:join b", at_once=True, context_id="talk")
        task = await sent(starter, wanted)
        again = asyncio.create_task(streamed(client, _again(wanted)))
        gate("join").set()
        events = await again
    assert events[0].task.id == task.id
    assert text_of(events) == "a b "
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_repeat_of_a_message_that_was_answered_gets_the_answer(stage: Stage) -> None:
    """A question that waits, and a reply without a task, are the same answer a second time."""
    replica = await stage.replica(workflow=Planner, can_reply=True)
    async with replica.starter() as starter, replica.client() as client:
        hello, plan = request("hello", context_id="talk"), request("plan", context_id="talk")
        replies = await streamed(starter, _again(hello))
        replies += await streamed(starter, _again(hello))
        replies += await streamed(client, _again(hello))
        asked = [await sent(starter, _again(plan)) for _ in "ab"]
    assert [each.message.parts[0].text for each in replies] == ["hello yourself"] * 3
    assert len({each.message.message_id for each in replies}) == 1
    assert {each.status.state for each in asked} == {TaskState.TASK_STATE_INPUT_REQUIRED}
    assert asked[0].id == asked[1].id


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_id_with_another_content_is_refused(stage: Stage, transport: str) -> None:
    """Two messages with one id are a client's mistake: none of them is dropped silently."""
    replica = await stage.replica()
    async with replica.starter(transport) as client:
        wanted = request("a", context_id="talk")
        task = await sent(client, wanted)
        other = _again(wanted)
        other.message.parts[0].text = "b"
        with pytest.raises(InvalidParamsError, match=wanted.message.message_id):
            await sent(client, other)
        other.message.context_id = "another"
        apart = await sent(client, other)
        kept = await client.get_task(GetTaskRequest(id=task.id))
    assert apart.id != task.id
    assert kept.history[0].parts[0].text == "a"


async def test_without_a_context_each_message_starts_a_task_unless_ids_are_unique(
    stage: Stage,
) -> None:
    """A message without a context begins a conversation; an agent may trust its clients' ids."""
    usual = await stage.replica()
    strict = await stage.replica(name="strict", message_ids_are_unique=True)
    wanted = request("a")
    async with usual.starter() as one, strict.starter() as other:
        apart = [await sent(one, _again(wanted)) for _ in "ab"]
        same = [await sent(other, _again(wanted)) for _ in "ab"]
    assert apart[0].id != apart[1].id
    assert apart[0].context_id != apart[1].context_id
    assert same[0].id == same[1].id
    assert same[0].context_id == same[1].context_id


async def test_another_tenant_with_the_same_message_has_a_task_of_its_own(stage: Stage) -> None:
    """A tenant neither joins nor learns of the task that another one's message started."""
    replica = await stage.replica()
    async with replica.starter() as client:
        tasks = []
        for tenant in ("one", "two"):
            wanted = request("a", context_id="talk")
            wanted.message.message_id, wanted.tenant = "1", tenant
            tasks.append(await sent(client, wanted))
    assert tasks[0].id != tasks[1].id


async def test_a_follow_up_is_taken_once_over_all_runs_of_a_workflow(stage: Stage) -> None:
    """The answer to the first run is no answer to the question of the second one."""
    replica = await stage.replica(workflow=Relay)
    async with replica.starter() as client:
        task = await sent(client, request("go"))
        wanted = request("a", task_id=task.id)
        first = await sent(client, _again(wanted))
        second = await sent(client, _again(wanted))
    assert [each.parts[0].text for each in first.history] == ["go", "question 1", "a"]
    assert first.status.message.parts[0].text == "question 2"
    assert second == first
