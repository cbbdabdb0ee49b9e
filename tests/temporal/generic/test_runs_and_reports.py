"""The generic workflow over several runs, and what it reports."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import SOON, outline, read_all
from tests.temporal.support.receiving_workflows import Observer
from tests.temporal.support.waiting import wait_progress

from streamq import Chunk, Settings, StreamWriter, open_reader
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, StreamWorkflow, streaming_activity


@streaming_activity
async def count_slowly(stream: StreamWriter, chunks: int) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        await asyncio.sleep(0.01)  # so that each poll finds little
    return "counted"


async def runs_of(handle: WorkflowHandle[Any, Any], client: Client) -> list[str]:
    """Return the run ids of a chain, the first one first."""
    found, run_id = [], handle.first_execution_run_id
    while run_id:
        found.append(run_id)
        run = client.get_workflow_handle(handle.id, run_id=run_id)
        last = (await run.fetch_history()).events[-1]
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


async def test_a_long_stream_is_followed_through_many_runs(
    run_worker: Run, start: Start, client: Client
) -> None:
    """Delivery poll: continue-as-new loses and repeats nothing, and the producer runs once."""
    is_long_enough = asyncio.Event()
    sent: list[int] = []

    @streaming_activity
    async def count_until_told(stream: StreamWriter) -> str:
        assert not sent, "it is started once"
        while not is_long_enough.is_set() or len(sent) < 100:
            await stream.send_chunk(len(sent))
            sent.append(len(sent))
            await asyncio.sleep(0.01)  # so that each poll finds little
        return "counted"

    async with run_worker(count_until_told):
        handle = await start("count_until_told", delivery="poll", window_seconds=0)
        newest = client.get_workflow_handle(handle.id)
        known: set[str | None] = set()
        async with asyncio.timeout(100):
            while len(known) < 4:
                known.add((await newest.describe()).run_id)
                await asyncio.sleep(0.02)  # a new run cannot be waited for
            is_long_enough.set()
            result = await handle.result()
        recent = await newest.query("recent")
        runs = await runs_of(handle, client)
        histories = [
            await client.get_workflow_handle(handle.id, run_id=run).fetch_history() for run in runs
        ]
    assert len(runs) > 3
    assert (result["result"], result["error"]) == ("counted", None)
    assert (result["chunks"], result["resets"], result["attempts"]) == (len(sent), 0, 1)
    assert [each.get("value") for each in recent] == [*sent[-99:], None]
    replayer = Replayer(workflows=[StreamWorkflow], plugins=[StreamqPlugin()])
    for history in histories:
        await replayer.replay_workflow(history)


async def test_cancelling_a_later_run_stops_the_producer(
    run_worker: Run, start: Start, client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Whoever cancels by workflow id does not know about runs."""
    async with run_worker(count_slowly):
        handle = await start(
            "count_slowly", 10_000, delivery="poll", window_seconds=0, heartbeat_seconds=1
        )
        newest = client.get_workflow_handle(handle.id)
        async with asyncio.timeout(60):
            while (await newest.describe()).run_id == handle.first_execution_run_id:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a new run cannot be waited for
        await newest.cancel()
        with pytest.raises(WorkflowFailureError):
            await newest.result()
        assert (await newest.describe()).status.name == "CANCELED"  # type: ignore[union-attr]
        assert (await newest.query("progress"))["sealed"]
    assert outline(await read_all(newest, queue, settings))[-1] == "CANCELLED"


@pytest.mark.parametrize("delivery", ["none", "poll"])
async def test_cancelling_a_workflow_that_runs_the_activity_itself(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings, delivery: str
) -> None:
    """Cancellation means the same for every way of delivering."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("working")
        await asyncio.Event().wait()

    async with run_worker(produce):
        handle = await start("produce", delivery=delivery, detached=False, heartbeat_seconds=1)
        stream = (await handle.query("progress"))["stream"]
        async with open_reader(stream, queue=queue, settings=settings) as reader:
            first = await anext(reader)
            await handle.cancel()
            with pytest.raises(WorkflowFailureError):
                await handle.result()
            assert outline([first, *[event async for event in reader]]) == ["working", "CANCELLED"]
        assert (await handle.describe()).status.name == "CANCELED"  # type: ignore[union-attr]


async def test_a_retried_workflow_goes_on_with_the_stream(
    run_worker: Run, client: Client, task_queue: str
) -> None:
    """The next attempt of a workflow begins with the state of the run that failed."""
    failed = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        for i in range(80):
            await stream.send_chunk(i)
            await asyncio.sleep(0.01)
        if not failed.is_set():
            failed.set()
            raise ApplicationError("once")
        return "done"

    async with run_worker(produce):
        handle = await client.start_workflow(
            "streamq.Stream",
            StreamRequest("produce", delivery="poll", window_seconds=0, max_attempts=1),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            retry_policy=RetryPolicy(initial_interval=SOON, maximum_attempts=3),
        )
        result = await asyncio.wait_for(handle.result(), 60)
    assert (result["result"], result["chunks"], result["resets"]) == ("done", 80, 1)
    assert result["attempts"] == 2


async def test_the_digest_can_be_computed_by_anybody(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A reader can prove that it has the very story that the workflow reports."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        for i in range(20):
            await stream.send_chunk({"i": i, "attempt": activity.info().attempt})
        await stream.send_chunk("text äöü")
        await stream.send_chunk(b"\x00")
        if activity.info().attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)

    async with run_worker(produce):
        handle = await start("produce")
        result = await handle.result()
    events = await read_all(handle, queue, settings)
    last = max(event.attempt for event in events)
    chunks = [e for e in events if isinstance(e, Chunk) and e.attempt == last]
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk.data).to_bytes(8, "big") + chunk.data)
    assert result["digest"] == digest.hexdigest()
    assert result["bytes"] == sum(len(chunk.data) for chunk in chunks)
    assert (result["chunks"], result["attempts"], result["resets"]) == (22, 2, 1)


@pytest.mark.parametrize("delivery", ["none", "poll"])
async def test_progress_is_told_to_another_workflow(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, delivery: str
) -> None:
    """A dashboard is told, and need not ask: on the way with poll, at the end with all."""
    async with Worker(
        client,
        task_queue=task_queue,
        activities=[count_slowly],
        workflows=[Observer],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        observer = await client.start_workflow(
            "Observer", 100, id=f"ob-{uuid.uuid4().hex}", task_queue=task_queue
        )
        request = StreamRequest(
            "count_slowly",
            [100],
            delivery=delivery,  # type: ignore[arg-type]
            window_seconds=0.05,
            progress_workflow_id=observer.id,
            progress_seconds=0.1,
        )
        handle = await client.start_workflow(
            "streamq.Stream", request, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        result = await handle.result()
        seen = await asyncio.wait_for(observer.result(), 20)
    assert result["error"] is None
    assert {each["stream"] for each in seen} == {result["stream"]}
    counts = [each["chunks"] for each in seen]
    assert counts == sorted(counts)
    assert (len(seen) > 2) == (delivery == "poll")


async def test_nobody_to_tell_the_progress_to_breaks_nothing(run_worker: Run, start: Start) -> None:
    """A dashboard that has gone costs the signals, not the work."""
    async with run_worker(count_slowly):
        handle = await start(
            "count_slowly", 20, delivery="poll", progress_workflow_id="gone", progress_seconds=0
        )
        result = await asyncio.wait_for(handle.result(), 30)
    assert (result["result"], result["chunks"]) == ("counted", 20)


async def test_progress_survives_continue_as_new(run_worker: Run, start: Start) -> None:
    """The counts of the runs before are part of the progress."""
    async with run_worker(count_slowly):
        handle = await start("count_slowly", 120, delivery="poll", window_seconds=0)
        await asyncio.wait_for(handle.result(), 60)
        progress = await wait_progress(handle, chunks=120)
    assert progress["sealed"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delivery": "signal"}, "target_workflow_id"),
        ({"target_signal": ""}, "target_signal must be text"),
        ({"progress_seconds": -1}, "progress_seconds"),
        ({"target_workflow": "x"}, "did you mean 'target_workflow_id'"),
    ],
)
async def test_new_fields_are_checked(
    run_worker: Run, client: Client, task_queue: str, wrong: dict[str, Any], message: str
) -> None:
    """A chain that nobody receives must fail where it is started."""
    async with run_worker(count_slowly):
        handle = await client.start_workflow(
            "streamq.Stream",
            {"activity": "count_slowly", "args": [1], **wrong},
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert message in str(caught.value.cause)
