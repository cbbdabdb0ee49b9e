"""Workers and replicas that die in mid-stream: clients miss nothing and see nothing twice."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from a2a.types.a2a_pb2 import GetTaskRequest, TaskState
from temporalio.client import Client
from tests.temporal.a2a.agents import gate, write
from tests.temporal.a2a.processes import AGENT, running_worker, serving
from tests.temporal.a2a.replicas import (
    Stage,
    Watcher,
    generations,
    request,
    sdk_client,
    sent,
    streamed,
    text_of,
    watch,
)
from tests.temporal.support.processes import Shared

from streamq.a2a.client import follow_task
from streamq.testing import FaultProxy


@pytest.fixture
async def shared_stage(client: Client, shared: Shared) -> AsyncIterator[Stage]:
    stage = Stage(client, shared.queue, shared.settings)
    yield stage
    await stage.aclose()


async def test_a_killed_worker_is_one_artifact_replaced(
    shared_stage: Stage, shared: Shared, temporal_address: str, tmp_path: Path
) -> None:
    """The log and the activity die with their worker; clients see the second attempt only."""
    stage, gate_file = shared_stage, tmp_path / "go"
    both = [await stage.replica(activity="write") for _ in range(2)]
    async with both[0].starter() as starter, both[0].client() as one, both[1].client() as other:
        with running_worker(shared.environment, temporal_address, stage.task_queue) as first:
            task = await sent(starter, request(str(gate_file), at_once=True))
            watcher = watch(one, task.id)
            await watcher.until(lambda seen: text_of(seen).endswith("1.19 "))
            first.kill()
        with running_worker(shared.environment, temporal_address, stage.task_queue):
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


@pytest.mark.parametrize(
    "shared", ["sqlite", pytest.param("redis", marks=pytest.mark.full)], indirect=True
)
async def test_a_killed_replica_takes_nothing_along(
    shared_stage: Stage, shared: Shared, temporal_address: str, tmp_path: Path
) -> None:
    """A client whose replica was killed goes on with another one: each event once, none missed."""
    stage, name = shared_stage, uuid.uuid4().hex
    environment = shared.environment | {"STREAMQ_TEMPORAL_ADDRESS": temporal_address}
    async with FaultProxy("127.0.0.1", 1) as proxy:
        agent = AGENT.format(queue=stage.task_queue, host=proxy.address)
        (tmp_path / "filed.py").write_text(agent)
        replicas = [serving(tmp_path, "filed:agent", "--port", "0", **environment) for _ in "ab"]
        try:
            ports = [_port(each) for each in replicas]
            proxy.redirect("127.0.0.1", ports[0])
            agent_url = f"http://{proxy.address}"
            async with (
                stage.worker(),
                sdk_client(agent_url, streaming=False) as starter,
                sdk_client(agent_url) as client,
            ):
                task = await sent(starter, request(f"a b wait:{name} c", at_once=True))
                watcher = Watcher(follow_task(client, task.id))
                await watcher.until(lambda seen: text_of(seen) == "a b ")
                proxy.redirect("127.0.0.1", ports[1])
                replicas[0].kill()
                replicas[0].wait()
                gate(name).set()
                events = await watcher.end()
        finally:
            for each in replicas:
                each.kill()
                each.communicate()
    assert text_of(events) == "a b c "
    numbers = generations(events)
    assert numbers == sorted(set(numbers))
    assert events[-1].WhichOneof("payload") in ("task", "status_update")


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(re.findall(r":(\d+)", process.stdout.readline())[0])


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
