"""Tests how workflow code learns the names of its firing's streams, and what follows if it cannot.

Places that ask for a name: queries, validators, handlers, the main method, ``stream_activity`` and
``streamq.Stream`` (by ``first_run_id``); activities have it in their header, or ask for themselves.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
)
from tests.temporal.support.firing_workflows import Forgotten, Names

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, find_stream_name
from streamq.temporal.activities._owner import FIRST_RUN_ACTIVITY
from streamq.temporal.workflow import _chain

Handle = WorkflowHandle[Any, Any]


async def start(client: Client, task_queue: str, name: str, *args: Any, retry: float) -> Handle:
    return await client.start_workflow(
        name,
        args=args,
        id=f"wf-{uuid.uuid4().hex}",
        task_queue=task_queue,
        cron_schedule="@every 1s",
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=retry), maximum_attempts=2),
    )


async def closing_of(client: Client, workflow_id: str, run_id: str) -> Any:
    """Return the attributes of the event that closed a run; the newest run may be a later one."""
    run = client.get_workflow_handle(workflow_id, run_id=run_id)
    async with asyncio.timeout(10):
        while (await run.describe()).close_time is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    event = (await run.fetch_history()).events[-1]
    return getattr(event, str(event.WhichOneof("attributes")))


async def next_run(client: Client, handle: Handle) -> Handle:
    """Return a handle of the second run, once there is one."""
    closing = await closing_of(client, handle.id, str(handle.result_run_id))
    return client.get_workflow_handle(handle.id, run_id=closing.new_execution_run_id)


async def result_of(client: Client, run: Handle) -> Any:
    """Return the result of one run; the client's own method follows the schedule."""
    closing = await closing_of(client, run.id, str(run.run_id))
    return PayloadConverter.default.from_payload(closing.result.payloads[0])


class Refusing(Interceptor):
    """Fails the question for the first run, with an error of this name."""

    def __init__(self, error: str) -> None:
        self.error = error
        self.asked = 0

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Refusing(next, self)


class _Refusing(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, refusing: Refusing) -> None:
        super().__init__(next)
        self._refusing = refusing

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        assert activity.info().activity_type == FIRST_RUN_ACTIVITY
        self._refusing.asked += 1
        raise ApplicationError("so says Temporal", type=self._refusing.error)


def make_worker(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, **options: Any
) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Names, Forgotten],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
        **options,
    )


@pytest.mark.parametrize("cached", [100, pytest.param(0, marks=pytest.mark.full)])
async def test_queries_and_validators_of_a_later_firing_name_its_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, cached: int
) -> None:
    """Nothing may be recorded there; with a cached run and in a replay the name is the same."""
    async with make_worker(client, queue, settings, task_queue, max_cached_workflows=cached):
        handle = await start(client, task_queue, "Names", retry=1)
        firing = await next_run(client, handle)
        name = await find_stream_name(firing)
        assert name.split("/")[1] == firing.run_id
        assert await firing.query("name") == name
        assert await firing.execute_update("leave", args=[name, False]) == name
        assert await firing.query("name") == name
        assert await firing.execute_update("leave", args=[name, True]) == name
        assert await result_of(client, firing) == name
        await client.get_workflow_handle(handle.id).terminate()


async def test_retry_of_a_firing_names_its_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """It asks Temporal, and keeps the answer though its object has no place for it."""
    async with make_worker(client, queue, settings, task_queue):
        handle = await start(client, task_queue, "Names", True, retry=0.02)
        retry = await next_run(client, handle)
        assert await result_of(client, retry) == f"{handle.id}/{handle.result_run_id}/default"
        await client.get_workflow_handle(handle.id).terminate()


async def test_retry_whose_first_run_is_not_known_runs(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may stream nothing at all: it runs, and only naming its stream is an error.

    After one answer if no other will come soon, else after a few, which come sooner here.
    """

    async def check(error: str, asked: int) -> None:
        refusing, own = Refusing(error), f"{task_queue}-{error}"
        async with make_worker(client, queue, settings, own, interceptors=[refusing]):
            handle = await start(client, own, "Forgotten", retry=0.02)
            said = await result_of(client, await next_run(client, handle))
            await client.get_workflow_handle(handle.id).terminate()
        assert "did not state with which run the firing began" in said
        assert refusing.asked == asked

    sooner = replace(_chain._RETRY, initial_interval=timedelta(milliseconds=20))
    monkeypatch.setattr(_chain, "_RETRY", sooner)
    async with asyncio.TaskGroup() as checks:  # together, since each waits for the time
        checks.create_task(check("AccessDeniedError", 1))
        checks.create_task(check("StreamNotFoundError", 1))
        checks.create_task(check("BackendUnavailableError", 3))
