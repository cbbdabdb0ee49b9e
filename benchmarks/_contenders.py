"""The contenders of ``cost``: ways for a workflow, or its readers, to get an activity's chunks.

Each contender runs the same producer: chunks of 100 bytes, stamped when they are sent, at a steady
rate. All use one worker in this process, without the sandbox, so that workflow code can read the
clock and record the age of a chunk on arrival.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamClient
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks._stamp import age_ms, sent_ns, stamped
from streamq import Chunk, Settings, StreamWriter, open_reader
from streamq.driver import ChunkQueue, StreamId
from streamq.temporal import (
    BATCH_SIGNAL,
    StreamInbox,
    StreamqPlugin,
    stream_activity,
    streaming_activity,
    subscribe,
)

Polling: TypeAlias = Literal["activity", "local"]

TASK_QUEUE = "cost"
HEARTBEAT_SECONDS = 10.0

_HOUR = timedelta(hours=1)
_SUBSCRIBERS = 100
_HEARTBEAT = timedelta(seconds=HEARTBEAT_SECONDS)


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a producer: ``chunks`` of 100 bytes, ``rate`` per second (0: no limit)."""

    chunks: int = 1_000
    rate: float = 200.0


@dataclass(slots=True)
class Arrivals:
    """The chunks that one consumer received: their ages in ms, and the stamp of the first."""

    ages: list[float] = field(default_factory=list)
    first_sent_ns: int = 0

    def note(self, chunk: str | bytes) -> None:
        """Record the arrival of a chunk."""
        if not self.first_sent_ns:
            self.first_sent_ns = sent_ns(chunk)
        self.ages.append(age_ms(chunk))


ARRIVED: dict[str, Arrivals] = {}
"""By the workflow's id, recorded by the consumer inside a workflow."""

_POPPED: defaultdict[str, asyncio.Queue[str | None]] = defaultdict(asyncio.Queue)


def arrivals_here() -> Arrivals:
    """Start counting in a workflow; a replay counts again from the start."""
    arrived = ARRIVED[workflow.info().workflow_id] = Arrivals()
    return arrived


async def paced(load: Load) -> AsyncIterator[str]:
    """Yield the chunks, each stamped at its time."""
    started = time.monotonic()
    for i in range(load.chunks):
        if load.rate:
            await asyncio.sleep(max(started + i / load.rate - time.monotonic(), 0.0))
        elif i % 100 == 0:
            await asyncio.sleep(0)
        yield stamped()


# --- streamq --------------------------------------------------------------------------------------


@streaming_activity
async def tokens(load: Load, stream: StreamWriter) -> None:
    """Stream the chunks."""
    async for chunk in paced(load):
        await stream.send_chunk(chunk)


@workflow.defn
class Follow:
    """Gets the chunks of its own activity."""

    @workflow.run
    async def run(
        self, load: Load, polling: Literal["activity", "local"], window_ms: float
    ) -> None:
        """Start the producer and follow it."""
        arrived = arrivals_here()
        async with stream_activity(
            tokens,
            load,
            polling=polling,
            window=_milliseconds(window_ms),
            start_to_close_timeout=_HOUR,
            heartbeat_timeout=_HEARTBEAT,
        ) as stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    arrived.note(event.data)
            await stream.result()


@workflow.defn
class Receive:
    """Gets the chunks of another workflow's activity by signals."""

    @workflow.init
    def __init__(self) -> None:
        self.inbox: StreamInbox[Any] = StreamInbox()

    @workflow.signal(name=BATCH_SIGNAL)
    def on_batch(self, batch: dict[str, Any]) -> None:
        """Receive a batch."""
        self.inbox.put(batch)

    @workflow.run
    async def run(self) -> None:
        """Wait for the stream to end."""
        arrived = arrivals_here()
        async for event in self.inbox:
            if isinstance(event, Chunk):
                arrived.note(event.data)


# --- Workflow Streams -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publishing:
    """Options of Workflow Streams for publishing and polling; ``None`` is their default.

    ``flush_each`` requests that each chunk is sent at once; chunks that arrive while a signal is on
    its way share the next one. ``await_each`` waits for each chunk, so that none shares its signal.
    """

    load: Load
    batch_ms: float | None = None
    flush_each: bool = False
    await_each: bool = False
    cooldown_ms: float | None = None


@activity.defn
async def publish_tokens(how: Publishing) -> None:
    """Publish the chunks through signals to the workflow."""
    options: dict[str, Any] = {}
    if how.batch_ms is not None:
        options["batch_interval"] = _milliseconds(how.batch_ms)
    client = WorkflowStreamClient.from_within_activity(**options)
    topic = client.topic("tokens", type=str)
    async with client:
        sent = 0
        async for chunk in paced(how.load):
            sent += 1
            topic.publish(chunk, force_flush=how.flush_each and sent < how.load.chunks)
            if how.await_each:
                await client.flush()
        # Leaving the block hangs on Python 3.11 if a forced flush has just woken its task.
        await client.flush()


@workflow.defn
class Published:
    """Hosts a workflow stream."""

    @workflow.init
    def __init__(self, how: Publishing) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, how: Publishing) -> None:
        """Run the producer."""
        await workflow.execute_activity(
            publish_tokens,
            how,
            start_to_close_timeout=_HOUR,
        )


# --- one poll activity for each chunk -------------------------------------------------------------


@activity.defn
async def push_tokens(load: Load) -> None:
    """Push the chunks onto a list."""
    pushed = _POPPED[str(activity.info().workflow_id)]
    async for chunk in paced(load):
        pushed.put_nowait(chunk)
    pushed.put_nowait(None)


@activity.defn
async def pop_token() -> str | None:
    """Take one chunk off the list, waiting for it."""
    return await _POPPED[str(activity.info().workflow_id)].get()


@workflow.defn
class Popping:
    """Gets each chunk by an activity of its own."""

    @workflow.run
    async def run(self, load: Load) -> None:
        """Run the producer and pop."""
        producer = workflow.start_activity(push_tokens, load, start_to_close_timeout=_HOUR)
        arrived = arrivals_here()
        while chunk := await workflow.execute_activity(pop_token, start_to_close_timeout=_HOUR):
            arrived.note(chunk)
        await producer


# --- running them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one contender with one load.

    Attributes:
        workflow_ids: The workflows that it used, without children.
        ages: Age of each chunk on arrival, in ms, at all consumers.
        first_ms: Age of the first chunk, on average.
        start_ms: Time from the request for the workflow to the sending of the first chunk.
        complete: Number of consumers that got every chunk.
        consumers: Number of consumers.
        seconds: Time from the request for the workflow to the end of the last consumer.
    """

    workflow_ids: list[str]
    ages: list[float]
    first_ms: float
    start_ms: float
    complete: int
    consumers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Stage:
    """The environment of all contenders: a client, a queue, and one worker."""

    client: Client
    queue: ChunkQueue
    settings: Settings


Contender = Callable[[Stage, Load, int], Awaitable[Outcome]]
"""Runs a load with a number of readers outside the workflow."""


@asynccontextmanager
async def stage(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    *,
    workflows: Sequence[type] = (),
) -> AsyncIterator[Stage]:
    """Run a worker with every contender, and optionally other workflows."""
    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        activities=[tokens, publish_tokens, push_tokens, pop_token, nothing],
        workflows=[Follow, Receive, Published, Popping, RoundTrips, *workflows],
        workflow_runner=UnsandboxedWorkflowRunner(),
        plugins=[StreamqPlugin(queue, settings)],
    ):
        yield Stage(client, queue, settings)


def generic(**request: Any) -> Contender:
    """Return ``streamq.Stream`` with a request; the consumers are direct readers."""

    async def run(stage: Stage, load: Load, readers: int) -> Outcome:
        return await _consume(stage, load, readers, "streamq.Stream", _request(load, request))

    return run


def follow(polling: Polling, window_ms: float) -> Contender:
    """Return a workflow that follows its own activity with ``stream_activity``."""

    async def run(stage: Stage, load: Load, readers: int) -> Outcome:
        return await _consume(stage, load, readers, Follow.run, load, polling, window_ms)

    return run


def signalled(window_ms: float) -> Contender:
    """Return ``streamq.Stream`` that signals batches to a second workflow, which consumes."""

    async def run(stage: Stage, load: Load, readers: int) -> Outcome:
        _, receiver = await _start(stage, Receive.run)
        request = _request(
            load,
            {
                "delivery": "signal",
                "target_workflow_id": receiver.id,
                "window_seconds": window_ms / 1_000,
                "summary": False,
            },
        )
        return await _consume(stage, load, readers, "streamq.Stream", request, receiver=receiver)

    return run


def popping(stage: Stage, load: Load, readers: int) -> Awaitable[Outcome]:
    """One poll activity for each chunk; popping removes a chunk, so there is one reader."""
    return _consume(stage, load, 0, Popping.run, load)


def workflow_streams(
    *,
    batch_ms: float | None = None,
    flush_each: bool = False,
    await_each: bool = False,
    cooldown_ms: float | None = None,
) -> Contender:
    """Return Workflow Streams with readers outside; the workflow itself reads nothing."""

    async def run(stage: Stage, load: Load, readers: int) -> Outcome:
        started, handle = await _start(
            stage, Published.run, Publishing(load, batch_ms, flush_each, await_each, cooldown_ms)
        )
        cooldown = 100.0 if cooldown_ms is None else cooldown_ms

        async def read() -> Arrivals:
            arrived = Arrivals()
            source = WorkflowStreamClient.create(stage.client, handle.id)
            try:
                async for item in source.subscribe(
                    "tokens", result_type=str, poll_cooldown=_milliseconds(cooldown)
                ):
                    arrived.note(item.data)
            except (RPCError, WorkflowUpdateFailedError):
                pass  # too many updates, at once or in total: this reader stays incomplete
            return arrived

        arrived = await asyncio.gather(*(read() for _ in range(readers)))
        await handle.result()
        return _outcome(load, started, [handle.id], arrived)

    return run


def _request(load: Load, request: Mapping[str, Any]) -> dict[str, Any]:
    base = {"activity": "tokens", "args": [{"chunks": load.chunks, "rate": load.rate}]}
    return base | dict(request)


async def _start(
    stage: Stage, kind: Any, *arguments: object
) -> tuple[int, WorkflowHandle[Any, Any]]:
    started = time.monotonic_ns()
    handle = await stage.client.start_workflow(
        kind, args=arguments, id=f"cost-{uuid.uuid4().hex}", task_queue=TASK_QUEUE
    )
    return started, handle


async def _consume(
    stage: Stage,
    load: Load,
    readers: int,
    kind: Any,
    *arguments: object,
    receiver: WorkflowHandle[Any, Any] | None = None,
) -> Outcome:
    """Run a workflow with direct readers; if a workflow consumes, its arrivals count instead.

    A hundred readers subscribe; further ones get the stream's name and read the queue.
    """
    started, handle = await _start(stage, kind, *arguments)
    stream: asyncio.Future[StreamId] = asyncio.get_running_loop().create_future()

    async def subscribed() -> Arrivals:
        arrived = Arrivals()
        async with subscribe(handle, queue=stage.queue, settings=stage.settings) as events:
            if not stream.done():
                stream.set_result(events.stream)
            async for event in events:
                if isinstance(event, Chunk):
                    arrived.note(event.data)
        return arrived

    async def read() -> Arrivals:
        arrived = Arrivals()
        opening = open_reader(await stream, queue=stage.queue, settings=stage.settings)
        async with opening as reader:
            while reader.seal is None:
                for event in await reader.read_batch():
                    if isinstance(event, Chunk):
                        arrived.note(event.data)
        return arrived

    subscribers = min(readers, _SUBSCRIBERS)
    outside = await asyncio.gather(
        *(subscribed() for _ in range(subscribers)), *(read() for _ in range(readers - subscribers))
    )
    workflows = [handle] if receiver is None else [handle, receiver]
    for each in workflows:
        await each.result()
    inside = ARRIVED.pop(workflows[-1].id, None)
    return _outcome(
        load,
        started,
        [each.id for each in workflows],
        outside if inside is None else [inside],
    )


def _outcome(
    load: Load, started_ns: int, workflow_ids: list[str], arrived: list[Arrivals]
) -> Outcome:
    sent = [each.first_sent_ns for each in arrived if each.ages]
    return Outcome(
        workflow_ids=workflow_ids,
        ages=[age for each in arrived for age in each.ages],
        first_ms=statistics.mean([each.ages[0] for each in arrived if each.ages] or [math.nan]),
        start_ms=(min(sent) - started_ns) / 1e6 if sent else math.nan,
        complete=sum(len(each.ages) == load.chunks for each in arrived),
        consumers=len(arrived),
        seconds=(time.monotonic_ns() - started_ns) / 1e9,
    )


# --- the round trip of an empty activity ----------------------------------------------------------


@activity.defn
async def nothing() -> None:
    """Do nothing."""


@workflow.defn
class RoundTrips:
    """Empty activities, one after the other."""

    @workflow.run
    async def run(self, count: int) -> None:
        """Run them."""
        for _ in range(count):
            await workflow.execute_activity(nothing, start_to_close_timeout=_HOUR)


async def round_trip_ms(client: Client, count: int = 50) -> float:
    """Return the mean time of an empty activity."""
    started = time.perf_counter()
    await client.execute_workflow(
        RoundTrips.run, count, id=f"empty-{uuid.uuid4().hex}", task_queue=TASK_QUEUE
    )
    return (time.perf_counter() - started) * 1_000 / count


def _milliseconds(value: float) -> timedelta:
    return timedelta(milliseconds=value)
