"""Tests that each firing of a cron schedule has a stream of its own, which its handles lead to.

Places that share the names of firings: the activity (executed, followed, detached, of the generic
workflow, scheduled by a worker without the plugin), the reader (by start handle, id, run id),
the watch of the producer's end, the sweep. Names in workflow code: ``test_names_in_workflow_code``.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from tests.temporal.identity.conftest import Server, reset
from tests.temporal.support.firing_workflows import Bare, Fires, stay, tell
from tests.temporal.support.reading import outline

from streamq import Chunk, ProducerGoneError, Settings, open_writer
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    SweepRequest,
    find_stream_name,
    subscribe,
)
from streamq.temporal._workflow_runs import has_chain_ended
from streamq.temporal.sweeping._activity import sweep_queue

Handle = WorkflowHandle[Any, Any]
QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=20), maximum_attempts=2)
RETRIED = ["half", "RESET 2", "whole", "END"]
SHAPES = [("executed", True), ("followed", True), ("detached", False)]


def activities_of(task_queue: str) -> str:
    """Return the task queue of a worker for activities only."""
    return f"{task_queue}-activities"


class Firings:
    """Reads the streams of one workflow on a cron schedule."""

    def __init__(
        self, server: Server, queue: ChunkQueue, settings: Settings, task_queue: str
    ) -> None:
        self.server = server
        self.client = server.client
        self.queue = queue
        self.settings = settings
        self._task_queue = task_queue
        self._started: list[Handle] = []

    async def start(self, shape: str, *, retried: bool, continues: str = "") -> Handle:
        """Start a workflow on a cron schedule, whose firings fail once if they are retried."""
        name: str = "Fires"
        args: list[Any] = [shape, retried, continues]
        if shape == "generic":
            name, args = "streamq.Stream", [StreamRequest("tell", [retried], max_attempts=1)]
        elif shape == "bare":
            name, args = "Bare", [activities_of(self._task_queue)]
        handle = await self.client.start_workflow(
            name,
            args=args,
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=self._task_queue,
            cron_schedule=self.server.cron,
            retry_policy=QUICK if retried else None,
        )
        self._started.append(handle)
        return handle

    async def terminate_all(self) -> None:
        for handle in self._started:
            with contextlib.suppress(RPCError):  # it has ended
                await self.client.get_workflow_handle(handle.id).terminate()

    async def name(self, workflow: Handle | str) -> str:
        return await find_stream_name(workflow, client=self.client, settings=self.settings)

    async def read(self, workflow: Handle | str) -> tuple[str, list[object]]:
        """Read the firing that a handle or id leads to; let its time come first."""
        reading = asyncio.create_task(self._read(workflow))
        async with asyncio.timeout(90):
            while not reading.done():
                workflow_id = workflow if isinstance(workflow, str) else workflow.id
                await self.server.skip_to_next_firing(workflow_id)
                await asyncio.wait([reading], timeout=0.3)
        return await reading

    async def _read(self, workflow: Handle | str) -> tuple[str, list[object]]:
        async with subscribe(
            workflow, client=self.client, queue=self.queue, settings=self.settings
        ) as events:
            return events.stream.name, outline([event async for event in events])

    async def later_than(self, name: str, workflow_id: str) -> str:
        """Return the name of the newest firing's stream, once that is another one."""
        async with asyncio.timeout(90):
            while (newest := await self.name(workflow_id)) == name:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return newest


@contextlib.asynccontextmanager
async def running(
    server: Server, queue: ChunkQueue, settings: Settings, task_queue: str
) -> AsyncIterator[Firings]:
    """Run a worker, and end the workflows that were started."""
    worker = Worker(
        server.client,
        task_queue=task_queue,
        workflows=[Fires],
        activities=[tell, stay],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    firings = Firings(server, queue, settings, task_queue)
    async with worker:
        yield firings
        await firings.terminate_all()


async def check_two_firings(firings: Firings, shape: str, *, retried: bool) -> None:
    story = RETRIED if retried else ["whole", "END"]
    handle = await firings.start(shape, retried=retried)
    first, seen = await firings.read(handle)
    assert seen == story
    assert first == f"{handle.id}/{handle.result_run_id}/default"
    if firings.server.skips_time and (retried or shape == "detached"):
        return  # that server retries the first firing only, and skips no time after a child
    await firings.later_than(first, handle.id)
    second, seen = await firings.read(handle.id)
    assert seen == story
    assert second != first
    by_run = firings.client.get_workflow_handle(handle.id, run_id=second.split("/")[1])
    assert await firings.name(by_run) == second
    assert (await firings.read(handle))[0] == first


@pytest.mark.parametrize(
    "shapes", [SHAPES, pytest.param([("generic", True)], marks=pytest.mark.full)]
)
async def test_each_firing_has_a_stream_of_its_own(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    shapes: list[tuple[str, bool]],
) -> None:
    """A firing that finds the stream of the last one sealed fails before its body runs."""
    server = Server(client, False, "@every 1s")
    async with (
        running(server, queue, settings, task_queue) as firings,
        asyncio.TaskGroup() as checks,  # together, since each waits for the time
    ):
        for shape, retried in shapes:
            checks.create_task(check_two_firings(firings, shape, retried=retried))


@pytest.mark.parametrize(
    ("shape", "retried"), [("executed", False), ("followed", True), ("generic", False)]
)
async def test_firings_of_a_server_that_states_no_initiator(
    time_skipping: Server,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    shape: str,
    retried: bool,
) -> None:
    """There a retry, a firing and a run that was continued as new look alike at first sight."""
    async with running(time_skipping, queue, settings, task_queue) as firings:
        await check_two_firings(firings, shape, retried=retried)


@pytest.mark.full
async def test_firing_that_continues_as_new_keeps_its_stream(
    server: Server, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Its later runs write the stream that readers of the firing have been reading.

    Also after the second firing, and in a retry, which has its predecessor's header.
    """
    async with running(server, queue, settings, task_queue) as firings:
        handle = await firings.start("followed", continues="first", retried=True)
        later = None
        if not server.skips_time:  # that server retries the first firing only
            later = await firings.start("followed", continues="second", retried=True)
        first, seen = await firings.read(handle)
        assert seen == RETRIED
        assert first == f"{handle.id}/{handle.result_run_id}/default"
        if later is not None:
            first = await firings.name(later)
            await firings.later_than(first, later.id)
            second, seen = await firings.read(later.id)
            assert (second != first, seen) == (True, RETRIED)


async def test_activity_of_a_worker_without_the_plugin_names_the_firing(
    time_skipping: Server, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A workflow in another SDK sends no header: the activity asks for the firing."""
    server, client = time_skipping, time_skipping.client
    workflows = Worker(
        client, task_queue=task_queue, workflows=[Bare], workflow_runner=UnsandboxedWorkflowRunner()
    )
    activities = Worker(
        client,
        task_queue=activities_of(task_queue),
        activities=[tell],
        plugins=[StreamqPlugin(queue, settings)],
    )
    async with workflows, activities:
        firings = Firings(server, queue, settings, task_queue)
        await check_two_firings(firings, "bare", retried=False)
        await firings.terminate_all()


async def test_firing_that_ends_without_seal_ends_its_readers(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The schedule goes on, the firing does not: neither readers nor a sweep wait for the next."""
    server = Server(client, False, "@every 1s")
    async with running(server, queue, settings, task_queue) as firings:
        handle = await firings.start("silent", retried=False)
        name = await firings.name(handle)
        writer = await open_writer(name, queue=queue, settings=settings, epoch=1)
        await writer.send_chunk("half")
        await writer.aclose()
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert isinstance(await anext(events), Chunk)
            with pytest.raises(ProducerGoneError) as caught:
                await asyncio.wait_for(anext(events), 10)
        assert caught.value.status == "COMPLETED"
        await firings.later_than(name, handle.id)
        request = SweepRequest(grace_seconds=0, prefix=handle.id)
        summary = await sweep_queue(queue, settings, client, request)
        assert [(each.stream, each.done) for each in summary.findings] == [(name, "sealed")]


@pytest.mark.full
async def test_reset_firing_keeps_its_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A reset of the second firing is an attempt of its stream, not a firing."""
    server = Server(client, False, "@every 1s")
    async with running(server, queue, settings, task_queue) as firings:
        handle = await firings.start("staying", retried=False)
        await firings.later_than(await firings.name(handle), handle.id)
        second = await firings.name(handle.id)
        async with subscribe(handle.id, client=client, queue=queue, settings=settings) as events:
            assert events.stream.name == second
            seen = [await anext(events)]
            await reset(client, handle.id)
            async with asyncio.timeout(10):
                seen += [await anext(events), await anext(events)]
        assert outline(seen) == ["stays", "RESET 2", "stays"]
        assert await firings.name(handle.id) == second


async def test_sweep_leaves_a_firing_that_began_when_all_had_one_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A worker of an earlier version began it; it still writes the stream of the first firing."""
    server = Server(client, False, "@every 1s")
    async with running(server, queue, settings, task_queue) as firings:
        handle = await firings.start("staying", retried=False)
        first = await firings.name(handle)
        async with await open_writer(first, queue=queue, settings=settings, epoch=1) as writer:
            await writer.send_chunk("half")
            await firings.later_than(first, handle.id)
            async with subscribe(handle.id, client=client, queue=queue, settings=settings) as later:
                await anext(later)  # so that it runs
            request = SweepRequest(grace_seconds=0, prefix=first)
            summary = await sweep_queue(queue, settings, client, request)
            assert [(each.stream, each.done) for each in summary.findings] == [(first, "kept")]
            assert "may have begun when all" in summary.findings[0].reason
            assert not await has_chain_ended(client, *first.split("/")[:2])
            await writer.finish()
