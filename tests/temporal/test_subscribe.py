"""Subscribers: they follow the workflow to its end, and say so when nobody will seal the stream."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import outline, read_all

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    ProducerGoneError,
    Settings,
    StreamNotFoundError,
    StreamWriter,
    load_settings,
)
from streamq.devserver import free_port
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe


@streaming_activity
async def say(stream: StreamWriter, text: str) -> str:
    await stream.send_chunk(text)
    return text


async def test_a_completed_workflow_without_such_a_stream_ends_its_readers(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Reading a topic that is never written ends with the workflow, with the reason."""
    async with run_worker(say):
        handle = await start("say", "x")
        async with subscribe(handle, "other", queue=queue, settings=settings) as events:
            with pytest.raises(ProducerGoneError) as caught:
                await anext(events)
    assert caught.value.status == "COMPLETED"


async def test_a_cursor_goes_on_where_its_reader_was(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A reader that reconnects misses nothing, and after the end is told the end again."""
    async with run_worker(say):
        handle = await start("say", "x")
        async with subscribe(handle, queue=queue, settings=settings) as events:
            first = await anext(events)
            middle = events.cursor
            rest = [event async for event in events]
            end = events.cursor
        await handle.result()
        for cursor, expected in ((middle, rest), (end, rest[-1:])):
            async with subscribe(handle, from_=cursor, queue=queue, settings=settings) as events:
                assert [event async for event in events] == expected
    assert outline([first, *rest]) == ["x", "END"]


async def test_a_handle_without_run_id_will_do(
    run_worker: Run, start: Start, client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Whoever knows the workflow id only can read as well."""
    async with run_worker(say):
        started = await start("say", "x")
        handle = client.get_workflow_handle(started.id)
        assert outline(await read_all(handle, queue, settings)) == ["x", "END"]


async def test_leaving_early_leaves_no_task_behind(
    start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A browser that goes away must not leave a long poll behind."""
    handle = await start("say", "x")
    before = asyncio.all_tasks()
    async with subscribe(handle, queue=queue, settings=settings) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        assert len(asyncio.all_tasks()) > len(before)
    assert asyncio.all_tasks() == before
    await handle.terminate()


async def test_temporal_down_is_a_typed_error(queue: ChunkQueue) -> None:
    """An unreachable Temporal is named, and not mistaken for an unreachable queue."""
    client = await Client.connect(f"127.0.0.1:{free_port()}", lazy=True)
    settings = load_settings(backend="memory", retry_seconds=0.1)
    with pytest.raises(BackendUnavailableError) as caught:
        async with subscribe(client.get_workflow_handle("wf"), queue=queue, settings=settings):
            pass
    assert caught.value.backend == "temporal"


async def test_an_unknown_workflow_is_a_typed_error(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A mistyped workflow id is told, and not waited for for ever."""
    handle = client.get_workflow_handle("no-such-workflow")
    for seconds, expected in ((0.1, "no-such-workflow.*within 0.1 s"), (0, "no-such-workflow")):
        with pytest.raises(StreamNotFoundError, match=expected):
            async with subscribe(handle, queue=queue, settings=settings, start_seconds=seconds):
                pass


async def test_a_run_that_does_not_exist_is_not_waited_for(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A run id is given by the server: one that it does not know will never be started."""
    handle = client.get_workflow_handle("no-such-workflow", run_id=str(uuid.uuid4()))
    with pytest.raises(StreamNotFoundError, match="no-such-workflow"):
        async with subscribe(handle, queue=queue, settings=settings, start_seconds=1e9):
            pass


async def test_a_topic_that_cannot_be_is_refused(client: Client) -> None:
    """Topics are checked where they are given."""
    with pytest.raises(ConfigurationError, match="a/b"):
        subscribe(client.get_workflow_handle("wf"), "a/b")


def test_a_workflow_id_needs_a_client() -> None:
    """Nobody could be asked for the workflow; the message says what to pass."""
    with pytest.raises(ConfigurationError, match="client=client"):
        subscribe("wf")


@workflow.defn
class Again:
    """Continues as new, fails and is retried, and only then streams."""

    @workflow.run
    async def run(self, step: int) -> str:
        if step == 0:
            workflow.continue_as_new(1)
        if workflow.info().attempt == 1:
            raise ApplicationError("the workflow itself is retried")
        return await workflow.execute_activity(
            say, "at last", start_to_close_timeout=timedelta(seconds=10)
        )


async def test_continue_as_new_and_workflow_retry_are_followed(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The stream belongs to the chain of runs; the end of one run is not the end."""
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[Again],
        activities=[say],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        handle = await client.start_workflow(
            Again.run,
            0,
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50)),
        )
        assert outline(await read_all(handle, queue, settings)) == ["at last", "END"]
        assert await handle.result() == "at last"


async def test_a_reader_on_another_backend_than_the_worker_is_told_so(
    run_worker: Run, start: Start, settings: Settings, tmp_path: Path
) -> None:
    """The commonest mistake with two processes: each looks into a file of its own."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("elsewhere")

    sqlite = SqliteSettings(path=tmp_path / "other.db")
    async with (
        await SqliteDriver.open(QueueOptions(ttl=timedelta(minutes=5)), sqlite) as other,
        run_worker(produce),
    ):
        handle = await start("produce")
        await handle.result()
        async with subscribe(handle, queue=other, settings=settings) as events:
            with pytest.raises(ProducerGoneError, match="the worker writes elsewhere"):
                await anext(events)
