"""One topic and more than one call: nothing is lost, blended or discarded in silence."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import SOON, outline, read_all
from tests.temporal.support.workflows import AtOnce, OneAfterTheOther, RetriedAsAWhole, Turns

from streamq import Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, streaming_activity


async def run_workflow(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    workflow: type,
    activities: Sequence[Callable[..., Any]],
    retry_policy: RetryPolicy | None = None,
) -> tuple[WorkflowHandle[Any, Any], BaseException | None, object]:
    """Run a workflow to its end; return its handle, the failure's last cause and the result."""
    task_queue = f"tq-{uuid.uuid4().hex}"
    plugin = StreamqPlugin(queue, settings)
    async with Worker(
        client, task_queue=task_queue, workflows=[workflow], activities=activities, plugins=[plugin]
    ):
        handle = await client.start_workflow(
            workflow.run,  # type: ignore[attr-defined]
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            retry_policy=retry_policy,
            execution_timeout=timedelta(seconds=30),
        )
        try:
            return handle, None, await handle.result()
        except Exception as exc:  # noqa: BLE001 - told apart by the test
            cause: BaseException | None = exc
            while cause is not None and not isinstance(cause, ApplicationError):
                cause = cause.__cause__
            return handle, cause, None


@streaming_activity(name="say_slowly")
async def say_slowly(stream: StreamWriter, text: str) -> str:
    await asyncio.sleep(0.1)
    await stream.send_chunk(text)
    await stream.flush()
    await asyncio.sleep(0.1)
    return text


async def test_two_calls_at_once_on_one_topic_do_not_lose_output_in_silence(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Scheduled in one millisecond they would even have the same epoch: one must fail, loudly."""
    handle, failure, _ = await run_workflow(client, queue, settings, AtOnce, [say_slowly])
    assert isinstance(failure, ApplicationError), "the workflow must not succeed"
    assert (failure.type, failure.non_retryable) == ("FencedError", True)
    assert "stream_topic" in failure.message
    started = [
        event.activity_task_started_event_attributes.attempt
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert set(started) <= {1}, "a retry would take the stream from the call that has it"


async def test_second_call_on_a_topic_that_has_ended_fails_and_names_the_remedy(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A stream ends once; the second call's output must not vanish while the workflow succeeds."""
    handle, failure, _ = await run_workflow(client, queue, settings, OneAfterTheOther, [say_slowly])
    assert isinstance(failure, ApplicationError)
    assert failure.type == "SealedError"
    assert failure.non_retryable
    assert "stream_topic" in failure.message
    assert outline(await read_all(handle, queue, settings)) == ["first", "END"]


async def test_next_turn_after_continue_as_new_needs_a_topic_of_its_own(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """The name is the same for the whole chain, and the first turn has ended the stream."""
    _, failure, _ = await run_workflow(client, queue, settings, Turns, [say_slowly])
    assert isinstance(failure, ApplicationError)
    assert failure.type == "SealedError"


async def test_workflow_retry_is_the_next_attempt_of_the_stream(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """What the activity calls final is not, if the workflow will be tried again as a whole."""
    runs: list[int] = []

    @streaming_activity(name="say_slowly")
    async def fails_once(stream: StreamWriter, text: str) -> str:
        runs.append(1)
        await stream.send_chunk(f"run {len(runs)}")
        if len(runs) == 1:
            raise ApplicationError("model overloaded", non_retryable=True)
        return text

    policy = RetryPolicy(initial_interval=SOON, maximum_attempts=3)
    handle, failure, result = await run_workflow(
        client, queue, settings, RetriedAsAWhole, [fails_once], policy
    )
    assert (failure, result) == (None, "only")
    assert outline(await read_all(handle, queue, settings)) == ["run 1", "RESET 2", "run 2", "END"]


async def test_last_run_of_a_retried_workflow_seals_its_failure(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """When nobody will try again the readers are told."""

    @streaming_activity(name="say_slowly")
    async def always_fails(stream: StreamWriter, text: str) -> str:
        await stream.send_chunk(text)
        raise ApplicationError("no such model", type="ModelError", non_retryable=True)

    policy = RetryPolicy(initial_interval=SOON, maximum_attempts=2)
    handle, failure, _ = await run_workflow(
        client, queue, settings, RetriedAsAWhole, [always_fails], policy
    )
    assert isinstance(failure, ApplicationError)
    story = outline(await read_all(handle, queue, settings))
    assert story == ["only", "RESET 2", "only", "ERROR"]


async def test_block_around_the_stream_does_not_end_it_for_the_next_attempt(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """`async with stream:` is natural to write; a passing failure inside must stay passing."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        async with stream:
            attempt = activity.info().attempt
            await stream.send_chunk(f"attempt {attempt}")
            if attempt == 1:
                raise ValueError("passing")
        return "done"

    async with run_worker(produce):
        handle = await start("produce")
        assert (await handle.result())["result"] == "done"
        story = outline(await read_all(handle, queue, settings))
    assert story == ["attempt 1", "RESET 2", "attempt 2", "END"]


async def test_heartbeats_carry_the_durable_position(
    run_worker: Run, start: Start, client: Client
) -> None:
    """Whoever looks at the activity in Temporal sees how far it has come."""
    release = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        for text in "abc":
            await stream.send_chunk(text)
        await release.wait()

    async with run_worker(produce):
        handle = await start("produce", heartbeat_seconds=0.6)

        async def seen() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            details = [a.heartbeat_details for a in pending if a.HasField("heartbeat_details")]
            return any(b'"position":3' in p.data for d in details for p in d.payloads)

        async with asyncio.timeout(10):
            while not await seen():  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.05)
        release.set()
        await handle.result()
