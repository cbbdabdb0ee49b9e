"""Tests ``streamq.forward`` by delivery ``signal``: an agent's workflow streams to a gateway's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from tests.temporal.support.fixture_types import Start
from tests.temporal.support.reading import SOON, failure_of
from tests.temporal.support.receiving_workflows import Gateway

from streamq import Settings, StreamWriter
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, streaming_activity
from streamq.temporal.activities import _forward as forwarding


@streaming_activity
async def count(stream: StreamWriter, chunks: int) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
    return "counted"


@streaming_activity
async def count_slowly(stream: StreamWriter, chunks: int) -> None:
    for i in range(chunks):
        await stream.send_chunk(i)
        await asyncio.sleep(0.02)


class RunChain(Protocol):
    def __call__(self, *activities: Any) -> Worker: ...


@pytest.fixture
def run_chain(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> RunChain:
    """Return a function that runs a worker with activities, streamq.Stream and the gateway."""

    def run(*activities: Any) -> Worker:
        return Worker(
            client,
            task_queue=task_queue,
            activities=activities,
            workflows=[Gateway],
            plugins=[StreamqPlugin(queue, settings)],
        )

    return run


async def gateway(client: Client, task_queue: str) -> WorkflowHandle[Any, Any]:
    name = f"gw-{uuid.uuid4().hex}"
    return await client.start_workflow("Gateway", id=name, task_queue=task_queue)


async def wait_received(target: WorkflowHandle[Any, Any]) -> list[Any]:
    """Return what the gateway has received, once that is something."""
    async with asyncio.timeout(90):
        while True:
            told: list[Any] = await target.query("told")
            if told:
                return told
            await asyncio.sleep(0.02)  # a query cannot be waited for


async def test_agent_streams_to_gateway_workflow(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """The usual chain: the gateway has every chunk once, in order, and the end."""
    async with run_chain(count):
        target = await gateway(client, task_queue)
        agent = await start("count", 2_500, delivery="signal", target_workflow_id=target.id)
        result = await agent.result()
        received = await target.result()
        history = await agent.fetch_history()
        replayed = await target.fetch_history()
    assert received["told"] == [*range(2_500), "END"]
    assert received["offsets"] == list(range(1, 2_502))
    assert (result["result"], result["chunks"], result["error"]) == ("counted", 2_500, None)
    assert len(result["digest"]) == 64
    assert len(history.events) < 30  # batches, and none of them in the agent's history
    replayer = Replayer(workflows=[Gateway], plugins=[StreamqPlugin()])
    await replayer.replay_workflow(replayed)


async def test_first_chunk_is_signalled_at_once(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """A long window saves signals; it must not delay the first chunk."""
    may_end = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("first")
        await may_end.wait()

    async with run_chain(produce):
        target = await gateway(client, task_queue)
        await start("produce", delivery="signal", target_workflow_id=target.id, window_seconds=600)
        assert await wait_received(target) == ["first"]
        may_end.set()
        received = await target.result()
    assert received["told"] == ["first", "END"]


async def test_receiver_may_continue_as_new(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """A gateway runs for long; its next run reads, once, what this run had not read."""
    async with run_chain(count_slowly):
        target = await gateway(client, task_queue)
        await start(
            "count_slowly", 200, delivery="signal", target_workflow_id=target.id, window_seconds=0
        )
        received = await asyncio.wait_for(target.result(), 60)
    assert received["runs"] > 2
    assert received["offsets"] == list(range(1, 202))


async def test_forwarder_that_crashes_resumes_at_its_checkpoint(
    run_chain: RunChain,
    start: Start,
    client: Client,
    task_queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Signals that were sent just before a crash come twice; the inbox takes each chunk once."""
    sent, attempts = 0, []
    send = forwarding._Forwarding._send

    async def failing(self: Any, packer: Any) -> None:
        nonlocal sent
        attempts.append(activity.info().attempt)
        await send(self, packer)
        sent += 1
        if sent in (3, 6):
            raise ApplicationError("the worker dies after sending", next_retry_delay=SOON)

    monkeypatch.setattr(forwarding._Forwarding, "_send", failing)
    async with run_chain(count_slowly):
        target = await gateway(client, task_queue)
        agent = await start(
            "count_slowly", 60, delivery="signal", target_workflow_id=target.id, window_seconds=0.1
        )
        received = await asyncio.wait_for(target.result(), 60)
        result = await agent.result()
    assert attempts[-1] == 3
    assert received["offsets"] == list(range(1, 62))
    # What an attempt that goes on cannot know is read again.
    assert (result["chunks"], len(result["digest"])) == (60, 64)


async def test_worker_that_restarts_goes_on_forwarding(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """A deployment in the middle of a stream is not noticed."""
    async with run_chain(count_slowly):
        target = await gateway(client, task_queue)
        agent = await start(
            "count_slowly", 50, delivery="signal", target_workflow_id=target.id, window_seconds=0.05
        )
        await wait_received(target)
    async with run_chain(count_slowly):
        received = await asyncio.wait_for(target.result(), 60)
        await agent.result()
    told = received["told"]
    assert received["offsets"] == list(range(1, len(told) + 1))
    assert told[told.index("reset") + 1 :] == [*range(50), "END"]


async def test_failure_reaches_the_receiver(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """A producer that fails between two attempts must not leave the gateway waiting."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        raise ApplicationError("broken", type="ModelError", non_retryable=True)

    async with run_chain(produce):
        target = await gateway(client, task_queue)
        agent = await start("produce", delivery="signal", target_workflow_id=target.id)
        failure = await failure_of(agent)
        received = await asyncio.wait_for(target.result(), 20)
    assert isinstance(failure, ApplicationError)
    assert failure.type == "ModelError"
    assert received["told"] == ["half", "ERROR"]


async def test_cancelling_the_agent_reaches_the_gateway(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """Delivery signal: cancellation reaches the producer, and its seal reaches the receiver."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("working")
        await asyncio.Event().wait()

    async with run_chain(produce):
        target = await gateway(client, task_queue)
        agent = await start(
            "produce", delivery="signal", target_workflow_id=target.id, heartbeat_seconds=1
        )
        await wait_received(target)
        await agent.cancel()
        with pytest.raises(WorkflowFailureError):
            await agent.result()
        received = await asyncio.wait_for(target.result(), 20)
        assert (await agent.describe()).status.name == "CANCELED"  # type: ignore[union-attr]
    assert received["told"] == ["working", "CANCELLED"]


async def test_missing_target_does_not_fail_the_work(run_chain: RunChain, start: Start) -> None:
    """A mistyped workflow id costs the forwarding, not the result, which states the reason."""
    async with run_chain(count):
        agent = await start("count", 5, delivery="signal", target_workflow_id="nobody")
        result = await asyncio.wait_for(agent.result(), 20)
    assert (result["result"], result["chunks"]) == ("counted", 5)
    assert "forwarding stopped: TargetNotFoundError" in result["error"]
    assert "'nobody'" in result["error"]


async def test_activity_that_does_not_stream_is_not_forwarded_for_ever(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """Delivery signal of an ordinary activity ends with the activity."""

    @activity.defn
    async def plain() -> str:
        return "plain"

    async with run_chain(plain):
        target = await gateway(client, task_queue)
        agent = await start("plain", delivery="signal", target_workflow_id=target.id)
        result = await asyncio.wait_for(agent.result(), 20)
        await target.terminate()
    assert (result["result"], result["chunks"], result["error"]) == ("plain", 0, None)


async def test_chunk_that_cannot_be_forwarded_is_reported_to_the_receiver(
    run_chain: RunChain, start: Start, client: Client, task_queue: str
) -> None:
    """A chunk above Temporal's limit stops the signals; the gateway must learn of it."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("small")
        await stream.send_chunk("\x01" * 1_000_000)  # too large for a payload, as JSON

    async with run_chain(produce):
        target = await gateway(client, task_queue)
        agent = await start("produce", delivery="signal", target_workflow_id=target.id)
        failure = await failure_of(target)
        result = await agent.result()
    assert isinstance(failure, ApplicationError)
    assert failure.type == "ChunkTooLargeError"
    assert "ChunkTooLargeError" in result["error"]


@pytest.fixture
def strict_address() -> Iterator[str]:
    limit = {**FAST, "history.maximumSignalsPerExecution": "5"}
    with TemporalDevServer(dynamic_config=limit) as server:
        yield server.address


async def test_too_many_signals_are_reported_with_the_remedy(
    strict_address: str, queue: ChunkQueue, settings: Settings
) -> None:
    """A run takes 10,000 signals; the failure must state what to do then."""
    client, task_queue = await Client.connect(strict_address), "chain"
    plugin = StreamqPlugin(queue, settings)
    async with Worker(
        client,
        task_queue=task_queue,
        activities=[count_slowly],
        workflows=[Gateway],
        plugins=[plugin],
    ):
        target = await gateway(client, task_queue)
        agent = await client.start_workflow(
            "streamq.Stream",
            StreamRequest(
                "count_slowly",
                [30],
                delivery="signal",
                target_workflow_id=target.id,
                window_seconds=0,
            ),
            id="agent",
            task_queue=task_queue,
        )
        result = await asyncio.wait_for(agent.result(), 30)
    assert "SignalLimitError" in result["error"]
    assert "window_seconds" in result["error"]
