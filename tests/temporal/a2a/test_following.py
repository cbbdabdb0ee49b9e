"""Follows a task from replica to replica with ``follow_task``, through connections that are cut."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from a2a.types.a2a_pb2 import StreamResponse, TaskState
from a2a.utils.errors import TaskNotFoundError
from tests.temporal.a2a.agents import gate
from tests.temporal.a2a.replicas import (
    Replica,
    Stage,
    Watcher,
    generations,
    request,
    sent,
    text_of,
)

from streamq.a2a.client import follow_task
from streamq.testing import FaultProxy


def _port(replica: Replica) -> int:
    return int(replica.url.rpartition(":")[2])


async def test_a_follower_goes_on_with_another_replica(stage: Stage) -> None:
    """A replica that dies costs a client no event; none is shown twice."""
    first, second = await stage.replica(), await stage.replica()
    async with FaultProxy("127.0.0.1", _port(first)) as proxy:
        # The card has to lead through the proxy, which leads to one replica or the other.
        seen = await stage.replica(url=f"http://{proxy.address}")
        async with seen.starter() as starter, seen.client() as client:
            task = await sent(starter, request("a b wait:one c wait:two d", at_once=True))
            watcher = Watcher(follow_task(client, task.id))
            await watcher.until(lambda seen: text_of(seen) == "a b ")
            proxy.redirect("127.0.0.1", _port(second))
            proxy.cut()
            gate("one").set()
            await watcher.until(lambda seen: text_of(seen) == "a b c ")
            proxy.refuse()
            proxy.cut()
            gate("two").set()
            await _ended(stage, task.id)
            proxy.accept()
            events = await watcher.end()
    assert text_of(events) == "a b c d "
    numbers = generations(events)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [each.HasField("task") for each in events].count(True) == 1
    assert _state(events[-1]) == TaskState.TASK_STATE_COMPLETED


async def test_a_task_that_has_ended_is_shown_as_it_is(stage: Stage) -> None:
    """Who comes late gets the result, and no error."""
    replica = await stage.replica()
    async with replica.starter() as starter, replica.client() as client:
        task = await sent(starter, request("a"))
        async with aclosing(follow_task(client, task.id)) as following:
            [event] = [each async for each in following]
        with pytest.raises(TaskNotFoundError):
            await anext(follow_task(client, "unknown"))
    assert text_of([event]) == "a "
    assert _state(event) == TaskState.TASK_STATE_COMPLETED


def _state(event: StreamResponse) -> TaskState:
    if event.HasField("task"):
        return event.task.status.state
    return event.status_update.status.state


async def _ended(stage: Stage, task_id: str) -> None:
    await stage.client.get_workflow_handle(task_id).result()
