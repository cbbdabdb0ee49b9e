"""Workers and replicas that die in mid-stream: clients miss nothing and see nothing twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from a2a.types.a2a_pb2 import GetTaskRequest, TaskState
from temporalio.client import Client
from tests.temporal.a2a.agents import gate, write
from tests.temporal.a2a.replicas import Stage, generations, request, sent, streamed, text_of, watch
from tests.temporal.support.processes import Shared

_SCRIPT = Path(__file__).with_name("worker_process.py")


@pytest.fixture
async def shared_stage(client: Client, shared: Shared) -> AsyncIterator[Stage]:
    stage = Stage(client, shared.queue, shared.settings)
    yield stage
    await stage.aclose()


@contextmanager
def _worker(shared: Shared, address: str, task_queue: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | shared.environment
    with subprocess.Popen(
        [sys.executable, str(_SCRIPT), address, task_queue], env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_a_killed_worker_is_one_artifact_replaced(
    shared_stage: Stage, shared: Shared, temporal_address: str, tmp_path: Path
) -> None:
    """The log and the activity die with their worker; clients see the second attempt only."""
    stage, gate_file = shared_stage, tmp_path / "go"
    both = [await stage.replica(activity="write") for _ in range(2)]
    async with both[0].starter() as starter, both[0].client() as one, both[1].client() as other:
        with _worker(shared, temporal_address, stage.task_queue) as first:
            task = await sent(starter, request(str(gate_file), at_once=True))
            watcher = watch(one, task.id)
            await watcher.until(lambda seen: text_of(seen).endswith("1.19 "))
            first.kill()
        with _worker(shared, temporal_address, stage.task_queue):
            await watcher.until(lambda seen: text_of(seen).endswith("2.19 "))
            late = watch(other, task.id)
            await late.until(bool)
            gate_file.touch()
            seen, seen_late = await watcher.end(), await late.end()
        done = await other.get_task(GetTaskRequest(id=task.id))
    wanted = "".join(f"2.{i} " for i in range(20)) + "end"
    assert text_of(seen) == text_of(seen_late) == wanted
    assert "".join(part.text for part in done.artifacts[0].parts) == wanted
    assert len(done.artifacts) == 1
    start = generations(seen)[0]
    assert generations(seen) == list(range(start, start + len(seen)))
    assert seen[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_failed_attempt_is_replaced(stage: Stage) -> None:
    """A retry begins the artifact anew: the two attempts are never blended."""
    replica = await stage.replica()
    async with replica.client() as client:
        events = await streamed(client, request("a b fail c"))
    assert text_of(events) == "a b c "
    updates = [each.artifact_update for each in events if each.HasField("artifact_update")]
    begun = [each.append for each in updates].count(False)
    assert begun == 2
    assert {each.artifact.artifact_id for each in updates} == {"default"}


async def test_a_client_that_comes_back_to_another_replica_misses_nothing(stage: Stage) -> None:
    """A replica that dies takes nothing along: the other one goes on with the next event."""
    both = [await stage.replica(activity=write) for _ in range(2)]
    async with both[0].starter() as starter, both[0].client() as one, both[1].client() as other:
        task = await sent(starter, request("a b wait:back c", at_once=True))
        watcher = watch(one, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a b ")
        watcher.stop()
        again = watch(other, task.id)
        await again.until(bool)
        gate("back").set()
        events = await again.end()
    assert text_of(events) == "a b c "
    assert generations(events)[0] == generations(watcher.seen)[-1]


async def test_a_terminated_task_has_failed(stage: Stage) -> None:
    """No code runs when an operator terminates a workflow, and no client waits for ever."""
    replica = await stage.replica()
    async with replica.starter() as starter, replica.client() as client:
        task = await sent(starter, request("a wait:never", at_once=True))
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a ")
        await stage.client.get_workflow_handle(task.id).terminate()
        events = await watcher.end()
        found = await client.get_task(GetTaskRequest(id=task.id))
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_FAILED
    assert found.status.state == TaskState.TASK_STATE_FAILED
    assert found.artifacts[0].parts[0].text == "a "
    assert found.metadata["generation"] == generations(events)[-1]
