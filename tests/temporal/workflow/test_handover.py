"""Tests detached producers: a stream that is longer than a run of the workflow that reads it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from tests.temporal.support.following_workflows import Continues, FailsOnce, Options, State
from tests.temporal.support.reading import outline
from tests.temporal.support.waiting import reach_later_run

from streamq import Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, stream_name, streaming_activity, subscribe

Handle = WorkflowHandle[Any, Any]
starts: list[str] = []


@streaming_activity
async def count(chunks: int, pause: float, stream: StreamWriter) -> str:
    starts.append(str(activity.info().activity_id))
    for i in range(chunks):
        await stream.send_chunk(i)
        if pause:
            await asyncio.sleep(pause)
    return "counted"


@streaming_activity
async def count_for_ever(stream: StreamWriter) -> None:
    i = 0
    while True:
        await stream.send_chunk(i)
        i += 1
        await asyncio.sleep(0.01)


@streaming_activity
async def count_and_fail(stream: StreamWriter) -> None:
    for i in range(20):
        await stream.send_chunk(i)
    raise ApplicationError("broken", type="ModelError", non_retryable=True)


@streaming_activity
async def count_in_the_second_attempt(stream: StreamWriter) -> None:
    starts.append(str(activity.info().workflow_run_id))
    await stream.send_chunk(len(starts))
    if len(starts) == 1:
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
async def worker(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> AsyncIterator[Worker]:
    starts.clear()
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Continues, FailsOnce],
        activities=[count_in_the_second_attempt, count, count_for_ever, count_and_fail],
        plugins=[StreamqPlugin(queue, settings)],
    ) as running:
        yield running


Begin = Callable[..., Awaitable[Handle]]


@pytest.fixture
def begin(client: Client, task_queue: str) -> Begin:
    async def begun(activity: str, *args: Any, **options: Any) -> Handle:
        return await client.start_workflow(
            Continues.run,
            State(activity, list(args), Options(detached=True, **options)),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )

    return begun


async def reach_first_chunk(handle: Handle) -> None:
    async with asyncio.timeout(90):
        while not getattr(await handle.query(Continues.state), "next", 0):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # a query cannot be waited for


async def replay_all(client: Client, handle: Handle) -> int:
    """Replay every run of the chain and the child; return how many events the longest has."""
    run_id: str | None = handle.first_execution_run_id
    replayer = Replayer(workflows=[Continues], plugins=[StreamqPlugin()])
    longest = 0
    while run_id:
        history = await client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
        await replayer.replay_workflow(history)
        longest = max(longest, len(history.events))
        last = history.events[-1]
        attributes = last.workflow_execution_continued_as_new_event_attributes
        run_id = attributes.new_execution_run_id
    child = client.get_workflow_handle(stream_of(handle))
    await replayer.replay_workflow(await child.fetch_history())
    return longest


def stream_of(handle: Handle) -> str:
    return stream_name(handle.id, str(handle.first_execution_run_id))


@pytest.mark.parametrize("polling", ["activity", "local"])
async def test_stream_crosses_many_runs_while_its_producer_runs_once(
    client: Client, begin: Begin, polling: str
) -> None:
    """Continue-as-new in the middle of a batch must neither lose, repeat nor restart anything."""
    handle = await begin("count", 200, 0.005, polling=polling, continue_every=45)
    found = await handle.result()
    assert found == {
        "result": "counted",
        "runs": 5,
        "chunks": 200,
        "wrong": 0,
        "endings": 1,
    }
    assert len(starts) == 1
    await replay_all(client, handle)


async def test_run_ends_when_temporal_suggests_it(client: Client, begin: Begin) -> None:
    """The history stays within bounds for a stream of any length."""
    handle = await begin("count", 300, 0.005, window_ms=0, max_events=2)
    found = await handle.result()
    assert (found["chunks"], found["wrong"], found["endings"]) == (300, 0, 1)
    assert found["runs"] > 3
    assert len(starts) == 1
    assert await replay_all(client, handle) < 300


@pytest.mark.full
async def test_a_hundred_thousand_chunks_through_one_stream(begin: Begin) -> None:
    """A stream has no longest length, though every run has."""
    handle = await begin("count", 100_000, 0.0, continue_every=30_000, max_events=5_000)
    found = await handle.result()
    assert (found["chunks"], found["wrong"], found["endings"]) == (100_000, 0, 1)
    assert len(starts) == 1


async def test_failure_reaches_a_later_run(begin: Begin) -> None:
    """The producer's failure is raised as if the workflow had started it in this run."""
    handle = await begin("count_and_fail", continue_every=8)
    found = await handle.result()
    assert (found["result"], found["chunks"], found["endings"]) == ("failed: ModelError", 20, 1)


async def test_cancelling_a_later_run_stops_the_producer(
    client: Client, begin: Begin, queue: ChunkQueue, settings: Settings
) -> None:
    """The producer belongs to the chain, not to the run that started it."""
    handle = await begin("count_for_ever", continue_every=10)
    await reach_later_run(client, handle)
    await client.get_workflow_handle(handle.id).cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    async with subscribe(handle, queue=queue, settings=settings) as events:
        assert outline([event async for event in events])[-1] == "CANCELLED"
    child = client.get_workflow_handle(stream_of(handle))
    assert (await child.describe()).status.name == "CANCELED"  # type: ignore[union-attr]
    await replay_all(client, handle)


async def test_producer_of_terminated_workflow_is_cancelled(
    client: Client, begin: Begin, queue: ChunkQueue, settings: Settings
) -> None:
    """A terminated workflow cancels nothing itself, and its producer costs money."""
    handle = await begin("count_for_ever", continue_every=10)
    await reach_later_run(client, handle)
    await client.get_workflow_handle(handle.id).terminate()
    child = client.get_workflow_handle(stream_of(handle))
    async with asyncio.timeout(90):
        with pytest.raises(WorkflowFailureError):
            await child.result()
    assert (await child.describe()).status.name in ("CANCELED", "FAILED")  # type: ignore[union-attr]
    async with subscribe(handle, queue=queue, settings=settings) as events:
        assert outline([event async for event in events])[-1] == "CANCELLED"


@pytest.mark.parametrize("later", [False, True], ids=["first run", "later run"])
async def test_terminated_producer_is_noticed(client: Client, begin: Begin, later: bool) -> None:
    """A reader must not wait for chunks that will never be sent."""
    every = 10 if later else 0
    handle = await begin("count_for_ever", continue_every=every)  # polls wait for a minute
    await (reach_later_run(client, handle) if later else reach_first_chunk(handle))
    await client.get_workflow_handle(stream_of(handle)).terminate("by accident")
    async with asyncio.timeout(20):
        with pytest.raises(WorkflowFailureError):
            await handle.result()


async def test_retried_workflow_starts_its_producer_anew(
    client: Client, task_queue: str, queue: ChunkQueue, settings: Settings
) -> None:
    """A producer that a failed attempt left running must not write into the next one's stream."""
    handle = await client.start_workflow(
        FailsOnce.run,
        "count_in_the_second_attempt",
        id=f"wf-{uuid.uuid4().hex}",
        task_queue=task_queue,
        retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=2),
    )
    assert await handle.result() == [1, "RESET", 2, "END"]
    assert len(starts) == 2


async def test_reset_workflow_can_finish(client: Client, begin: Begin) -> None:
    """The repeated producer works for its result; the stream has been delivered already."""
    handle = await begin("count", 10, 0.0)
    expected = await handle.result()
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=4,
            request_id=handle.id,
            reason="test",
        )
    )
    again: Handle = client.get_workflow_handle(handle.id, run_id=answer.run_id)
    assert await again.result() == expected
    assert len(starts) == 2
