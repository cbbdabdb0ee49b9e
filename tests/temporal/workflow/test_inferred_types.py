"""Tests the type of chunks that nobody asked for: annotations help, and never make reading fail.

``stream_activity`` alone infers a type, for each shape of an activity: generators, async and in
threads, and writers. ``subscribe``, ``resume_stream``, ``StreamInbox`` and the names of Workflow
Streams take only a type that is given, and keep to it.
"""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.inferred_workflows import (
    ACTIVITIES,
    ReadsAnExplicitType,
    ReadsInferredTypes,
    objects,
)
from tests.temporal.support.reading import failure_of

from streamq import Settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin


@pytest.fixture
async def worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[ReadsInferredTypes, ReadsAnExplicitType],
        activities=ACTIVITIES,
        activity_executor=ThreadPoolExecutor(2),
        plugins=[StreamqPlugin(queue, settings)],
    )


async def test_inferred_type_never_makes_reading_fail(
    client: Client, worker: Worker, task_queue: str
) -> None:
    """Nobody asked for it; a value that does not fit is delivered as its JSON."""
    async with worker:
        handle = await client.start_workflow(
            ReadsInferredTypes.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        found = await asyncio.wait_for(handle.result(), 20)
    assert found == {
        "objects": ["'text'", "{'text': 'x'}", "b'\\xff'"],
        "anything": ["{'text': 'x'}"],
        "unions": ["{'other': 'x'}", "7"],
        "lists": ["['x']", "5"],
        "variables": ["['x']", "5"],
        "protocols": ["{'text': 'x'}"],
        "opaque": ["{'text': 'x'}"],
        "unfulfilled": ["'no number'", "b'x'", "3"],
        "written": ["[1]"],
        "in_thread": ["{'text': 'x'}"],
        "kept": ["Word(text='x')"],
        "returning": ["{'text': 'x'}"],
        "returning_variable": ["{'text': 'x'}"],
        "returning_protocol": ["{'text': 'x'}"],
    }


async def test_given_type_is_kept_to(client: Client, worker: Worker, task_queue: str) -> None:
    """A workflow that asks for numbers must not get text."""
    async with worker:
        handle = await client.start_workflow(
            ReadsAnExplicitType.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        failure = await failure_of(handle)
    assert isinstance(failure, ApplicationError)
    assert failure.type == "SerializationError"
    assert objects.__name__ not in failure.message  # it states the type, not the activity
    assert "int" in failure.message
