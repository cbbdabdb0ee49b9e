"""Tests how streams of activities without a workflow end, and what their attempts do.

Endings: return, retried and final failure, cancellation, termination, time-out, shutdown, killed
worker, a result that was not reported, completion from outside, reset and pause.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.workflowservice.v1 import ResetActivityExecutionRequest
from temporalio.client import ActivityHandle, Client, PendingActivityState
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from tests.temporal.support.fixture_types import Run
from tests.temporal.support.processes import Shared, worker
from tests.temporal.support.reading import outline, read_all
from tests.temporal.support.standalone import QUICK, begin, broken, cause_of, seal_of, wait

from streamq import (
    Event,
    OnRetry,
    Seal,
    Settings,
    StreamWriter,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.temporal import (
    activity_stream_name,
    streaming_activity,
    subscribe,
)

BEAT = timedelta(seconds=2)


@streaming_activity
async def fail_once(stream: StreamWriter[str]) -> None:
    await stream.send_chunk("one")
    if activity.info().attempt == 1:
        raise broken("the first attempt")
    await stream.send_chunk("two")


@streaming_activity(on_retry=OnRetry.RESUME)
async def resume(stream: StreamWriter[str]) -> None:
    for text in ["one", "two"][stream.position :]:
        await stream.send_chunk(text)
        await stream.flush()
        if activity.info().attempt == 1:
            raise broken("the first attempt")


async def test_retry_is_a_reset_or_continues(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The second attempt takes the stream over, as in a workflow."""
    async with run_worker(fail_once, resume):
        again = await begin(client, task_queue, fail_once)
        resumed = await begin(client, task_queue, resume)
        events = await read_all(again, queue, settings)
        assert outline(events) == ["one", "RESET 2", "one", "two", "END"]
        assert outline(await read_all(resumed, queue, settings)) == ["one", "two", "END"]


@streaming_activity
async def fail(stream: StreamWriter[str], how: str) -> None:
    await stream.send_chunk("one")
    raise broken(how, for_good=how == "for good")


@pytest.mark.parametrize(
    ("how", "attempts"), [("for good", 0), pytest.param("used up", 1, marks=pytest.mark.full)]
)
async def test_final_failure_seals_error(
    run_worker: Run,
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    how: str,
    attempts: int,
) -> None:
    """Readers learn of the failure from the stream, with the reason that Temporal records."""
    policy = RetryPolicy(maximum_attempts=attempts)
    async with run_worker(fail):
        handle = await begin(client, task_queue, fail, how, retry_policy=policy)
        assert seal_of(await read_all(handle, queue, settings)) == ("ERROR", "Broken", how)
        assert how in str(await cause_of(handle))


@pytest.mark.parametrize("how", ["cancel", pytest.param("terminate", marks=pytest.mark.full)])
async def test_cancelled_or_terminated_activity_seals_cancelled(
    run_worker: Run,
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    how: str,
) -> None:
    """The producer stops with the next heartbeat, and its readers end with it."""
    async with run_worker(wait):
        handle = await begin(client, task_queue, wait, heartbeat_timeout=BEAT)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            first = await anext(events)
            await getattr(handle, how)()
            rest = [event async for event in events]
        assert outline([first, *rest]) == ["one", "CANCELLED"]
        await cause_of(handle)


async def test_last_timeout_seals_error(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Temporal records a failure, and not a cancellation: the stream agrees."""
    async with run_worker(wait):
        handle = await begin(
            client,
            task_queue,
            wait,
            start_to_close_timeout=timedelta(seconds=0.5),
            heartbeat_timeout=BEAT,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        kind, error_type, message = seal_of(await read_all(handle, queue, settings))
    assert (kind, error_type) == ("ERROR", "TimeoutError")
    assert message == "the activity has ended (TIMED_OUT)"


@streaming_activity
async def hang_once(stream: StreamWriter[str]) -> None:
    await stream.send_chunk("one")
    if activity.info().attempt == 1:
        await asyncio.Event().wait()


@pytest.mark.full
async def test_timeout_that_is_retried_leaves_the_stream_open(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Temporal says "not found" to a superseded attempt, too, which must not end the stream."""
    async with run_worker(hang_once):
        handle = await begin(
            client,
            task_queue,
            hang_once,
            start_to_close_timeout=timedelta(seconds=0.5),
            heartbeat_timeout=BEAT,
            # The first attempt hears of its end before the second one begins.
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=0.8)),
        )
        events = await read_all(handle, queue, settings)
    assert outline(events) == ["one", "RESET 2", "one", "END"]


async def test_worker_that_shuts_down_leaves_the_stream_to_the_next(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A deployment is not an ending."""
    async with run_worker(hang_once):
        handle = await begin(
            client,
            task_queue,
            hang_once,
            heartbeat_timeout=BEAT,
            retry_policy=RetryPolicy(initial_interval=QUICK),
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            await anext(events)
    async with run_worker(hang_once):
        story = await read_all(handle, queue, settings)
    assert outline(story) == ["one", "RESET 2", "one", "END"]


@streaming_activity
async def end_early(stream: StreamWriter[str]) -> str:
    """End the stream; lose the first attempt, as if the worker died before it reported."""
    await stream.send_chunk("one")
    await stream.finish()
    if activity.info().attempt == 1:
        raise broken("after the seal")
    return "result"


async def test_attempt_after_the_seal_works_for_its_result(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Readers have had the whole story; the caller still needs the result."""
    async with run_worker(end_early):
        handle = await begin(client, task_queue, end_early)
        assert await handle.result() == "result"
        assert outline(await read_all(handle, queue, settings)) == ["one", "END"]


@pytest.mark.full
async def test_killed_worker_is_followed_by_reset_and_whole_second_attempt(
    shared: Shared, client: Client, temporal_address: str, task_queue: str
) -> None:
    """kill -9 in the middle: readers see Reset, then all chunks exactly once, then the end."""
    events: list[Event] = []
    handle = await begin(
        client, task_queue, "count", 6, 3, "", heartbeat_timeout=timedelta(seconds=1)
    )
    async with subscribe(handle, queue=shared.queue, settings=shared.settings) as subscription:
        with worker(shared, temporal_address, task_queue) as first:
            events += [await anext(subscription) for _ in range(3)]
            first.kill()
            first.wait()
        with worker(shared, temporal_address, task_queue):
            events += [event async for event in subscription]
            assert await handle.result() == 2
    story = [*(f"1.{i}" for i in range(3)), "RESET 2", *(f"2.{i}" for i in range(6)), "END"]
    assert outline(events) == story


async def reset(client: Client, handle: ActivityHandle[Any]) -> None:
    await client.workflow_service.reset_activity_execution(
        ResetActivityExecutionRequest(
            namespace=client.namespace,
            activity_id=handle.id,
            run_id=str(handle.run_id),
            resource_id=f"activity:{handle.id}",
        )
    )


@streaming_activity
async def reset_once(stream: StreamWriter[str], gate: str) -> None:
    await stream.send_chunk("one")
    if _runs.setdefault(gate, 0) == 0:
        _runs[gate] = 1
        await asyncio.Event().wait()


_runs: dict[str, int] = {}


@pytest.mark.full
async def test_reset_by_an_operator_is_the_next_attempt(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Temporal counts attempts from 1 again; the stream goes on with its own number."""
    async with run_worker(reset_once):
        handle = await begin(client, task_queue, reset_once, task_queue, heartbeat_timeout=BEAT)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            first = await anext(events)
            await reset(client, handle)
            rest = [event async for event in events]
    assert outline([first, *rest]) == ["one", "RESET 2", "one", "END"]


async def test_activity_completed_from_outside_ends_its_producer(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Temporal has a result that the activity did not return: its story was cut off."""
    async with run_worker(wait):
        handle = await begin(client, task_queue, wait, heartbeat_timeout=BEAT)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            await anext(events)
            await client.get_async_activity_handle(
                activity_id=handle.id, run_id=handle.run_id
            ).complete("by hand")
            seal = await anext(events)
    assert isinstance(seal, Seal)
    assert (seal.state.name, seal.message) == ("CANCELLED", "the activity has ended (COMPLETED)")


async def test_streamq_s_own_activities_need_no_workflow_either(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A service ends, reads and sums up a stream by its name, from any SDK."""
    handle = await begin(client, "nobody", "anything")
    name = activity_stream_name(handle.id, str(handle.run_id))
    writer = await open_writer(name, queue=queue, settings=settings, epoch=1_000_001)
    await writer.send_chunk("one")
    await writer.aclose()
    await handle.terminate()
    async with run_worker():
        ask = partial(begin, client, task_queue)
        ending = {"stream": name, "state": "CANCELLED", "message": "by hand"}
        assert await (await ask("streamq.seal", ending)).result() is True
        batch = await (await ask("streamq.poll", {"stream": name})).result()
        assert [each["event"] for each in batch["events"]] == ["chunks", "end"]
        summary = await (await ask("streamq.summary", {"stream": name})).result()
        assert (summary["chunks"], summary["bytes"]) == (1, 3)
    events = await read_all(handle, queue, settings)
    assert outline(events) == ["one", "CANCELLED"]
    assert seal_of(events)[2] == "by hand"


async def test_shutdown_in_the_last_attempt_seals_error(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """No attempt follows, which Temporal records as a failure; the stream says the same."""
    policy = RetryPolicy(maximum_attempts=1)
    async with run_worker(wait):
        handle = await begin(client, task_queue, wait, heartbeat_timeout=BEAT, retry_policy=policy)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            await anext(events)
    failure = await cause_of(handle)
    seal = seal_of(await read_all(handle, queue, settings))
    assert seal[0] == "ERROR"
    assert isinstance(failure, ApplicationError)
    assert failure.type == seal[1] == "WorkerShutdown"


async def test_reset_in_the_last_attempt_is_followed_by_another(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The server counts the attempts of a standalone activity from 1 again after a reset.

    It does not so for an activity of a workflow, whose stream therefore ends.
    """
    policy = RetryPolicy(maximum_attempts=1)
    async with run_worker(reset_once):
        handle = await begin(
            client, task_queue, reset_once, task_queue, heartbeat_timeout=BEAT, retry_policy=policy
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            first = await anext(events)
            await reset(client, handle)
            rest = [event async for event in events]
        await asyncio.wait_for(handle.result(), 15)
    assert outline([first, *rest]) == ["one", "RESET 2", "one", "END"]


@pytest.mark.full
async def test_pause_leaves_the_stream_open_while_an_attempt_follows(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A pause interrupts the attempt, and the next one begins when it is over."""
    async with run_worker(reset_once):
        handle = await begin(client, task_queue, reset_once, task_queue, heartbeat_timeout=BEAT)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            first = await anext(events)
            await handle.pause()
            async with asyncio.timeout(10):
                # The attempt ends with its next heartbeat.
                while (await handle.describe()).run_state is not PendingActivityState.PAUSED:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await handle.unpause()
            rest = [event async for event in events]
    assert outline([first, *rest]) == ["one", "RESET 2", "one", "END"]


async def test_pause_in_the_last_attempt_seals_error(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The interrupted attempt counts, so that Temporal records a failure: the stream agrees."""
    policy = RetryPolicy(maximum_attempts=1)
    async with run_worker(wait):
        handle = await begin(client, task_queue, wait, heartbeat_timeout=BEAT, retry_policy=policy)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            await anext(events)
            await handle.pause()
            kind, error_type, message = seal_of([event async for event in events])
        failure = await cause_of(handle)
    assert isinstance(failure, ApplicationError)
    assert (kind, error_type, message) == ("ERROR", failure.type, failure.message)
