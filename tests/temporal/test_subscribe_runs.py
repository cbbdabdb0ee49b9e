"""Tests subscribers over the life of a workflow: before its start, each ending, and its reset."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import outline

from streamq import (
    Chunk,
    ProducerGoneError,
    Settings,
    StreamWriter,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    _workflow_runs,
    stream_name,
    streaming_activity,
    subscribe,
)

Handle = WorkflowHandle[Any, Any]


@workflow.defn
class EndsAsRequested:
    """Ends as its argument states, without ending its stream."""

    def __init__(self) -> None:
        self._fails: bool | None = None

    @workflow.signal
    def end(self, fails: bool) -> None:
        self._fails = fails

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._fails is not None)
        if self._fails:
            raise ApplicationError("as requested")


async def completes(handle: Handle) -> None:
    await handle.signal(EndsAsRequested.end, False)


async def fails(handle: Handle) -> None:
    await handle.signal(EndsAsRequested.end, True)


async def is_terminated(handle: Handle) -> None:
    await handle.terminate()


async def is_cancelled(handle: Handle) -> None:
    await handle.cancel()


async def times_out(handle: Handle) -> None:
    """Time out by itself."""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (completes, "COMPLETED"),
        (fails, "FAILED"),
        (is_terminated, "TERMINATED"),
        (is_cancelled, "CANCELED"),
        (times_out, "TIMED_OUT"),
    ],
)
async def test_workflow_that_ends_without_seal_ends_its_readers(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    end: Callable[[Handle], Awaitable[None]],
    status: str,
) -> None:
    """No seal will follow: readers learn how the workflow ended, and stop."""
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[EndsAsRequested],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        handle = await client.start_workflow(
            EndsAsRequested.run,
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            execution_timeout=timedelta(seconds=1 if status == "TIMED_OUT" else 60),
        )
        name = stream_name(handle.id, str(handle.first_execution_run_id))
        writer = await open_writer(name, queue=queue, settings=settings)
        await writer.send_chunk("half")
        await writer.aclose()
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert isinstance(await anext(events), Chunk)
            waiting = asyncio.ensure_future(anext(events))
            await end(handle)
            with pytest.raises(ProducerGoneError) as caught:
                await asyncio.wait_for(waiting, 10)
    assert caught.value.status == status


async def test_subscription_goes_on_with_the_run_that_a_reset_begins(
    run_worker: Run, start: Start, client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A reset ends the run, not the stream: readers get the second attempt, and its end."""
    runs = 0

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        nonlocal runs
        runs += 1
        await stream.send_chunk(f"run {runs}")
        if runs == 1:
            await asyncio.Event().wait()

    async with run_worker(produce):
        handle = await start("produce")
        async with subscribe(handle.id, client=client, queue=queue, settings=settings) as events:
            first = await anext(events)
            await client.workflow_service.reset_workflow_execution(
                ResetWorkflowExecutionRequest(
                    namespace=client.namespace,
                    workflow_execution=WorkflowExecution(workflow_id=handle.id),
                    workflow_task_finish_event_id=4,
                    request_id=handle.id,
                    reason="test",
                )
            )
            async with asyncio.timeout(90):
                rest = [event async for event in events]
    assert outline([first, *rest]) == ["run 1", "RESET 2", "run 2", "END"]


@streaming_activity
async def say(stream: StreamWriter, text: str) -> None:
    await stream.send_chunk(text)


@pytest.mark.parametrize("from_", ["beginning", "last", "tail"])
@pytest.mark.parametrize("by_id", [True, False], ids=["id", "handle"])
async def test_subscriber_may_come_before_its_workflow(
    run_worker: Run,
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
    from_: str,
    by_id: bool,
) -> None:
    """A page that gets the id first must not race the start, nor lose the first events."""
    workflow_id = f"wf-{uuid.uuid4().hex}"
    wanted = workflow_id if by_id else client.get_workflow_handle(workflow_id)
    was_told = asyncio.Event()
    describe_run = _workflow_runs.describe_run

    async def described(*args: Any) -> _workflow_runs.Run:
        try:
            return await describe_run(*args)
        except RPCError:
            was_told.set()
            raise

    monkeypatch.setattr(_workflow_runs, "describe_run", described)

    async def read() -> list[object]:
        subscription = subscribe(wanted, client=client, from_=from_, queue=queue, settings=settings)
        async with subscription as events:
            return outline([event async for event in events])

    async with run_worker(say):
        reading = asyncio.create_task(read())
        await was_told.wait()  # that there is no such workflow
        await client.start_workflow(
            "streamq.Stream",
            StreamRequest("say", ["early"]),
            id=workflow_id,
            task_queue=task_queue,
        )
        assert await asyncio.wait_for(reading, 20) == ["early", "END"]


async def test_id_means_the_newest_run(
    run_worker: Run,
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
) -> None:
    """Ids are used again: each chain of runs has a stream of its own, and the newest is meant."""
    workflow_id = f"wf-{uuid.uuid4().hex}"
    async with run_worker(say):
        for text in ("one", "two"):
            await client.execute_workflow(
                "streamq.Stream",
                StreamRequest("say", [text]),
                id=workflow_id,
                task_queue=task_queue,
            )
            async with subscribe(
                workflow_id, client=client, queue=queue, settings=settings
            ) as events:
                assert outline([event async for event in events]) == [text, "END"]
