"""Tests sweeping streams of standalone activities: which have ended, and what follows for them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

from temporalio.api.workflowservice.v1 import (
    DeleteActivityExecutionRequest,
    PauseActivityExecutionRequest,
)
from temporalio.client import ActivityHandle, Client
from tests.temporal.support.fixture_types import Run
from tests.temporal.support.reading import outline, read_all
from tests.temporal.support.standalone import begin

from streamq import Seal, Settings, StreamWriter, open_reader, open_writer
from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue
from streamq.temporal import (
    SWEEP_WORKFLOW,
    SweepRequest,
    SweepSummary,
    activity_stream_name,
    stream_name,
    streaming_activity,
)
from streamq.temporal._activity_runs import activity_ending
from streamq.temporal.sweeping._activity import sweep_queue

NOW = SweepRequest(grace_seconds=0)
Handle = ActivityHandle[Any]


def name_of(handle: Handle) -> str:
    return activity_stream_name(handle.id, str(handle.run_id))


async def abandon(queue: ChunkQueue, settings: Settings, name: str) -> None:
    """Write a stream as a worker does that is killed before it could end it."""
    # As an attempt that was scheduled long ago.
    writer = await open_writer(name, queue=queue, settings=settings, epoch=1_000_001)
    await writer.send_chunk("one")
    await writer.aclose()


def done(summary: SweepSummary) -> dict[str, str]:
    return {finding.stream: finding.done for finding in summary.findings}


async def test_stream_of_ended_activity_is_ended(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Nothing else could end the stream, and a plain reader cannot know that."""
    handle = await begin(client, "nobody", "anything")
    await abandon(queue, settings, name_of(handle))
    running = await sweep_queue(queue, settings, client, NOW)
    assert (running.running, running.findings) == (1, [])
    await handle.terminate()
    only_just = await sweep_queue(queue, settings, client, SweepRequest())
    assert done(only_just) == {name_of(handle): "kept"}
    assert "ended (TERMINATED) only" in only_just.findings[0].reason
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name_of(handle): "sealed"}
    async with open_reader(name_of(handle), queue=queue, settings=settings) as reader:
        events = [event async for event in reader]
    assert outline(events) == ["one", "ERROR"]
    assert isinstance(events[-1], Seal)
    assert events[-1].error_type == "ProducerGone"
    assert f"activity {handle.id!r} ended (TERMINATED) without sealing" in events[-1].message


async def test_each_run_of_an_id_is_judged_by_itself(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """The older run has ended though one of the same id runs."""
    older = await begin(client, "nobody", "anything")
    await older.terminate()
    newer = await begin(client, "nobody", "anything", id=older.id)
    for handle in (older, newer):
        await abandon(queue, settings, name_of(handle))
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name_of(older): "sealed"}
    assert summary.running == 1
    await newer.terminate()


async def test_workflow_of_the_same_id_says_nothing_about_the_activity(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Their ids are apart: one may have ended while the other runs."""
    handle = await begin(client, "nobody", "anything")
    flow = await client.start_workflow("Anything", id=handle.id, task_queue="nobody")
    names = name_of(handle), stream_name(flow.id, str(flow.first_execution_run_id))
    for name in names:
        await abandon(queue, settings, name)
    await flow.terminate()
    assert done(await sweep_queue(queue, settings, client, NOW)) == {names[1]: "sealed"}
    await handle.terminate()
    assert done(await sweep_queue(queue, settings, client, NOW)) == {names[0]: "sealed"}


async def test_paused_activity_is_kept(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """An operator may let it run again any day."""
    handle = await begin(client, "nobody", "anything")
    await abandon(queue, settings, name_of(handle))
    await client.workflow_service.pause_activity_execution(
        PauseActivityExecutionRequest(
            namespace=client.namespace, activity_id=handle.id, run_id=str(handle.run_id)
        )
    )
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name_of(handle): "kept"}
    assert "(PAUSED)" in summary.findings[0].reason
    await handle.terminate()


async def test_unknown_activity_is_kept_unless_the_operator_says_so(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """It may be past its retention, or run in another namespace."""
    handle = await begin(client, "nobody", "anything")
    await abandon(queue, settings, name_of(handle))
    await handle.terminate()
    await client.workflow_service.delete_activity_execution(
        DeleteActivityExecutionRequest(
            namespace=client.namespace, activity_id=handle.id, run_id=str(handle.run_id)
        )
    )
    async with asyncio.timeout(90):
        while await activity_ending(client, handle.id, str(handle.run_id)) != "NOT_FOUND":  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # deletion cannot be waited for
    summary = await sweep_queue(queue, settings, client, NOW)
    assert "is not known to namespace" in summary.findings[0].reason
    assert done(summary) == {name_of(handle): "kept"}
    taken = await sweep_queue(queue, settings, client, replace(NOW, unknown=True))
    assert done(taken) == {name_of(handle): "sealed"}


async def test_server_without_standalone_activities_judges_workflows_all_the_same(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Namespaces of two servers may share a tenant; one of them is older."""
    activity_name = activity_stream_name("a", str(uuid.uuid4()))
    with TemporalDevServer(dynamic_config={"activity.enableStandalone": "false"}) as server:
        client = await Client.connect(server.address)
        flow = await client.start_workflow("Anything", id="wf", task_queue="nobody")
        flow_name = stream_name(flow.id, str(flow.first_execution_run_id))
        for name in (activity_name, flow_name):
            await abandon(queue, settings, name)
        await flow.terminate()
        summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {activity_name: "kept", flow_name: "sealed"}
    assert "runs no activities without a workflow" in summary.findings[0].reason
    assert summary.problems == []


@streaming_activity
async def late(stream: StreamWriter[str]) -> str:
    await stream.send_chunk("late")
    return "done"


async def test_attempt_after_the_sweep_takes_the_stream_over(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A sweep that is right about the past must not harm a run that continues."""
    handle = await begin(client, task_queue, late)
    await abandon(queue, settings, name_of(handle))
    await sweep_queue(queue, settings, client, NOW)
    async with run_worker(late):
        assert await handle.result() == "done"
        assert outline(await read_all(handle, queue, settings)) == ["one", "RESET 2", "late", "END"]


async def test_scheduled_sweep_knows_activities(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The workflow ``streamq.Sweep`` does what the command does."""
    handle = await begin(client, "nobody", "anything")
    await abandon(queue, settings, name_of(handle))
    await handle.terminate()
    async with run_worker():
        summary = await client.execute_workflow(
            SWEEP_WORKFLOW, {"grace_seconds": 0}, id=f"sweep-{uuid.uuid4()}", task_queue=task_queue
        )
    assert [finding["done"] for finding in summary["findings"]] == ["sealed"]
