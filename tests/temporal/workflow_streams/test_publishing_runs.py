"""Tests publishing from workflows, through all of their runs, by the names of Workflow Streams."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.contrib import workflow_streams as original
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.publishing_workflows import (
    ContinuesPublishing,
    PublishesMuch,
    RetriesPublishing,
    TakesSignals,
)

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin
from streamq.temporal._closing import ClosingWatch
from streamq.temporal.workflow_streams import WorkflowStreamClient, WorkflowStreamState

ReadNotes = Callable[[str], Any]


@pytest.fixture
async def worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[ContinuesPublishing, PublishesMuch, RetriesPublishing, TakesSignals],
        plugins=[StreamqPlugin(queue, settings)],
    )


@pytest.fixture
def read_notes(client: Client, queue: ChunkQueue, settings: Settings) -> ReadNotes:
    """Return a function that reads all that a workflow has published, after its end."""

    async def read(workflow_id: str) -> list[str]:
        reader = WorkflowStreamClient.create(client, workflow_id, queue=queue, settings=settings)
        return [item.data async for item in reader.subscribe("notes", result_type=str)]

    return read


async def test_continue_as_new_loses_no_item(
    worker: Worker,
    client: Client,
    queue: ChunkQueue,
    task_queue: str,
    read_notes: ReadNotes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that waited for its publishing took signals that were lost for the next one."""
    appending, goes_on, append = asyncio.Event(), asyncio.Event(), queue.append

    async def slow(*args: Any, **options: Any) -> None:
        appending.set()
        await goes_on.wait()
        await append(*args, **options)

    monkeypatch.setattr(queue, "append", slow)
    async with asyncio.timeout(90), worker:
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


async def test_items_of_retried_workflow_are_delivered(
    worker: Worker, client: Client, task_queue: str, read_notes: ReadNotes
) -> None:
    """The second attempt counts from one again; its items do not repeat those of the first."""
    async with asyncio.timeout(90), worker:
        handle = await client.start_workflow(
            RetriesPublishing.run,
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )
        await handle.result()
        assert await read_notes(handle.id) == ["attempt 1", "attempt 2"]


async def test_item_that_is_too_large_fails_the_workflow(
    worker: Worker, client: Client, task_queue: str
) -> None:
    """A command that is too large would be retried for ever."""
    async with asyncio.timeout(90), worker:
        with pytest.raises(WorkflowFailureError) as caught:
            await client.execute_workflow(
                PublishesMuch.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
            )
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "ChunkTooLargeError"


async def test_signals_do_not_fail_the_workflow(
    worker: Worker, client: Client, task_queue: str, read_notes: ReadNotes
) -> None:
    """One item is too large for an activity; ``flush`` raises that, once. Repeats are dropped."""
    old = WorkflowStreamState(sequences={"of an older state": 3})
    async with asyncio.timeout(90), worker:
        handle = await client.start_workflow(
            TakesSignals.run, old, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        publisher = original.WorkflowStreamClient.create(client, handle.id)
        notes = publisher.topic("notes", type=str)
        notes.publish("x" * 1_480_000)
        await publisher.flush()
        notes.publish("small")
        await publisher.flush()
        repeat = original.PublishInput([], publisher_id="of an older state", sequence=2)
        await handle.signal("__temporal_workflow_stream_publish", repeat)
        await handle.signal(TakesSignals.end)
        failure, [state, aged] = await handle.result()
        assert failure == "ChunkTooLargeError"
        assert sorted(state.sequences.values()) == [2, 3]
        assert state.last_seen.keys() == state.sequences.keys()
        assert aged == WorkflowStreamState()
        assert await read_notes(handle.id) == ["small"]


async def test_error_of_the_watch_is_not_the_end_of_the_workflow(
    worker: Worker, client: Client, task_queue: str, read_notes: ReadNotes, monkeypatch: Any
) -> None:
    """A subscriber that took it for the end would miss the rest in silence."""

    async def broken(*args: Any) -> str:
        raise LookupError("as the test wants")

    async with asyncio.timeout(90), worker:
        handle = await client.start_workflow(
            TakesSignals.run,
            WorkflowStreamState(),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        monkeypatch.setattr(ClosingWatch, "wait_chain", broken)
        with pytest.raises(LookupError):
            await read_notes(handle.id)
        await handle.signal(TakesSignals.end)
        await handle.result()
