"""Delivers events of tasks to the replicas of the SDK's handler: each once, in one order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest
from a2a.server.cluster import TaskVersion, VersionedEvent
from a2a.server.tasks import TaskManager
from a2a.types.a2a_pb2 import Task, TaskArtifactUpdateEvent
from tests.temporal.a2a.sdk_replicas import Side, chunk, new_task, of, said, status, two_sides

from streamq import ConfigurationError

ANN = of("ann")
MISSING = TaskVersion.MISSING


@pytest.fixture(params=["sqlite", "redis"])
async def sides(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Side]]:
    async with two_sides(request.param, tmp_path) as found:
        yield found


async def _events(side: Side, task: Task, after: TaskVersion, count: int) -> list[VersionedEvent]:
    found: list[VersionedEvent] = []
    async with asyncio.timeout(20), aclosing(side.events.subscribe(task.id, after=after)) as events:
        async for each in events:
            found.append(each)
            if len(found) == count:
                break
    return found


async def test_every_subscriber_gets_the_events_after_its_version_once(sides: list[Side]) -> None:
    """Those who came before the task, in the middle and on another replica see one order."""
    first, second = sides
    task = new_task()
    waiting = [asyncio.create_task(_events(side, task, MISSING, 6)) for side in sides]
    manager = TaskManager(first.store, ANN, task.id, task.context_id, None)
    await manager.process(task)
    await manager.process(status(task, "WORKING"))
    middle = await second.store.get(task.id, ANN)
    assert middle is not None
    late = asyncio.create_task(_events(second, task, middle.version, 4))
    for number in range(3):
        await manager.process(chunk(task, f"{number}", append=number > 0))
    await manager.process(status(task, "COMPLETED"))
    whole, other, rest = await asyncio.gather(*waiting, late)
    assert whole == other
    assert rest == whole[2:]
    assert [type(each.event).__name__ for each in whole] == [
        "Task",
        *["TaskStatusUpdateEvent"],
        *["TaskArtifactUpdateEvent"] * 3,
        "TaskStatusUpdateEvent",
    ]
    assert all(later.version.is_after(earlier.version) for earlier, later in pairwise(whole))
    assert whole[-1].version == manager.current_version


async def test_a_write_without_an_event_is_no_event(sides: list[Side]) -> None:
    """A direct write moves the version; subscribers go on with the next event."""
    first, second = sides
    task = new_task()
    version = await first.store.save(task, prev_version=MISSING, context=ANN)
    manager = TaskManager(first.store, ANN, task.id, task.context_id, None)
    await manager.process(chunk(task, "first", append=False))
    [event] = await _events(second, task, MISSING, 1)
    assert isinstance(event.event, TaskArtifactUpdateEvent)
    assert event.version.is_after(version)


async def test_a_task_as_an_event_is_the_whole_task(sides: list[Side]) -> None:
    """A message to a task is stored as a small change, and seen as the task that it makes."""
    first, second = sides
    task = new_task()
    manager = TaskManager(first.store, ANN, task.id, task.context_id, None)
    await manager.process(task)
    await manager.process(chunk(task, "text", append=False))
    current = await manager.get_task()
    assert current is not None
    await manager.process(manager.update_with_message(said("and?"), current))
    expected = Task()
    expected.CopyFrom(current)
    await manager.process(chunk(task, " more"))
    *_, event, _ = await _events(second, task, MISSING, 4)
    assert event.event == expected


async def test_a_version_of_another_store_is_refused(sides: list[Side]) -> None:
    """The error names what belongs together."""
    first, _ = sides
    for value in (7, "seven", "7"):
        with pytest.raises(ConfigurationError, match="use QueueTaskStore and"):
            await _events(first, new_task(), TaskVersion(value), 1)
