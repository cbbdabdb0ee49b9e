"""Tests that an attempt which Temporal stops leaves its stream open only if another one can follow.

Shutdown of the worker, reset and pause of the activity reach every shape of producer as a
cancellation; ``producer/_leaving.py`` decides for all of them. The shapes that differ in how it
reaches them are a coroutine, a thread, and a writer that the activity opened itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    ResetActivityRequest,
    UnpauseActivityRequest,
)
from temporalio.client import WorkflowHandle
from tests.temporal.support.bench import Bench
from tests.temporal.support.reading import outline

from streamq import BlockingStreamWriter, Seal, StreamWriter, open_writer
from streamq.temporal import stream_name, streaming_activity, subscribe


class Runs:
    """Counts the runs of a producer; the first one hangs."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self) -> bool:
        self.count += 1
        return self.count == 1


def in_the_loop(bench: Bench, runs: Runs) -> Callable[..., Any]:
    @streaming_activity
    async def produce(text: str, stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        if runs.begin():
            await asyncio.Event().wait()

    return produce


def in_a_thread(bench: Bench, runs: Runs) -> Callable[..., Any]:
    @streaming_activity
    def produce(text: str, stream: BlockingStreamWriter) -> None:
        stream.send_chunk("half")
        if runs.begin():
            while True:
                time.sleep(0.01)  # as code that knows nothing of Temporal

    return produce


def own_writer(bench: Bench, runs: Runs) -> Callable[..., Any]:
    @activity.defn
    async def produce(text: str) -> None:
        info = activity.info()
        name = stream_name(str(info.workflow_id), str(info.workflow_run_id))
        async with open_writer(name, queue=bench.queue, settings=bench.settings) as stream:
            await stream.send_chunk("half")
            if runs.begin():
                while True:
                    activity.heartbeat()
                    await asyncio.sleep(0.05)

    return produce


by_shape = pytest.mark.parametrize(
    "shape", [in_the_loop, in_a_thread, own_writer], ids=lambda each: each.__name__
)
by_attempts = pytest.mark.parametrize("max_attempts", [1, 2])


async def first_chunk(bench: Bench, handle: WorkflowHandle[Any, Any]) -> None:
    async with subscribe(handle, queue=bench.queue, settings=bench.settings) as events:
        await anext(events)


def activity_of(handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    return {
        "namespace": "default",
        "execution": WorkflowExecution(workflow_id=handle.id),
        "type": "produce",
    }


async def check(
    bench: Bench, handle: WorkflowHandle[Any, Any], max_attempts: int, kind: str
) -> None:
    events, outcome = await bench.ending(handle)
    seal = events[-1]
    assert isinstance(seal, Seal)
    if max_attempts == 1:
        assert outline(events) == ["half", "ERROR"]
        assert (outcome.state, outcome.type, outcome.message) == ("FAILED", kind, seal.message)
        assert seal.error_type == kind
    else:
        assert outline(events) == ["half", "RESET 2", "half", "END"]
        assert outcome.state == "COMPLETED"


@by_shape
@by_attempts
async def test_shutdown_of_the_worker(bench: Bench, shape: Any, max_attempts: int) -> None:
    """A deployment must not leave the readers of a last attempt without an ending."""
    produce = shape(bench, Runs())
    worker = bench.worker(produce)
    running = asyncio.create_task(worker.run())
    handle = await bench.start(max_attempts=max_attempts)
    await first_chunk(bench, handle)
    await worker.shutdown()
    await running
    async with bench.worker(produce):
        await check(bench, handle, max_attempts, "WorkerShutdown")


@by_shape
@by_attempts
async def test_reset_of_the_activity(bench: Bench, shape: Any, max_attempts: int) -> None:
    """An operator's reset ends the only attempt that the policy allows, and no other follows."""
    async with bench.worker(shape(bench, Runs())):
        handle = await bench.start(max_attempts=max_attempts)
        await first_chunk(bench, handle)
        request = ResetActivityRequest(**activity_of(handle))
        await bench.client.workflow_service.reset_activity(request)
        await check(bench, handle, max_attempts, "ActivityReset")


@by_shape
async def test_pause_of_the_activity(bench: Bench, shape: Any) -> None:
    """Temporal makes another attempt after a pause, also if the policy allows one only."""
    async with bench.worker(shape(bench, Runs())):
        handle = await bench.start(max_attempts=1)
        await first_chunk(bench, handle)
        service = bench.client.workflow_service
        await service.pause_activity(PauseActivityRequest(**activity_of(handle)))
        async with asyncio.timeout(10):
            while not await is_stopped(handle):  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # the server has no event for it
        await service.unpause_activity(UnpauseActivityRequest(**activity_of(handle)))
        await check(bench, handle, 2, "")


async def is_stopped(handle: WorkflowHandle[Any, Any]) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    return any(each.attempt == 2 for each in pending)
