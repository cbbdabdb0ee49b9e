"""Keeps tasks of the SDK's handler in a queue: what its interface promises, on two replicas."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from a2a.server.cluster import ConcurrentTaskModificationError, StoredTask, TaskVersion
from a2a.server.tasks import TaskManager
from a2a.types.a2a_pb2 import Artifact, ListTasksRequest, Part, Task, TaskState
from a2a.utils.errors import InvalidParamsError
from tests.temporal.a2a.sdk_replicas import Side, chunk, new_task, of, said, status, two_sides

from streamq import CapabilityError, ChunkTooLargeError
from streamq.a2a.sdk import QueueTaskEventStream, QueueTaskStore
from streamq.driver import START, ChunkQueue, StreamId

ANN = of("ann")
MISSING = TaskVersion.MISSING


@pytest.fixture(params=["sqlite", "redis"])
async def sides(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Side]]:
    async with two_sides(request.param, tmp_path) as found:
        yield found


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[Side]]:
    async with two_sides("sqlite", tmp_path) as found:
        yield found


async def _stored(side: Side, task: Task) -> StoredTask:
    found = await side.store.get(task.id, ANN)
    assert found is not None
    return found


async def test_the_other_replica_reads_what_was_saved(sides: list[Side]) -> None:
    """A write that has returned is there for everybody, with the version that it returned."""
    first, second = sides
    task = new_task()
    version = await first.store.save(task, event=task, prev_version=MISSING, context=ANN)
    assert await _stored(second, task) == StoredTask(task, version)
    assert await second.store.get("unknown", ANN) is None


async def test_a_stale_version_is_refused_on_either_replica(sides: list[Side]) -> None:
    """A writer that has not seen the newest write cannot undo it."""
    first, second = sides
    task = new_task()
    old = await first.store.save(task, event=task, prev_version=MISSING, context=ANN)
    found = await _stored(second, task)
    found.task.metadata["by"] = "second"
    new = await second.store.save(found.task, prev_version=old, context=ANN)
    assert new.is_after(old)
    assert not old.is_after(new)
    for side in sides:
        for version in (old, MISSING):
            with pytest.raises(ConcurrentTaskModificationError):
                await side.store.save(task, prev_version=version, context=ANN)
    assert (await _stored(first, task)) == StoredTask(found.task, new)


async def test_of_many_writers_of_one_version_one_wins(sides: list[Side]) -> None:
    """Every version is written once, however many replicas race for it."""
    task = new_task()
    version = MISSING
    for turn in range(5):
        texts = [f"{turn}.{number}" for number in range(6)]

        async def save(text: str, at: TaskVersion, side: Side) -> tuple[str, TaskVersion] | None:
            mine = new_task()
            mine.id = task.id
            mine.metadata["by"] = text
            try:
                return text, await side.store.save(mine, prev_version=at, context=ANN)
            except ConcurrentTaskModificationError:
                return None

        tries = [save(text, version, sides[i % 2]) for i, text in enumerate(texts)]
        [(winner, version)] = [each for each in await asyncio.gather(*tries) if each]
        for side in sides:
            found = await _stored(side, task)
            assert (found.task.metadata["by"], found.version) == (winner, version)


async def test_cancelling_overwrites_a_task_that_has_not_ended(pair: list[Side]) -> None:
    """Whoever cancels needs no version; a task that has ended or is unknown is not cancelled."""
    first, second = pair
    task = new_task()
    cancelled = new_task()
    cancelled.id = task.id
    cancelled.status.state = TaskState.TASK_STATE_CANCELED
    with pytest.raises(ConcurrentTaskModificationError):
        await second.store.save(cancelled, prev_version=MISSING, context=ANN)
    version = await first.store.save(task, event=task, prev_version=MISSING, context=ANN)
    with pytest.raises(ConcurrentTaskModificationError):
        await second.store.save(cancelled, prev_version=MISSING, context=of("bob"))
    newest = await second.store.save(cancelled, prev_version=MISSING, context=ANN)
    assert newest.is_after(version)
    with pytest.raises(ConcurrentTaskModificationError):
        await first.store.save(task, prev_version=version, context=ANN)
    with pytest.raises(ConcurrentTaskModificationError):
        await first.store.save(cancelled, prev_version=newest, context=ANN)
    assert (await _stored(first, task)).task == cancelled


async def test_a_task_is_unknown_to_another_owner(pair: list[Side]) -> None:
    """Neither reading nor writing nor deleting reaches the task of somebody else."""
    first, second = pair
    task = new_task()
    version = await first.store.save(task, event=task, prev_version=MISSING, context=ANN)
    bob = of("bob")
    assert await second.store.get(task.id, bob) is None
    for at in (version, MISSING):
        with pytest.raises(ConcurrentTaskModificationError):
            await second.store.save(task, prev_version=at, context=bob)
    await second.store.delete(task.id, bob)
    assert not (await second.store.list(ListTasksRequest(), bob)).tasks
    assert (await _stored(first, task)).version == version


async def test_whatever_the_task_manager_does_is_read_by_the_other_replica(
    pair: list[Side],
) -> None:
    """Chunks, statuses, messages, and changes that no event explains: nothing is lost."""
    first, second = pair
    task = new_task()
    manager = TaskManager(first.store, ANN, task.id, task.context_id, None)
    await manager.process(task)
    for event in (
        status(task, "WORKING", "thinking"),
        chunk(task, "one", append=False),
        chunk(task, " two"),
        chunk(task, "other", append=False, artifact="b"),
        status(task, "INPUT_REQUIRED", "which?"),
    ):
        await manager.process(event)
        assert (await _stored(second, task)).task == await manager.get_task()
    current = await manager.get_task()
    assert current is not None
    await manager.process(manager.update_with_message(said("that one"), current))
    assert (await _stored(second, task)).task == current
    await manager.process(chunk(task, "anew", append=False))
    assert (await _stored(second, task)).task == current
    del current.artifacts[0]
    current.artifacts.append(Artifact(artifact_id="c", parts=[Part(text="by hand")]))
    await manager.process(status(task, "COMPLETED"))
    assert [each.artifact_id for each in current.artifacts] == ["b", "c"]
    assert (await _stored(second, task)).task == current


async def test_what_a_chunk_stores_does_not_grow_with_the_task(pair: list[Side]) -> None:
    """Each write is as small as its event, also that of a message to a large task."""
    first, _ = pair
    task = new_task()
    manager = TaskManager(first.store, ANN, task.id, task.context_id, None)
    await manager.process(task)
    await manager.process(chunk(task, "x" * 100_000, append=False))
    await manager.process(chunk(task, "little"))
    current = await manager.get_task()
    assert current is not None
    await manager.process(manager.update_with_message(said("and?"), current))
    stream = StreamId(first.settings.tenant, f"a2a-task/{task.id}")
    found = await first.queue.read(stream, START, max_records=9, max_bytes=9_000_000, max_wait=0)
    sizes = [len(each.data) for each in found]
    assert sizes[2] > 100_000
    assert max(sizes[:2] + sizes[3:]) < 1_000


async def test_a_task_that_was_deleted_does_not_come_back(pair: list[Side]) -> None:
    """A replica that still knows it neither reads it nor goes on writing it."""
    first, second = pair
    task = new_task()
    version = await first.store.save(task, event=task, prev_version=MISSING, context=ANN)
    version = await first.store.save(task, prev_version=version, context=ANN)
    await second.store.delete(task.id, ANN)
    with pytest.raises(ConcurrentTaskModificationError):
        await first.store.save(task, prev_version=version, context=ANN)
    assert await first.store.get(task.id, ANN) is None
    again = await second.store.save(task, event=task, prev_version=MISSING, context=ANN)
    assert await _stored(first, task) == StoredTask(task, again)


async def test_tasks_are_listed_by_their_last_change(pair: list[Side]) -> None:
    """Filters, pages and the order are those of the SDK's own stores."""
    first, second = pair
    tasks = [new_task(context_id=f"c{number % 2}") for number in range(5)]
    for number, task in enumerate(tasks):
        task.status.timestamp.seconds = 100 + number
        await first.store.save(task, event=task, prev_version=MISSING, context=ANN)
    stored = await _stored(first, tasks[0])
    manager = TaskManager(first.store, ANN, tasks[0].id, None, None)
    await manager.process(status(tasks[0], "COMPLETED", seconds=200))
    assert (await _stored(first, tasks[0])).version.is_after(stored.version)

    async def listed(**fields: object) -> list[int]:
        request = ListTasksRequest(**fields)  # type: ignore[arg-type]
        found = (await second.store.list(request, ANN)).tasks
        return [[each.id for each in tasks].index(task.id) for task in found]

    assert await listed() == [0, 4, 3, 2, 1]
    assert await listed(context_id="c1") == [3, 1]
    assert await listed(status=TaskState.TASK_STATE_COMPLETED) == [0]
    assert await listed(status_timestamp_after={"seconds": 103}) == [0, 4, 3]
    page = await second.store.list(ListTasksRequest(page_size=2), ANN)
    assert (page.total_size, page.page_size, len(page.tasks)) == (5, 2, 2)
    assert await listed(page_size=9, page_token=page.next_page_token) == [3, 2, 1]
    assert not (await second.store.list(ListTasksRequest(page_size=5), ANN)).next_page_token
    with pytest.raises(InvalidParamsError):
        await listed(page_token="none of ours")


async def test_a_change_that_does_not_fit_into_a_record_is_refused(queue: ChunkQueue) -> None:
    """The error has the size and the limit; the task stays as it was."""
    queue.capabilities = dataclasses.replace(queue.capabilities, max_record_bytes=5_000)
    store = QueueTaskStore(queue)
    task = new_task()
    version = await store.save(task, event=task, prev_version=MISSING, context=ANN)
    large = Task()
    large.CopyFrom(task)
    large.metadata["text"] = "x" * 6_000
    with pytest.raises(ChunkTooLargeError, match=r"takes 6\d+ bytes, .* stores 5000 at once"):
        await store.save(large, prev_version=version, context=ANN)
    assert await store.get(task.id, ANN) == StoredTask(task, version)


@pytest.mark.parametrize("lacking", ["replay", "fan_out", "ordered", "fenced"])
async def test_a_backend_that_cannot_keep_tasks_is_refused(queue: ChunkQueue, lacking: str) -> None:
    """It is refused at once, by both, with the name of what it lacks."""
    flags: dict[str, Any] = {lacking: False}
    queue.capabilities = dataclasses.replace(queue.capabilities, **flags)
    for adapter in (QueueTaskStore, QueueTaskEventStream):
        with pytest.raises(CapabilityError, match=f"does not offer {lacking}; STREAMQ_BACKEND="):
            adapter(queue)


async def test_an_encrypted_task_is_read_by_the_other_replica(tmp_path: Path) -> None:
    """With a data converter nothing readable is stored, and everything is read back."""
    converter = "tests.gateway.converters:ACME"
    async with two_sides("sqlite", tmp_path, data_converter=converter) as (first, second):
        task = new_task("a secret")
        manager = TaskManager(first.store, ANN, task.id, task.context_id, None)
        await manager.process(task)
        await manager.process(chunk(task, "another secret", append=False))
        assert (await _stored(second, task)).task == await manager.get_task()
        stored = await first.queue.read(
            StreamId(first.settings.tenant, f"a2a-task/{task.id}"),
            START,
            max_records=9,
            max_bytes=1_000_000,
            max_wait=0,
        )
    assert len(stored) == 3
    assert not any(b"secret" in each.data for each in stored)
