"""Tests mistakes in workflow code: they must fail the workflow, and state the mistake."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.mistaken_workflows import Mistaken, Publishes, line, plain

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin

ABOUT = {
    "polling": "neither 'activity' nor 'local'",
    "detached polling": "neither 'activity' nor 'local'",
    "large": "args have",
    "long": "more than 1536; use a shorter topic",
    "not decorated": "@streaming_activity",
    "topic": "a/b",
}


async def begin(client: Client, task_queue: str, mistake: str) -> WorkflowHandle[Mistaken, str]:
    return await client.start_workflow(
        Mistaken.run, mistake, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
    )


@pytest.mark.parametrize("mistake", ABOUT)
async def test_mistake_in_workflow_code_fails_the_workflow(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, mistake: str
) -> None:
    """A failed task is retried for ever, and a producer started before would run in vain."""
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Mistaken],
        activities=[line, plain],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        handle = await begin(client, task_queue, mistake)
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 10)
        events = [event async for event in handle.fetch_history_events()]
    failure = caught.value.cause
    assert isinstance(failure, ApplicationError)
    assert (failure.type, failure.non_retryable) == ("ConfigurationError", True)
    assert ABOUT[mistake] in failure.message
    assert not any(
        event.HasField("start_child_workflow_execution_initiated_event_attributes")
        or event.HasField("activity_task_scheduled_event_attributes")
        for event in events
    )


async def test_without_the_plugin_the_failure_states_the_remedy(
    client: Client, task_queue: str
) -> None:
    """A poll that no worker has would be retried for ever."""
    async with Worker(client, task_queue=task_queue, workflows=[Mistaken], activities=[line]):
        handle = await begin(client, task_queue, "no plugin")
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 8)
    failure = caught.value.cause
    assert isinstance(failure, ActivityError)
    assert "StreamqPlugin" in str(failure.cause)


@pytest.mark.parametrize("waits", [False, True])
async def test_without_the_plugin_publishing_fails(
    client: Client, task_queue: str, waits: bool
) -> None:
    """Items would be lost, while an activity that no worker has is retried for ever."""
    async with Worker(client, task_queue=task_queue, workflows=[Publishes], activities=[line]):
        handle = await client.start_workflow(
            Publishes.run, waits, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 8)
    assert isinstance(caught.value.cause, ApplicationError)
    assert "StreamqPlugin" in caught.value.cause.message
