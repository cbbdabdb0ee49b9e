"""Tests attempts of every kind on a real server: epochs grow, and readers see one sequence."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetActivityRequest, ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import (
    SOON,
    failure_of,
    ignoring_cancellation,
    outline,
    read_all,
)
from tests.temporal.support.workflows import Anew, Locally, RetriedAsAWhole

from streamq import (
    BufferFullError,
    FencedError,
    OnFull,
    OnRetry,
    Settings,
    StreamqError,
    StreamWriter,
    load_settings,
)
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, streaming_activity
from streamq.temporal._origin import Origin
from streamq.temporal.activities._context import ActivityContext
from streamq.temporal.producer._attempt import run_attempt
from streamq.temporal.producer._signature import spec_of
from streamq.testing import Block, Call, Fault, FaultyQueue, Forward

POLICIES = tuple(OnRetry)
WORKFLOWS = [Anew, Locally, RetriedAsAWhole]


def coherent(policy: OnRetry) -> list[object]:
    """Return what readers see when the first run stops after two of four chunks."""
    if policy is OnRetry.RESTART:
        return [0, 1, "RESET 2", 0, 1, 2, 3, "END"]
    return [0, 1, 2, 3, "END"]


@dataclass
class Producer:
    """Counts to four; the first run stops after two, by hanging or by an error."""

    policy: OnRetry
    error: Exception | None = None
    writers: list[StreamWriter] = field(default_factory=list)
    hangs: asyncio.Event = field(default_factory=asyncio.Event)

    def activity(self) -> Callable[..., Any]:
        @streaming_activity(name="say_slowly", on_retry=self.policy)
        async def produce(stream: StreamWriter, text: str = "") -> str:
            self.writers.append(stream)
            is_first = len(self.writers) == 1
            for i in range(stream.position, 4):
                if is_first and i == 2:
                    await stream.flush()
                    self.hangs.set()
                    if self.error is not None:
                        raise self.error
                    await asyncio.Event().wait()
                await stream.send_chunk(i)
            return text

        return produce


@dataclass
class Server:
    """Starts workflows and applies to them the operations of an operator."""

    client: Client
    task_queue: str

    async def start(self, workflow: Any, *args: Any, **options: Any) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(
            workflow,
            *args,
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=self.task_queue,
            execution_timeout=timedelta(seconds=30),
            **options,
        )

    async def stream(self, heartbeat_seconds: float = 10) -> WorkflowHandle[Any, Any]:
        request = StreamRequest("say_slowly", heartbeat_seconds=heartbeat_seconds)
        return await self.start("streamq.Stream", request)

    async def reset_workflow(self, handle: WorkflowHandle[Any, Any]) -> None:
        await self.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=self.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=handle.id),
                workflow_task_finish_event_id=4,
                request_id=handle.id,
                reason="test",
            )
        )

    async def reset_activity(self, handle: WorkflowHandle[Any, Any]) -> None:
        await self.client.workflow_service.reset_activity(
            ResetActivityRequest(
                namespace=self.client.namespace,
                execution=WorkflowExecution(workflow_id=handle.id),
                type="say_slowly",
            )
        )


Way = Callable[[Server, Producer], Awaitable[WorkflowHandle[Any, Any]]]


async def next_attempt(server: Server, producer: Producer) -> WorkflowHandle[Any, Any]:
    producer.error = ApplicationError("try again", next_retry_delay=SOON)
    return await server.stream()


async def activity_scheduled_anew(server: Server, producer: Producer) -> WorkflowHandle[Any, Any]:
    return await server.start(Anew.run)


async def workflow_retry(server: Server, producer: Producer) -> WorkflowHandle[Any, Any]:
    producer.error = ApplicationError("overloaded", non_retryable=True)
    policy = RetryPolicy(initial_interval=SOON, maximum_attempts=3)
    return await server.start(RetriedAsAWhole.run, retry_policy=policy)


async def workflow_reset(server: Server, producer: Producer) -> WorkflowHandle[Any, Any]:
    handle = await server.stream()
    await producer.hangs.wait()
    await server.reset_workflow(handle)
    return handle


async def activity_reset(server: Server, producer: Producer) -> WorkflowHandle[Any, Any]:
    handle = await server.stream()
    await producer.hangs.wait()
    await server.reset_activity(handle)
    return handle


async def local_activity_retry(server: Server, producer: Producer) -> WorkflowHandle[Any, Any]:
    producer.error = ApplicationError("try again", next_retry_delay=SOON)
    return await server.start(Locally.run)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.value)
@pytest.mark.parametrize(
    "way",
    [
        next_attempt,
        activity_scheduled_anew,
        workflow_retry,
        workflow_reset,
        activity_reset,
        local_activity_retry,
    ],
    ids=lambda way: way.__name__,
)
async def test_every_way_of_running_again_has_a_newer_epoch(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    way: Way,
    policy: OnRetry,
) -> None:
    """Readers see Reset and all chunks, or the continuation, whatever restarts the producer."""
    producer = Producer(policy)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=WORKFLOWS,
        activities=[producer.activity()],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        handle = await way(Server(client, task_queue), producer)
        assert outline(await read_all(handle, queue, settings)) == coherent(policy)
    first, second = producer.writers
    assert second.epoch > first.epoch
    assert (first.attempt, second.attempt) == (1, 2)


class Stalled(Fault):
    """A call that stalls until it is released, and ignores its own cancellation until then."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: BaseException | None = None

    async def apply(self, call: Call, forward: Forward) -> Any:
        while not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()
        try:
            return await forward(call)
        except StreamqError as exc:
            self.error = exc
            raise
        finally:
            self.ended.set()


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.value)
@pytest.mark.parametrize("place", ["describe", "append"])
async def test_attempt_that_stalls_before_opening_is_fenced_by_newer_one(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    start: Start,
    place: str,
    policy: OnRetry,
) -> None:
    """The attempt that reaches the backend last must not win if it was scheduled first."""
    stalled, faulty = Stalled(), FaultyQueue(queue)
    faulty.script(place, stalled)
    newer_open, may_end = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @streaming_activity(on_retry=policy)
    async def produce(stream: StreamWriter) -> str:
        ran.append(activity.info().attempt)
        await stream.send_chunk(0)
        await stream.flush()
        newer_open.set()
        await may_end.wait()
        await stream.send_chunk(1)
        return "newer"

    async with Worker(
        client,
        task_queue=task_queue,
        activities=[produce],
        plugins=[StreamqPlugin(faulty, settings)],
    ):
        handle = await start("produce", start_to_close_seconds=0.5)
        await newer_open.wait()
        stalled.go.set()
        await stalled.ended.wait()
        await faulty.idle("append")
        may_end.set()
        assert (await handle.result())["result"] == "newer"
        assert outline(await read_all(handle, queue, settings)) == [0, 1, "END"]
    assert ran == [2]
    if place == "append":
        assert isinstance(stalled.error, FencedError)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.value)
async def test_attempt_that_stalls_while_writing_is_fenced_by_newer_one(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings, policy: OnRetry
) -> None:
    """Output of two simultaneous attempts must not be mixed, with any retry policy."""
    newer_open = asyncio.Event()
    stale: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @streaming_activity(on_retry=policy)
    async def produce(stream: StreamWriter) -> str:
        if activity.info().attempt == 2:
            for i in range(stream.position, 2):
                await stream.send_chunk(i)
            await stream.flush()
            newer_open.set()
            assert isinstance(await stale, FencedError)
            for i in (2, 3):
                await stream.send_chunk(i)
            return "newer"
        for i in (0, 1):
            await stream.send_chunk(i)
        await stream.flush()
        await ignoring_cancellation(newer_open.wait())
        await stream.send_chunk("stale")
        try:
            await ignoring_cancellation(stream.flush())
        except FencedError as exc:
            stale.set_result(exc)
            raise
        return "older"

    async with run_worker(produce):
        handle = await start("produce", start_to_close_seconds=0.5)
        assert outline(await read_all(handle, queue, settings)) == coherent(policy)
        assert (await handle.result())["result"] == "newer"


async def test_attempt_that_wakes_after_newer_one_has_ended_does_no_work(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Its work would be discarded, and may be expensive: it is refused like any stale attempt."""
    ran: list[StreamWriter] = []

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        ran.append(stream)
        await stream.send_chunk("by the newer")

    async def attempt(scheduled: datetime) -> None:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, current_attempt_scheduled_time=scheduled)
        context = ActivityContext(queue, settings, client, Origin("run", "run", 1, False))
        spec = spec_of(produce)
        assert spec is not None
        await environment.run(run_attempt, spec, context, produce, lambda _: None)

    now = datetime.now(UTC)
    await attempt(now)
    with pytest.raises(ApplicationError, match="must stop") as caught:
        await attempt(now - timedelta(milliseconds=1))
    assert caught.value.type == "FencedError"
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([0, "other", 2], "1"),
        ([0], "1"),
    ],
    ids=["another chunk", "too few"],
)
async def test_attempt_that_replays_other_chunks_fails_without_retry(
    run_worker: Run,
    start: Start,
    queue: ChunkQueue,
    settings: Settings,
    second: Sequence[object],
    message: str,
) -> None:
    """A producer that is less deterministic than its author believes must not mix two outputs."""

    @streaming_activity(on_retry=OnRetry.REPLAY)
    async def produce(stream: StreamWriter) -> None:
        if activity.info().attempt == 1:
            for i in (0, 1):
                await stream.send_chunk(i)
            raise ApplicationError("try again", next_retry_delay=SOON)
        for value in second:
            await stream.send_chunk(value)

    async with run_worker(produce):
        handle = await start("produce", max_attempts=5)
        failure = await failure_of(handle)
        story = outline(await read_all(handle, queue, settings))
    assert isinstance(failure, ApplicationError)
    assert (failure.type, failure.non_retryable) == ("ReplayError", True)
    assert message in failure.message
    assert story == [0, 1, "ERROR"]


@pytest.mark.parametrize(
    ("on_full", "refused", "story"),
    [
        (OnFull.ERROR, 1, ["a" * 60, "END"]),
        (OnFull.DROP, 0, ["a" * 60, "END"]),
    ],
    ids=lambda each: each.value if isinstance(each, OnFull) else "",
)
async def test_activity_chooses_what_full_buffer_does(
    client: Client,
    queue: ChunkQueue,
    task_queue: str,
    start: Start,
    on_full: OnFull,
    refused: int,
    story: list[object],
) -> None:
    """The decorator's option must reach the writer: an activity may need not to wait."""
    settings = load_settings(backend="memory", buffer_bytes=100)
    slow, faulty = Block(), FaultyQueue(queue)

    def choose(call: Call) -> Fault | None:
        return None if call.entries[0].index == 0 else slow

    faulty.always("append", choose)

    @streaming_activity(on_full=on_full)
    async def produce(stream: StreamWriter) -> list[int]:
        found = 0
        await stream.send_chunk("a" * 60)
        await slow.reached()
        try:
            await stream.send_chunk("b" * 60)
        except BufferFullError:
            found += 1
        slow.release()
        return [found, stream.statistics().dropped_chunks]

    async with Worker(
        client,
        task_queue=task_queue,
        activities=[produce],
        plugins=[StreamqPlugin(faulty, settings)],
    ):
        handle = await start("produce")
        assert (await handle.result())["result"] == [refused, 1 - refused]
        assert outline(await read_all(handle, queue, settings)) == story
