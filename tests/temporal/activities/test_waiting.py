"""Tests activities that wait outside of their slots: how they are given back, cancelled, reported.

``streamq.poll``, ``forward``, ``watch`` and ``result`` share one mechanism (``wait_without_slot``).
``streamq.forward`` is the one with details to keep, so that most tests run it; the kinds of ending
are the same for each. What happens on a full worker is checked for each activity of ours.
``streamq.summary``, ``sweep`` and ``end_topics`` keep their slots (``beating``); one is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.workflowservice.v1 import ResetActivityRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.converter import (
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.worker import Worker
from tests.temporal.support.forwarding_workflows import Calls
from tests.temporal.support.receiving_workflows import Gateway

from streamq import Settings, StreamWriter, open_writer
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin
from streamq.testing import Block, FaultyQueue

HOUR = 3_600.0  # a heartbeat timeout that only a report can beat

Handle = WorkflowHandle[Any, Any]


class Bench:
    """A stream of the test's own, and workers that forward it."""

    def __init__(
        self, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
    ) -> None:
        self._client = client
        self._queue = queue
        self._settings = settings
        self._task_queue = task_queue
        self.stream = f"agent-{uuid.uuid4().hex}/run/default"

    def worker(self, task_queue: str | None = None, **options: Any) -> Worker:
        return Worker(
            self._client,
            task_queue=task_queue or self._task_queue,
            workflows=[Calls, Gateway],
            plugins=[StreamqPlugin(self._queue, self._settings)],
            **options,
        )

    def writer(self) -> AbstractAsyncContextManager[StreamWriter]:
        return open_writer(self.stream, queue=self._queue, settings=self._settings)

    async def start(self, workflow: str, *args: Any) -> Handle:
        name = f"wf-{uuid.uuid4().hex}"
        return await self._client.start_workflow(
            workflow, args=args, id=name, task_queue=self._task_queue
        )

    async def forward(self, target: Handle, *args: Any, beat: float = HOUR) -> Handle:
        request = {"stream": self.stream, "target_workflow_id": target.id}
        return await self.start("Calls", "streamq.forward", request, beat, *args)


@pytest.fixture
def bench(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Bench:
    return Bench(client, queue, settings, task_queue)


async def signalled_offsets(target: Handle) -> list[int]:
    """Return the offset of every event that was signalled, repeats among them."""
    found: list[int] = []
    async for event in target.fetch_history_events():
        if event.event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            continue
        [payload] = event.workflow_execution_signaled_event_attributes.input.payloads
        for entry in json.loads(payload.data)["events"]:
            found += range(entry["offset"], entry["offset"] + len(entry.get("values", [0])))
    return found


async def wait_signalled(target: Handle, offsets: list[int]) -> None:
    async with asyncio.timeout(90):
        while await signalled_offsets(target) != offsets:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # a history cannot be waited for until a signal


async def test_forwarding_continues_on_the_next_worker_where_it_was(bench: Bench) -> None:
    """A deployment: the next worker goes on at once, and nothing is lost or sent twice."""
    forwarders = f"tq-{uuid.uuid4().hex}"
    async with bench.worker(), bench.writer() as writer, asyncio.timeout(90):
        await writer.send_chunk("a")
        await writer.send_chunk("b")
        await writer.flush()
        target = await bench.start("Gateway")
        async with bench.worker(forwarders):
            agent = await bench.forward(target, forwarders)
            await wait_signalled(target, [1, 2])
        await writer.send_chunk("c")
        await writer.finish()
        async with bench.worker(forwarders):
            received, result = await asyncio.gather(target.result(), agent.result())
    assert received["told"] == ["a", "b", "c", "END"]
    assert await signalled_offsets(target) == [1, 2, 3, 4]
    assert (result["sealed"], result["summary"]["chunks"]) == (True, 3)


@pytest.mark.parametrize("kind", ["streamq.forward", "streamq.poll", "streamq.watch"])
async def test_cancelled_wait_is_reported_as_cancelled(bench: Bench, kind: str) -> None:
    """A workflow that waits for the cancellation of an activity of ours gets it."""
    async with bench.worker(), asyncio.timeout(20):
        target = await bench.start("Gateway")
        request: dict[str, Any] = {"stream": bench.stream}
        if kind == "streamq.forward":
            request["target_workflow_id"] = target.id
        if kind == "streamq.watch":
            request = {"workflow_id": target.id, "first_run_id": target.first_execution_run_id}
        agent = await bench.start("Calls", kind, request, 0.3)
        await wait_waiting(kind)
        await agent.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await agent.result()
        await wait_waiting(None)
        await target.terminate()
    assert isinstance(caught.value.cause, ActivityError | CancelledError)


async def test_activity_whose_workflow_has_ended_stops_waiting(bench: Bench) -> None:
    """Nothing reads for a workflow that was terminated."""
    async with bench.worker(), asyncio.timeout(20):
        agent = await bench.start("Calls", "streamq.poll", {"stream": bench.stream}, 0.3)
        await wait_waiting("streamq.poll")
        await agent.terminate()
        await wait_waiting(None)


async def test_reset_activity_begins_again(bench: Bench, client: Client) -> None:
    """An operator's reset reaches an activity that waits; its next attempt forwards."""
    async with bench.worker(), bench.writer() as writer, asyncio.timeout(90):
        await writer.send_chunk("a")
        await writer.flush()
        target = await bench.start("Gateway")
        agent = await bench.forward(target, beat=0.3)
        await wait_signalled(target, [1])
        await client.workflow_service.reset_activity(
            ResetActivityRequest(
                namespace=client.namespace,
                execution=WorkflowExecution(workflow_id=agent.id),
                type="streamq.forward",
                reset_heartbeat=True,
            )
        )
        await wait_signalled(target, [1, 1])
        await writer.finish()
        assert (await target.result())["told"] == ["a", "END"]
        assert (await agent.result())["sealed"]


async def test_full_worker_lets_activities_keep_their_slots(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No activity fails because others wait: one with a single attempt does its work."""
    settings = settings.model_copy(update={"max_waiting_activities": 1})
    bench = Bench(client, queue, settings, task_queue)

    async def call(kind: str, request: object) -> Any:
        return await client.execute_activity(
            f"streamq.{kind}",
            request,
            id=f"act-{uuid.uuid4().hex}",
            task_queue=task_queue,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )

    async with bench.worker(), bench.writer() as writer, asyncio.timeout(90):
        silent = await bench.start("Calls", "streamq.poll", {"stream": "silent/run/x"}, HOUR)
        await wait_waiting("streamq.poll")
        target = await bench.start("Gateway")
        stream = {"stream": bench.stream}
        calls = [
            call("forward", stream | {"target_workflow_id": target.id}),
            call("watch", {"workflow_id": target.id, "first_run_id": target.result_run_id}),
            call("result", target.id),
            call("poll", stream),
            call("summary", stream),
            call("sweep", {"dry_run": True}),
        ]
        running = [asyncio.create_task(each) for each in calls]
        ending = await bench.start("Calls", "streamq.end_topics", {}, HOUR)
        assert await ending.result() == []
        await writer.send_chunk("a")
        await writer.finish()
        forwarded, state, outcome, *_ = await asyncio.gather(*running)
        await wait_waiting("streamq.poll")  # the first one still has the only place
        await silent.terminate()
    assert (forwarded["sealed"], state, outcome["status"]) == (True, "COMPLETED", "COMPLETED")
    warnings = [each for each in caplog.messages if "STREAMQ_MAX_WAITING_ACTIVITIES" in each]
    assert len(warnings) == 1


async def test_summaries_are_as_many_as_slots(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """They work, so that the number that users choose bounds their memory."""
    faulty = FaultyQueue(queue)
    block = Block()
    faulty.always("read", block)
    bench = Bench(client, faulty, settings, task_queue)
    request = {"stream": bench.stream}
    async with bench.worker(max_concurrent_activities=2), asyncio.timeout(90):
        begun = [await bench.start("Calls", "streamq.summary", request, HOUR) for _ in range(3)]
        await wait_begun(begun, 2)
        await wait_waiting(None)
        block.release()
        results = await asyncio.gather(*(each.result() for each in begun))
    assert [each["chunks"] for each in results] == [0, 0, 0]


class Envelope(PayloadCodec, WithSerializationContext):
    """States in each payload which activity encoded it."""

    def __init__(self, encoder: str = "") -> None:
        self._encoder = encoder

    def with_context(self, context: SerializationContext) -> Envelope:
        return Envelope(str(getattr(context, "activity_type", "")))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        name = self._encoder.encode()
        return [
            Payload(metadata={"encoding": b"envelope", "by": name}, data=each.SerializeToString())
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(each.data) if each.metadata["encoding"] == b"envelope" else each
            for each in payloads
        ]


@pytest.mark.parametrize("fails", [False, True])
async def test_payload_codec_encodes_what_is_reported(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, fails: bool
) -> None:
    """Results and failures are encrypted as those that leave a slot, in the activity's context."""
    converter = dataclasses.replace(
        client.data_converter,
        payload_codec=Envelope(),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
    config = client.config() | {"data_converter": converter}
    bench = Bench(Client(**config), queue, settings, task_queue)
    async with bench.worker(), asyncio.timeout(90):
        request = {"stream": bench.stream, "max_wait_seconds": 0, "cursor": "?" if fails else None}
        agent = await bench.start("Calls", "streamq.poll", request, HOUR)
        with contextlib.suppress(WorkflowFailureError):
            await agent.result()
        events = (await agent.fetch_history()).events
    if fails:
        [failure] = [
            each.activity_task_failed_event_attributes.failure
            for each in events
            if each.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED
        ]
        found = failure.encoded_attributes
        assert failure.message == "Encoded failure"
    else:
        [completed] = [
            each.activity_task_completed_event_attributes
            for each in events
            if each.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
        ]
        [found] = completed.result.payloads
    assert found.metadata["by"] == b"streamq.poll"


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [({"stream": ""}, "ConfigurationError"), ({"cursor": "?"}, "CursorError")],
)
async def test_failure_is_reported_with_its_type(
    bench: Bench, mistake: dict[str, str], kind: str
) -> None:
    """A mistake fails the workflow alike, whether it is found before or after the slot is left."""
    request = {"stream": bench.stream, "cursor": None} | mistake
    async with bench.worker(), asyncio.timeout(90):
        agent = await bench.start("Calls", "streamq.poll", request, HOUR)
        with pytest.raises(WorkflowFailureError) as caught:
            await agent.result()
    cause = caught.value.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    assert (cause.cause.type, cause.cause.non_retryable) == (kind, True)


async def wait_waiting(kind: str | None) -> None:
    """Wait until an activity of a type waits; with ``None`` until none does."""
    async with asyncio.timeout(10):
        while True:
            names = [each.get_name() for each in asyncio.all_tasks()]
            waiting = [each for each in names if each.endswith(" waiting")]
            if waiting == ([f"{kind} waiting"] if kind else []):
                return
            await asyncio.sleep(0.02)  # nothing states that an activity has begun to wait


async def wait_begun(handles: list[Handle], count: int) -> None:
    """Wait until as many activities of workflows have begun."""
    states: list[int] = []
    while states.count(PendingActivityState.PENDING_ACTIVITY_STATE_STARTED) != count:
        await asyncio.sleep(0.02)  # nothing states that an activity has begun
        found = [(await each.describe()).raw_description for each in handles]
        states = [pending.state for each in found for pending in each.pending_activities]
