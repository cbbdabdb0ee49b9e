"""What a workflow publishes, through all of its runs, in programs written for Workflow Streams."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.publishing_workflows import (
    ContinuesPublishing,
    PublishesMuch,
    RetriesPublishing,
)

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin
from streamq.temporal.workflow_streams import WorkflowStreamClient

ReadNotes = Callable[[str], Any]


@pytest.fixture
async def worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[ContinuesPublishing, PublishesMuch, RetriesPublishing],
        plugins=[StreamqPlugin(queue, settings)],
    )


@pytest.fixture
def read_notes(client: Client, queue: ChunkQueue, settings: Settings) -> ReadNotes:
    """Return everything that a workflow has published, after its end."""

    async def read(workflow_id: str) -> list[str]:
        reader = WorkflowStreamClient.create(client, workflow_id, queue=queue, settings=settings)
        return [item.data async for item in reader.subscribe("notes", result_type=str)]

    return read


async def test_nothing_is_lost_where_a_workflow_continues_as_new(
    worker: Worker,
    client: Client,
    queue: ChunkQueue,
    task_queue: str,
    read_notes: ReadNotes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that waited for its publishing took signals that the next one did not know of."""
    appending, goes_on, append = asyncio.Event(), asyncio.Event(), queue.append

    async def slow(*args: Any, **options: Any) -> None:
        appending.set()
        await goes_on.wait()
        await append(*args, **options)

    monkeypatch.setattr(queue, "append", slow)
    async with asyncio.timeout(30), worker:
        first = await client.start_workflow(
            ContinuesPublishing.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        newest: WorkflowHandle[Any, Any] = client.get_workflow_handle(first.id)
        await appending.wait()
        while (await newest.describe()).run_id == first.first_execution_run_id:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a new run cannot be waited for
        await newest.signal("note", "one")
        goes_on.set()
        await newest.signal("note", "two")
        assert await newest.result() == 2
        assert sorted(await read_notes(first.id)) == ["one", "run 1", "run 2", "two"]


async def test_a_retried_workflow_is_heard(
    worker: Worker, client: Client, task_queue: str, read_notes: ReadNotes
) -> None:
    """The second attempt counts from one again; its items are no repetition of the first's."""
    async with asyncio.timeout(30), worker:
        handle = await client.start_workflow(
            RetriesPublishing.run,
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )
        await handle.result()
        assert await read_notes(handle.id) == ["attempt 1", "attempt 2"]


async def test_an_item_that_does_not_fit_fails_the_workflow(
    worker: Worker, client: Client, task_queue: str
) -> None:
    """A command that is too large would be tried for ever."""
    async with asyncio.timeout(30), worker:
        with pytest.raises(WorkflowFailureError) as caught:
            await client.execute_workflow(
                PublishesMuch.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
            )
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "ChunkTooLargeError"
