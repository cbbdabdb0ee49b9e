"""Every text that Temporal takes as a workflow id, on a real server.

What takes an id: the server itself refuses only more than 1,000 bytes, and the SDK text that is not
valid Unicode. Places that share a stream's name, and how each was checked: the activity's stream,
``subscribe`` by handle and the listing (here, on SQLite); ``streamq.Produce``, whose own id is made
of it (here); the sweep, which gets the workflow id back from it (here); every backend
(``DriverSuite``, checks of names and listings); the gateway and the commands (their own tests).
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from tests.temporal.support.following_workflows import Continues, Options, State
from tests.temporal.support.reading import outline, read_all
from tests.temporal.support.standalone import begin

from streamq import ConfigurationError, Settings, StreamWriter
from streamq._events import shown
from streamq._executions import Execution, execution_of
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    find_stream_name,
    stream_name,
    streaming_activity,
    subscribe,
)

LONGEST = "n" * 1_000
IDS = [
    *("\u3000", "a\0b", "\0", "a\nb\r\tc\n", "\x1b[31m\x7f\x85", "\u202e\u200fa\ufeff"),
    *("\u0378\ufffe\U0010ffff", "\u2028", "🌊", "/", "a//b/", "%", "%2F", "?a=b#c", "..", "../.a"),
    *(" a ", "{a}", "~a", "!!", "e\u0301", "é", LONGEST, "é" * 500, "\0" * 1_000, "/" * 1_000),
]


@streaming_activity
async def echo(stream: StreamWriter) -> None:
    await stream.send_chunk("chunk")


@streaming_activity
async def count(chunks: int, pause: float, stream: StreamWriter) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        await asyncio.sleep(pause)
    return "counted"


@workflow.defn
class Echoes:
    """Calls one streaming activity."""

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(echo, start_to_close_timeout=timedelta(seconds=20))


def worker_of(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Echoes, Continues],
        activities=[echo, count],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),  # two dozen sandboxes take long to make
    )


async def test_a_stream_has_any_id_that_temporal_takes(
    client: Client, settings: Settings, task_queue: str, tmp_path: Path
) -> None:
    """An id is chosen by the user's business, and a stream that its name breaks is an outage."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    tag = uuid.uuid4().hex[:8]
    ids = [f"{tag}{each}"[: len(each)] if len(each) == 1_000 else each for each in IDS]

    async def check(workflow_id: str, queue: ChunkQueue) -> str:
        handle = await client.start_workflow(
            Echoes.run,
            id=workflow_id,
            task_queue=task_queue,
            execution_timeout=timedelta(minutes=1),
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["chunk", "END"]
        await handle.result()
        name = stream_name(workflow_id, str(handle.first_execution_run_id))
        assert execution_of(name) == Execution(
            "workflow", workflow_id, str(handle.first_execution_run_id)
        )
        return name

    async with (
        await SqliteDriver.open(options, SqliteSettings(path=tmp_path / "db")) as queue,
        worker_of(client, queue, settings, task_queue),
    ):
        names = await asyncio.gather(*(check(each, queue) for each in ids))
        listed = [info.stream.name async for info in queue.streams(settings.tenant)]
    assert sorted(names) == sorted(listed)
    assert len(set(map(shown, listed))) == len(ids)
    assert all(shown(name).isprintable() for name in listed)


async def test_an_id_that_temporal_refuses_is_refused_there(
    client: Client, task_queue: str
) -> None:
    """The list above is complete: nothing else can be an id."""
    for each, error in (("n" * 1_001, RPCError), ("é" * 501, RPCError), ("\ud800", ValueError)):
        with pytest.raises(error):
            await client.start_workflow(Echoes.run, id=each, task_queue=task_queue)
    with pytest.raises(ConfigurationError, match="surrogate"):
        stream_name("\ud800", "run")


@pytest.mark.parametrize("workflow_id", ["é" * 500, "a\0\n" + "b" * 900], ids=["long", "strange"])
async def test_a_detached_producer_has_any_id_of_its_workflow(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, workflow_id: str
) -> None:
    """The producer is a workflow with an id of its own, which has to fit, too."""
    async with worker_of(client, queue, settings, task_queue):
        state = State("count", [20, 0.01], Options(detached=True, continue_every=6))
        handle: WorkflowHandle[Continues, object] = await client.start_workflow(
            Continues.run, state, id=workflow_id, task_queue=task_queue
        )
        generic = await client.start_workflow(
            "streamq.Stream",
            StreamRequest("count", args=[3, 0], delivery="poll"),
            id=workflow_id[:-1] + "g",
            task_queue=task_queue,
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert len([event async for event in events]) == 21
        found = await handle.result()
        assert isinstance(found, dict)
        assert found["result"] == "counted"
        assert (await generic.result())["result"] == "counted"


async def test_a_standalone_activity_has_any_id_that_temporal_takes(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Its name is longer than a workflow's, and begins with the id all the same."""
    tag = uuid.uuid4().hex[:8]
    ids = [f"{tag}{each}"[: len(each)] if len(each) == 1_000 else each for each in IDS]

    async def check(activity_id: str) -> None:
        handle = await begin(client, task_queue, echo, id=activity_id)
        events = await read_all(handle, queue, settings)
        assert outline(events) == ["chunk", "END"]
        name = await find_stream_name(handle)
        assert execution_of(name) == Execution("activity", activity_id, str(handle.run_id))

    async with worker_of(client, queue, settings, task_queue):
        await asyncio.gather(*map(check, ids))
