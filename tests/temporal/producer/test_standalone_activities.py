"""Tests activities that a client starts without a workflow: they stream as others do.

Places that share the kind "a producer is an activity of a workflow", and where each is checked:

* the name of a stream: here, and ``tests/core/test_executions.py``;
* shapes (async, thread, both generators, method, several writers, plain ``open_writer``): here;
* endings and attempts: ``test_standalone_attempts.py``;
* readers that watch the producer's end: ``tests/temporal/test_subscribe_activities.py``;
* the sweep: ``tests/temporal/sweeping/test_sweep_activities.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import ActivityIDConflictPolicy
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run
from tests.temporal.support.reading import outline, read_all
from tests.temporal.support.standalone import begin, cause_of, say, wait

from streamq import (
    BlockingStreamWriter,
    Settings,
    StreamWriter,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    activity_stream_name,
    stream_name,
    streaming_activity,
    subscribe,
)

BEAT = timedelta(seconds=2)


async def test_activity_without_workflow_streams(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """One call of a model needs no workflow, and its tokens are wanted all the same."""
    async with run_worker(say):
        handle = await begin(client, task_queue, say, "x")
        assert await handle.result() == "X"
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert events.stream.name == activity_stream_name(handle.id, str(handle.run_id))
            assert outline([event async for event in events]) == ["x", "END"]


@streaming_activity
async def report(stream: StreamWriter[str]) -> str:
    """Return the name that the activity itself computes for its stream."""
    info = activity.info()
    name = activity_stream_name(info.activity_id, str(info.activity_run_id))
    assert name == stream.stream.name
    return name


@workflow.defn
class Same:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            "say", "from the workflow", start_to_close_timeout=timedelta(seconds=5)
        )


@pytest.mark.full
async def test_workflow_and_activity_of_one_id_have_two_streams(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Temporal keeps the ids of workflows and activities apart, and so must the streams."""
    plugin = StreamqPlugin(queue, settings)
    async with Worker(
        client, task_queue=task_queue, workflows=[Same], activities=[say], plugins=[plugin]
    ):
        started = await begin(client, task_queue, say, "from the client")
        flow = await client.start_workflow(Same.run, id=started.id, task_queue=task_queue)
        await asyncio.gather(flow.result(), started.result())
        assert outline(await read_all(started, queue, settings)) == ["from the client", "END"]
        assert outline(await read_all(flow, queue, settings)) == ["from the workflow", "END"]
        # Whatever the run ids are:
        assert stream_name(started.id, str(started.run_id)) != activity_stream_name(
            started.id, str(started.run_id)
        )


async def test_name_follows_the_run_not_the_id(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """An id that is used again has a stream of its own; joining a run that exists has that one."""
    async with run_worker(say, report, wait):
        first = await begin(client, task_queue, wait, heartbeat_timeout=BEAT)
        joined = await begin(
            client,
            task_queue,
            wait,
            id=first.id,
            id_conflict_policy=ActivityIDConflictPolicy.USE_EXISTING,
        )
        by_id = client.get_activity_handle(first.id)
        names = set()
        for handle in (first, joined, by_id):
            async with subscribe(handle, queue=queue, settings=settings) as events:
                names.add(events.stream.name)
                await anext(events)
        assert names == {activity_stream_name(first.id, str(first.run_id))}
        await first.cancel()
        assert isinstance(await cause_of(first), CancelledError)
        second = await begin(client, task_queue, report, id=first.id)
        assert await second.result() == activity_stream_name(second.id, str(second.run_id))
        assert await second.result() not in names
        assert outline(await read_all(second, queue, settings)) == ["END"]
        assert outline(await read_all(first, queue, settings)) == ["one", "CANCELLED"]
        assert outline(await read_all(by_id, queue, settings)) == ["END"]


@streaming_activity
def in_thread(stream: BlockingStreamWriter[str], text: str) -> str:
    stream.send_chunk(text)
    return "done"


@streaming_activity
async def generator(text: str) -> AsyncIterator[str]:
    yield text


@streaming_activity
def thread_generator(text: str) -> Iterator[str]:
    yield text


class Speaker:
    @streaming_activity
    async def method(self, text: str, stream: StreamWriter[str]) -> None:
        await stream.send_chunk(text)


@streaming_activity
async def both(stream: StreamWriter[str], logs: StreamWriter[str], text: str) -> None:
    await stream.send_chunk(text)
    await logs.send_chunk(f"said {text}")


@streaming_activity
async def with_plain_writer(stream: StreamWriter[str], text: str) -> None:
    """Write one more stream of this activity by hand."""
    info = activity.info()
    name = activity_stream_name(info.activity_id, str(info.activity_run_id), "logs")
    await stream.send_chunk(text)
    async with open_writer(name, queue=_plain["queue"], settings=_plain["settings"]) as logs:
        await logs.send_chunk(f"said {text}")


_plain: dict[str, Any] = {}


async def test_every_shape_streams(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The way an activity is written does not matter."""
    _plain.update(queue=queue, settings=settings)
    shapes: list[Callable[..., Any]] = [
        in_thread,
        generator,
        thread_generator,
        Speaker().method,
        both,
        with_plain_writer,
    ]
    with ThreadPoolExecutor(2) as threads:
        async with Worker(
            client,
            task_queue=task_queue,
            activities=shapes,
            activity_executor=threads,
            plugins=[StreamqPlugin(queue, settings)],
        ):
            handles = [await begin(client, task_queue, shape, "x") for shape in shapes]
            for handle in handles:
                assert outline(await read_all(handle, queue, settings)) == ["x", "END"]
            for handle in handles[-2:]:
                async with subscribe(handle, "logs", queue=queue, settings=settings) as events:
                    assert outline([event async for event in events]) == ["said x", "END"]
