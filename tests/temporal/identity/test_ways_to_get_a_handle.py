"""Tests that a stream has one name, however the handle of its workflow was got.

Each way leads to a chain of runs that streams in its second run, if the way allows that: a name
made of that run's id would be that of a stream that does not exist. On the server of the session
and on the time-skipping server, which answers as servers before 1.32 do: a start that attaches to
a running workflow gives the current run for the first one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WithStartWorkflowOperation,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from tests.temporal.identity.conftest import Server, reset
from tests.temporal.support.reading import outline
from tests.temporal.support.talking_workflows import Parent, Talks, talk

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, find_stream_name, subscribe

Handle = WorkflowHandle[Any, Any]
QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=20))


class Place:
    """Starts workflows of one test, and gets handles of them."""

    def __init__(self, client: Client, queue: ChunkQueue, task_queue: str) -> None:
        self.client = client
        self.queue = queue
        self.task_queue = task_queue
        self.id = f"wf-{uuid.uuid4().hex}"

    async def start(self, mode: str = "continued", **options: Any) -> Handle:
        return await self.client.start_workflow(
            Talks.run,
            mode,
            id=self.id,
            task_queue=self.task_queue,
            retry_policy=QUICK,
            **options,
        )

    async def reach_second_run(self, mode: str = "continued") -> str:
        """Start a workflow; return the id of its second run once that is the newest."""
        first = await self.start(mode)
        async with asyncio.timeout(90):
            while (found := await self._newest()) in (None, first.result_run_id):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return str(found)

    async def _newest(self) -> str | None:
        return (await self.client.get_workflow_handle(self.id).describe()).run_id


async def new_start(place: Place) -> Handle:
    return await place.start()


async def start_that_attaches(place: Place) -> Handle:
    await place.reach_second_run()
    return await place.start(id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)


async def signal_with_new_start(place: Place) -> Handle:
    return await place.start(start_signal="nudge")


async def signal_with_start_that_attaches(place: Place) -> Handle:
    await place.reach_second_run()
    return await place.start(start_signal="nudge")


async def update_with_new_start(place: Place) -> Handle:
    operation = WithStartWorkflowOperation(
        Talks.run,
        "",
        id=place.id,
        task_queue=place.task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    await place.client.execute_update_with_start_workflow(
        Talks.nudged, start_workflow_operation=operation
    )
    return await operation.workflow_handle()


async def update_with_start_that_attaches(place: Place) -> Handle:
    await place.reach_second_run()
    return await update_with_new_start(place)


async def by_id(place: Place) -> str:
    await place.reach_second_run()
    return place.id


async def by_first_run_id(place: Place) -> Handle:
    first = await place.start()
    return place.client.get_workflow_handle(place.id, run_id=first.result_run_id)


async def by_second_run_id(place: Place) -> Handle:
    run_id = await place.reach_second_run()
    return place.client.get_workflow_handle(place.id, run_id=run_id)


async def by_first_run_of_the_chain(place: Place) -> Handle:
    first = await place.start()
    return place.client.get_workflow_handle(
        place.id, first_execution_run_id=first.first_execution_run_id
    )


async def retried_workflow(place: Place) -> Handle:
    run_id = await place.reach_second_run("retried")
    return place.client.get_workflow_handle(place.id, run_id=run_id)


async def child(place: Place) -> str:
    await place.client.start_workflow(
        Parent.run, place.id, id=f"{place.id}-parent", task_queue=place.task_queue
    )
    return place.id


async def scheduled(place: Place) -> Handle:
    """A schedule starts a workflow of its own for each firing."""
    action = ScheduleActionStartWorkflow(
        Talks.run, "continued", id=place.id, task_queue=place.task_queue
    )
    schedule = await place.client.create_schedule(
        f"{place.id}-schedule",
        Schedule(action=action, spec=ScheduleSpec()),
        trigger_immediately=True,
    )
    try:
        async with asyncio.timeout(90):
            while not (found := (await schedule.describe()).info.recent_actions):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await schedule.delete()
    started = found[0].action
    assert isinstance(started, ScheduleActionExecutionStartWorkflow)
    return place.client.get_workflow_handle(
        started.workflow_id, first_execution_run_id=started.first_execution_run_id
    )


async def reset_run(place: Place) -> str:
    await place.reach_second_run()
    async with subscribe(place.id, client=place.client, queue=place.queue) as events:
        await anext(events)  # so that there is something to reset
    await reset(place.client, place.id)
    return place.id


Way = Callable[[Place], Awaitable[Handle | str]]
WAYS: list[Way] = [
    new_start,
    start_that_attaches,
    signal_with_new_start,
    signal_with_start_that_attaches,
    update_with_new_start,
    update_with_start_that_attaches,
    by_id,
    by_first_run_id,
    by_second_run_id,
    by_first_run_of_the_chain,
    retried_workflow,
    child,
]


WAYS_OF_A_REAL_SERVER: list[Way] = [scheduled, reset_run]
"""The time-skipping server has neither schedules nor resets."""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_handle_leads_to_the_stream(
    server: Server, queue: ChunkQueue, settings: Settings, task_queue: str, way: Way
) -> None:
    """A wrong name is silence: the reader waits at a stream that nobody writes."""
    await check(server.client, queue, settings, task_queue, way)


@pytest.mark.parametrize("way", WAYS_OF_A_REAL_SERVER, ids=lambda way: way.__name__)
async def test_schedules_and_resets_lead_to_the_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, way: Way
) -> None:
    """As above."""
    await check(client, queue, settings, task_queue, way)


async def check(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, way: Way
) -> None:
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[Talks, Parent],
        activities=[talk],
        plugins=[StreamqPlugin(queue, settings)],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        found = await way(Place(client, queue, task_queue))
        async with subscribe(found, client=client, queue=queue, settings=settings) as events:
            async with asyncio.timeout(5):
                seen = outline([event async for event in events])
            name = await find_stream_name(found, client=client, settings=settings)
            assert name == events.stream.name
    assert seen[-1] == "END"
    assert len(seen) == 2
