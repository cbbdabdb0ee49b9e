"""Tests what a worker does with the plugin, and without it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import failure_of, outline, read_all
from tests.temporal.support.workflows import Foreign, TwoTopics, say, say_it

from streamq import (
    BackendNotFoundError,
    ConfigurationError,
    Settings,
    StreamWriter,
    load_settings,
)
from streamq.driver import ChunkQueue, StreamId
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe
from streamq.testing import Fail, FaultyQueue


async def start_two_topics(
    client: Client, task_queue: str, activity_queue: str
) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        TwoTopics.run, activity_queue, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
    )


async def test_workflow_chooses_the_topic_of_each_call(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Two calls of the same activity write two streams, without the activity knowing."""
    plugin = StreamqPlugin(queue, settings)
    worker = Worker(
        client, task_queue=task_queue, workflows=[TwoTopics], activities=[say], plugins=[plugin]
    )
    async with worker:
        handle = await start_two_topics(client, task_queue, task_queue)
        assert await handle.result() == ["draft", "final"]
        for topic in ("draft", "final"):
            async with subscribe(handle, topic, queue=queue, settings=settings) as events:
                assert outline([event async for event in events]) == [topic, "END"]


async def test_workflow_without_the_plugin_can_use_a_worker_with_it(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Workflows in other SDKs send no header: the activity queries the first run id."""

    plugin = StreamqPlugin(queue, settings)
    async with (
        Worker(client, task_queue=task_queue, workflows=[Foreign]),
        Worker(client, task_queue=f"{task_queue}-a", activities=[say_it], plugins=[plugin]),
    ):
        handle = await client.start_workflow(
            Foreign.run, f"{task_queue}-a", id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        await handle.result()
        async with subscribe(handle, "spoken", queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["hello", "END"]


async def test_worker_without_the_plugin_states_the_remedy(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A forgotten plugin is a clear failure at the first call, not a silent stream."""
    plugin = StreamqPlugin(queue, settings)
    async with (
        Worker(client, task_queue=task_queue, workflows=[TwoTopics], plugins=[plugin]),
        Worker(client, task_queue=f"{task_queue}-a", activities=[say]),
    ):
        handle = await start_two_topics(client, task_queue, f"{task_queue}-a")
        failure = await failure_of(handle)
    assert isinstance(failure, ApplicationError)
    assert failure.non_retryable
    assert "add StreamqPlugin" in failure.message


async def test_worker_that_was_made_without_the_plugin_does_not_start(
    client: Client, task_queue: str
) -> None:
    """Another plugin may remove interceptors; the queue that was opened must not stay open."""
    plugin = StreamqPlugin(settings=load_settings(backend="memory"))
    worker = Worker(client, task_queue=task_queue, workflows=[TwoTopics])

    async def run(worker: Worker) -> None:
        pytest.fail("it must not run")

    with pytest.raises(ConfigurationError, match="no interceptor of the StreamqPlugin"):
        await plugin.run_worker(worker, run)
    assert plugin._opened() is None


async def test_client_passes_the_plugin_to_its_workers(
    temporal_address: str, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A plugin that the client has is on every worker."""
    plugin = StreamqPlugin(queue, settings)
    client = await Client.connect(temporal_address, plugins=[plugin])
    async with Worker(client, task_queue=task_queue, workflows=[TwoTopics], activities=[say]):
        handle = await start_two_topics(client, task_queue, task_queue)
        assert await handle.result() == ["draft", "final"]


async def test_plugin_of_both_client_and_worker_is_applied_once(
    temporal_address: str, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Temporal warns about it; it must work nevertheless."""
    plugin = StreamqPlugin(queue, settings)
    client = await Client.connect(temporal_address, plugins=[plugin])
    with pytest.warns(UserWarning, match="same plugin type"):
        worker = Worker(client, task_queue=task_queue, activities=[say], plugins=[plugin])
    async with worker:
        handle = await client.start_workflow(
            "streamq.Stream",
            {"activity": "say", "args": ["x"]},
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        assert (await handle.result())["result"] == "x"


async def test_workers_share_a_queue_that_the_plugin_opens_and_closes(
    client: Client, task_queue: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection for all workers of a process, released with the last of them."""
    monkeypatch.setenv("STREAMQ_MEMORY_STORE", task_queue)
    queues: list[ChunkQueue] = []

    @streaming_activity
    async def spy(stream: StreamWriter) -> None:
        queues.append(stream._queue)

    plugin = StreamqPlugin(settings=load_settings(backend="memory"))
    async with Worker(client, task_queue=task_queue, activities=[spy], plugins=[plugin]):
        async with Worker(client, task_queue="other", activities=[spy], plugins=[plugin]):
            pass
        await (await start("spy")).result()
        await (await start("spy", task_queue=task_queue)).result()
    assert queues[0] is queues[1]
    with pytest.raises(Exception, match="closed"):
        await queues[0].describe(StreamId("default", "any"))


async def test_unreachable_backend_stops_the_worker_at_its_start(
    client: Client, task_queue: str
) -> None:
    """A wrong setting is reported when the worker starts, not by every activity."""
    plugin = StreamqPlugin(settings=load_settings(backend="nosuch"))
    worker = Worker(client, task_queue=task_queue, activities=[say], plugins=[plugin])
    with pytest.raises(BackendNotFoundError, match="nosuch"):
        await worker.run()


async def test_outage_beyond_the_deadline_stops_the_attempt(
    client: Client, queue: ChunkQueue, task_queue: str, start: Start
) -> None:
    """Work for a stream that cannot be written is stopped promptly, and Temporal retries."""
    outage = FaultyQueue(queue)
    settings = load_settings(backend="memory", retry_seconds=0.2)
    stopped: list[str] = []

    @streaming_activity
    async def produce(stream: StreamWriter) -> int:
        await stream.send_chunk("before")
        await stream.flush()
        if activity.info().attempt > 1:
            return activity.info().attempt
        outage.always("append", Fail())
        await stream.send_chunk("lost")
        try:
            await asyncio.Event().wait()  # it does not look at the stream for hours
        except asyncio.CancelledError:
            outage.heal()
            stopped.append("promptly")
            raise
        return 0

    plugin = StreamqPlugin(outage, settings)
    async with Worker(client, task_queue=task_queue, activities=[produce], plugins=[plugin]):
        handle = await start("produce")
        assert (await handle.result())["result"] == 2
        story = outline(await read_all(handle, queue, settings))
    assert stopped == ["promptly"]
    assert story == ["before", "RESET 2", "before", "END"]


async def test_chunk_that_is_too_large_is_a_final_failure(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """No retry makes a chunk smaller: fail once, with the name of the error."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("x" * (settings.max_chunk_bytes + 1))

    async with run_worker(produce):
        handle = await start("produce")
        failure = await failure_of(handle)
        assert outline(await read_all(handle, queue, settings)) == ["ERROR"]
    assert isinstance(failure, ApplicationError)
    assert (failure.type, failure.non_retryable) == ("ChunkTooLargeError", True)


async def test_worker_that_cannot_start_raises_instead_of_hanging(
    client: Client, task_queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The README's way to run a worker: a configuration mistake must leave its block."""
    plugin = StreamqPlugin(settings=load_settings(backend="reddis"))

    async def run() -> None:
        async with Worker(client, task_queue=task_queue, activities=[say], plugins=[plugin]):
            await asyncio.Event().wait()

    with pytest.raises(BackendNotFoundError, match="did you mean 'redis'"):
        await asyncio.wait_for(run(), 10)
    assert "this worker does not start: unknown backend 'reddis'" in caplog.text
