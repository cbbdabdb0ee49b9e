"""Requests that come too early or are far too large: nothing is half started."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types.a2a_pb2 import CancelTaskRequest, Part, TaskState
from a2a.utils.errors import InvalidParamsError
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent

from streamq import Settings
from streamq.driver import ChunkQueue


@pytest.fixture
async def idle_stage(client: Client, queue: ChunkQueue, settings: Settings) -> AsyncIterator[Stage]:
    """Provide replicas whose task queue has no worker."""
    stage = Stage(client, queue, settings)
    yield stage
    await stage.aclose()


async def _cancel_is_requested(stage: Stage, task_id: str) -> None:
    wanted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
    handle = stage.client.get_workflow_handle(task_id)
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.event_type is wanted:
            return


async def _started(stage: Stage) -> list[str]:
    """Return the workflows of the task queue, once Temporal shows one of them."""
    async with asyncio.timeout(20):
        while True:
            query = f"TaskQueue = '{stage.task_queue}'"
            if found := [each.id async for each in stage.client.list_workflows(query)]:
                return found
            await asyncio.sleep(0.05)


async def test_a_task_that_no_worker_has_seen_is_cancelled(idle_stage: Stage) -> None:
    """A client that changes its mind at once gets a cancelled task, and no activity ever runs."""
    replica = await idle_stage.replica()
    async with replica.starter() as client:
        task = await sent(client, request("a", at_once=True))
        cancelling = asyncio.create_task(client.cancel_task(CancelTaskRequest(id=task.id)))
        await _cancel_is_requested(idle_stage, task.id)
        async with idle_stage.worker():
            cancelled = await cancelling
    assert task.status.state == TaskState.TASK_STATE_SUBMITTED
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    assert not cancelled.artifacts


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_message_of_10_mb_starts_nothing(idle_stage: Stage, transport: str) -> None:
    """A message that Temporal would not take is refused before anything exists."""
    replica = await idle_stage.replica()
    # gRPC refuses by itself what is above its own limit of 4 MB.
    refusal = A2AClientError if transport == "GRPC" else InvalidParamsError
    async with replica.starter(transport) as client:
        with pytest.raises(refusal):
            await sent(client, request("x" * 10_000_000))
        kept = await sent(client, request("a", at_once=True))
    assert await _started(idle_stage) == [kept.id]


async def test_an_invalid_part_starts_nothing(idle_stage: Stage) -> None:
    """A part that is no part of A2A is the client's mistake, and the error says so."""
    replica = await idle_stage.replica()
    message = {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": 7}]}
    call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    headers = {"A2A-Version": "1.0", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers) as http:
        rpc = await http.post("/", content=json.dumps(call))
        rest = await http.post("/message:send", content=json.dumps({"message": message}))
    assert rpc.json()["error"]["code"] == -32602
    assert rest.status_code == 400
    async with replica.starter() as client:
        kept = await sent(client, request("a", at_once=True))
    assert await _started(idle_stage) == [kept.id]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_message_that_no_workflow_can_get_starts_nothing(
    idle_stage: Stage, transport: str
) -> None:
    """An empty part, an id without end, a number that JSON lacks: the error names the mistake."""
    replica = await idle_stage.replica()
    empty, long_context, long_id, infinite = (request("a", at_once=True) for _ in range(4))
    empty.message.parts.append(Part(filename="a"))
    long_context.message.context_id = "c" * 100_000
    long_id.message.message_id = "m" * 100_000
    infinite.message.metadata["rate"] = math.inf
    refusals = [
        (empty, r"parts\[1\] is empty"),
        (long_context, "contextId has 100000 characters"),
        (long_id, "messageId has 100000 characters"),
    ]
    if transport == "GRPC":  # the client itself cannot write it as JSON
        refusals.append((infinite, "NaN or Infinity"))
    async with replica.starter(transport) as client:
        for wanted, reason in refusals:
            with pytest.raises(InvalidParamsError, match=reason):
                await sent(client, wanted)
        kept = await sent(client, request("a", at_once=True))
    assert await _started(idle_stage) == [kept.id]
