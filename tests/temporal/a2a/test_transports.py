"""The SDK's client, unchanged, over all three transports."""

from __future__ import annotations

import pytest
from a2a.types.a2a_pb2 import CancelTaskRequest, GetTaskRequest, TaskState
from tests.temporal.a2a.agents import gate
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

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


async def test_a_stream_brings_each_chunk_and_then_the_end(stage: Stage, transport: str) -> None:
    """A client sees the artifact grow: that is what the whole is for."""
    replica = await stage.replica()
    async with replica.client(transport) as client:
        events = await streamed(client, request("a b c"))
    assert events[0].task.status.state == TaskState.TASK_STATE_SUBMITTED
    assert [part.text for part in events[0].task.history[0].parts] == ["a b c"]
    assert text_of(events) == "a b c "
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    updates = [each.artifact_update for each in events if each.HasField("artifact_update")]
    assert [each.append for each in updates] == [False, True, True, True]
    assert [each.last_chunk for each in updates] == [False, False, False, True]
    assert generations(events) == list(range(len(events)))


async def test_a_blocking_request_gets_the_whole_task(stage: Stage, transport: str) -> None:
    """Clients that do not stream get everything with the answer."""
    replica = await stage.replica()
    async with replica.starter(transport) as client:
        task = await sent(client, request("a b c"))
        again = await client.get_task(GetTaskRequest(id=task.id, history_length=0))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    [artifact] = task.artifacts
    assert [part.text for part in artifact.parts] == ["a b c "]
    assert len(task.history) == 1
    assert again.artifacts == task.artifacts
    assert not again.history


async def test_a_late_subscriber_gets_a_snapshot_and_then_each_event_once(
    stage: Stage, transport: str
) -> None:
    """Who joins late misses nothing and sees nothing twice."""
    replica = await stage.replica()
    async with replica.starter(transport) as starter, replica.client(transport) as client:
        task = await sent(starter, request(f"a b wait:{transport} c", at_once=True))
        early = watch(client, task.id)
        await early.until(lambda seen: text_of(seen) == "a b ")
        late = watch(client, task.id)
        await late.until(bool)
        gate(transport).set()
        first, second = await early.end(), await late.end()
    assert text_of([second[0]]) == "a b "
    assert text_of(first) == text_of(second) == "a b c "
    assert second[1:] == first[-len(second) + 1 :]
    start = generations(second)[0]
    assert generations(second) == list(range(start, start + len(second)))


async def test_cancelling_waits_for_the_end(stage: Stage, transport: str) -> None:
    """The answer to a cancellation is the cancelled task, with what it had produced."""
    replica = await stage.replica()
    async with replica.starter(transport) as starter, replica.client(transport) as client:
        task = await sent(starter, request("a wait:never", at_once=True))
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a ")
        cancelled = await client.cancel_task(CancelTaskRequest(id=task.id))
        events = await watcher.end()
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    assert cancelled.artifacts[0].parts[0].text == "a "
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_CANCELED
