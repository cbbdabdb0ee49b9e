"""Tests sweeping with Temporal: which workflows have ended, and what follows for their streams."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    PauseWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.processes import Shared, worker
from tests.temporal.support.reading import outline

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    Event,
    Seal,
    Settings,
    StreamWriter,
    describe,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.temporal import (
    SWEEP_WORKFLOW,
    StreamqPlugin,
    SweepRequest,
    SweepSummary,
    schedule_sweep,
    stream_name,
    streaming_activity,
    subscribe,
    unschedule_sweep,
)
from streamq.temporal.sweeping._activity import sweep_queue
from streamq.temporal.sweeping._schedule import schedule_id

NOW = SweepRequest(grace_seconds=0)
Handle = WorkflowHandle[Any, Any]


def name_of(handle: Handle) -> str:
    assert handle.first_execution_run_id is not None
    return stream_name(handle.id, handle.first_execution_run_id)


async def begin(client: Client, workflow_id: str | None = None) -> Handle:
    """Start a workflow that no worker will ever run."""
    workflow_id = workflow_id or f"wf-{uuid.uuid4().hex}"
    return await client.start_workflow("Anything", id=workflow_id, task_queue="nobody")


async def abandon(queue: ChunkQueue, settings: Settings, name: str) -> None:
    """Write a stream as a worker does that is killed before it could end it."""
    # As an attempt that was scheduled long ago.
    writer = await open_writer(name, queue=queue, settings=settings, epoch=1_000_001)
    await writer.send_chunk("one")
    await writer.aclose()


async def read(queue: ChunkQueue, settings: Settings, name: str) -> list[Event]:
    async with open_reader(name, queue=queue, settings=settings) as reader:
        return [event async for event in reader]


def done(summary: SweepSummary) -> dict[str, str]:
    return {finding.stream: finding.done for finding in summary.findings}


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that Temporal does not report."""
    async with asyncio.timeout(90):
        while not (found := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def test_stream_of_terminated_workflow_is_ended(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Nothing else could end the stream, and a plain reader cannot know that."""
    handle = await begin(client)
    await abandon(queue, settings, name_of(handle))
    reading = asyncio.create_task(read(queue, settings, name_of(handle)))
    running = await sweep_queue(queue, settings, client, NOW)
    assert (running.running, running.findings) == (1, [])
    await handle.terminate()
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name_of(handle): "sealed"}
    events = await reading
    assert outline(events) == ["one", "ERROR"]
    assert isinstance(events[-1], Seal)
    assert events[-1].error_type == "ProducerGone"
    assert f"workflow {handle.id!r} ended (TERMINATED) without sealing" in events[-1].message


async def test_workflow_that_ended_a_moment_ago_is_not_swept(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Its activities may be about to seal their streams themselves, with the right ending."""
    handle = await begin(client)
    await abandon(queue, settings, name_of(handle))
    await handle.terminate()
    summary = await sweep_queue(queue, settings, client, SweepRequest())
    assert done(summary) == {name_of(handle): "kept"}
    assert "ended (TERMINATED) only" in summary.findings[0].reason


async def test_workflow_is_swept_though_its_id_is_used_again(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """The older workflow has ended though one of the same id runs."""
    older = await begin(client)
    await older.terminate()
    newer = await begin(client, older.id)
    for handle in (older, newer):
        await abandon(queue, settings, name_of(handle))
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name_of(older): "sealed"}
    assert summary.running == 1


async def test_chain_that_goes_on_has_not_ended(
    client: Client, run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Its first run is closed and the next one runs, as after continue-as-new: one stream."""
    began = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("one")
        began.set()
        await asyncio.Event().wait()

    async with run_worker(produce):
        handle = await start("produce")
        await began.wait()
    await reset(client, handle)
    first = client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    assert (await first.describe()).status is WorkflowExecutionStatus.TERMINATED
    summary = await sweep_queue(queue, settings, client, NOW)
    assert (summary.running, summary.findings) == (1, [])


async def reset(client: Client, handle: Handle) -> None:
    """Run a workflow again from the beginning."""
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=4,
            request_id=handle.id,
            reason="test",
        )
    )


async def test_paused_workflow_has_not_ended(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """It will go on; that the SDK has no name for its state must not fail the sweep."""
    handle = await begin(client)
    await abandon(queue, settings, name_of(handle))
    await client.workflow_service.pause_workflow_execution(
        PauseWorkflowExecutionRequest(
            namespace=client.namespace, workflow_id=handle.id, request_id=handle.id
        )
    )
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name_of(handle): "kept"}
    assert "neither running nor over" in summary.findings[0].reason


async def test_unknown_workflow_may_run_elsewhere(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Streams of another namespace may share the tenant; an operator has to rule that out."""
    handle = await begin(client)
    await abandon(queue, settings, name_of(handle))
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
        )
    )

    async def is_gone() -> bool:
        try:
            await handle.describe()
        except RPCError as exc:
            return exc.status is RPCStatusCode.NOT_FOUND
        return False

    await until(is_gone)
    careful = await sweep_queue(queue, settings, client, NOW)
    assert done(careful) == {name_of(handle): "kept"}
    assert "may run in another one" in careful.findings[0].reason
    bold = await sweep_queue(queue, settings, client, dataclasses.replace(NOW, unknown=True))
    assert done(bold) == {name_of(handle): "sealed"}


@pytest.mark.parametrize(
    ("address", "namespace", "words"),
    [("127.0.0.1:1", "default", "cannot ask Temporal"), (None, "wrong", "know namespace 'wrong'")],
)
async def test_without_temporal_nothing_is_ended_and_the_rest_is_done(
    temporal_address: str,
    queue: ChunkQueue,
    settings: Settings,
    address: str | None,
    namespace: str,
    words: str,
) -> None:
    """An outage, or a mistyped namespace, must not look as if no workflow existed."""
    settings = settings.model_copy(update={"retry_seconds": 0.0})
    client = await Client.connect(address or temporal_address, namespace=namespace, lazy=True)
    names = [stream_name(f"wf-{i}", str(uuid.uuid4())) for i in range(40)]
    for name in names:
        await abandon(queue, settings, name)
    gone = StreamId("any", "gone")
    await queue.append(gone, [Entry(1, 0, b"x")], ttl=timedelta(microseconds=1))
    request = dataclasses.replace(NOW, unknown=True)
    summary = await sweep_queue(queue, settings, client, request)
    assert done(summary) == dict.fromkeys(names, "kept")
    assert summary.expired == 1
    assert len(summary.problems) == 1
    assert words in summary.problems[0]


async def test_workflow_reset_after_its_stream_was_ended_still_works(
    client: Client, run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Its readers have had an ending; the workflow must get its result nevertheless."""
    began = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        await stream.send_chunk("first")
        await stream.flush()
        if not began.is_set():
            began.set()
            await asyncio.Event().wait()
        return "done"

    async with run_worker(produce):
        handle = await start("produce", heartbeat_seconds=1)
        await began.wait()
    name = name_of(handle)
    await handle.terminate()
    summary = await sweep_queue(queue, settings, client, NOW)
    assert done(summary) == {name: "sealed"}
    await reset(client, handle)
    async with run_worker(produce):
        again = client.get_workflow_handle(handle.id)
        assert (await again.result())["result"] == "done"
    assert outline(await read(queue, settings, name)) == ["first", "ERROR"]


async def test_streams_of_killed_workers_are_ended(
    shared: Shared, client: Client, temporal_address: str, task_queue: str, start: Start
) -> None:
    """kill -9 and a workflow that is given up: the purpose of the sweep, on durable backends."""
    handle = await start("count", 40, 25, heartbeat_seconds=1)
    name = name_of(handle)
    async with open_reader(name, queue=shared.queue, settings=shared.settings) as reader:
        with worker(shared, temporal_address, task_queue) as process:
            events = [await anext(reader) for _ in range(25)]
            process.kill()
            process.wait()
        await handle.terminate()
        summary = await sweep_queue(shared.queue, shared.settings, client, NOW)
        assert done(summary) == {name: "sealed"}
        events += [event async for event in reader]
    assert outline(events) == [*(f"1.{i}" for i in range(25)), "ERROR"]


@activity.defn
async def idle() -> None:
    """Do nothing, in the place of a user's activity."""


@pytest.fixture
async def sweeper(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    """Return a worker with the plugin; Temporal requires an activity besides."""
    plugin = StreamqPlugin(queue, settings)
    return Worker(client, task_queue=task_queue, activities=[idle], plugins=[plugin])


async def test_workflow_sweeps_the_queue_of_its_workers(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, sweeper: Worker
) -> None:
    """Workers have all that a sweep needs, and its summary is kept in the history."""
    handle = await begin(client)
    await abandon(queue, settings, name_of(handle))
    await handle.terminate()

    async def run(*request: object) -> SweepSummary:
        summary: SweepSummary = await client.execute_workflow(
            SWEEP_WORKFLOW,
            args=request,
            id=f"sweep-{uuid.uuid4().hex}",
            task_queue=task_queue,
            result_type=SweepSummary,
        )
        return summary

    async with sweeper:
        cautious = await run()
        assert done(cautious) == {name_of(handle): "kept"}
        summary = await run({"grace_seconds": 0})
        with pytest.raises(WorkflowFailureError) as caught:
            await run({"grace_second": 0})
        with pytest.raises(WorkflowFailureError) as senseless:
            await run({"grace_seconds": -1})
    assert done(summary) == {name_of(handle): "sealed"}
    assert isinstance(caught.value.cause, ApplicationError)
    assert "did you mean 'grace_seconds'?" in caught.value.cause.message
    assert isinstance(senseless.value.cause, ActivityError)
    assert "grace_seconds must be" in str(senseless.value.cause.cause)
    assert outline(await read(queue, settings, name_of(handle))) == ["one", "ERROR"]


async def test_schedule_repeats_the_sweep(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, sweeper: Worker
) -> None:
    """A schedule that is created again has its newest definition, and runs by itself."""
    tenant, every = f"t-{uuid.uuid4().hex[:8]}", timedelta(minutes=10)
    chosen = settings.model_copy(update={"tenant": tenant})
    handle = await begin(client)
    await abandon(queue, chosen, name_of(handle))
    await handle.terminate()
    slow = timedelta(hours=1)
    assert await schedule_sweep(client, tenant, SweepRequest(), every=slow, task_queue="wrong")
    schedule = client.get_schedule_handle(schedule_id(tenant))
    await schedule.pause(note="by hand")
    assert not await schedule_sweep(client, tenant, NOW, every=every, task_queue=task_queue)
    found = (await schedule.describe()).schedule
    assert [interval.every for interval in found.spec.intervals] == [every]
    assert found.state.paused
    assert found.state.note == "by hand"
    async with sweeper:
        await schedule.trigger()
        await until(lambda: _is_sealed(queue, chosen, name_of(handle)))
    assert await unschedule_sweep(client, tenant)
    assert not await unschedule_sweep(client, tenant)


async def _is_sealed(queue: ChunkQueue, settings: Settings, name: str) -> bool:
    return (await describe(name, queue=queue, settings=settings)).seal is not None


async def test_invalid_schedule_is_refused(client: Client) -> None:
    """A mistake is reported by the command that makes it."""
    with pytest.raises(ConfigurationError, match="too often"):
        await schedule_sweep(client, "t", NOW, every=timedelta(0), task_queue="q")
    away = await Client.connect("127.0.0.1:1", lazy=True)
    with pytest.raises(BackendUnavailableError, match="create schedule 'streamq-sweep-t'"):
        await schedule_sweep(away, "t", NOW, every=timedelta(minutes=1), task_queue="q")
    with pytest.raises(BackendUnavailableError, match="delete schedule 'streamq-sweep-t-p'"):
        await unschedule_sweep(away, "t", "p")


async def test_subscriber_sees_the_ending_of_the_sweep(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Readers that watch the workflow and readers that do not see the same ending."""
    handle = await begin(client)
    await abandon(queue, settings, name_of(handle))
    await handle.terminate()
    await sweep_queue(queue, settings, client, NOW)
    async with subscribe(handle, queue=queue, settings=settings) as events:
        assert outline([event async for event in events]) == ["one", "ERROR"]
