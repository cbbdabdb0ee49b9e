"""Tests that no question to Temporal ends a stream that delivers.

Places that ask while a stream is read: the watch of a subscription, that of a reader of the names
of Workflow Streams, the activities ``streamq.watch`` and ``streamq.result``; all wait in
``ClosingWatch``. A poll asks beside its read. The sweep leaves alone what it could not ask about.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client, RetryConfig

from streamq import (
    BackendUnavailableError,
    Chunk,
    ProducerGoneError,
    Seal,
    Settings,
    StreamWriter,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.temporal import find_stream_name, subscribe
from streamq.temporal.workflow_streams import WorkflowStreamClient
from streamq.testing import FaultProxy

QUICK = RetryConfig(max_elapsed_time_millis=200)  # the SDK's own retries inside of one call
PATIENCE = 0.5


@pytest.fixture
async def proxy(temporal_address: str) -> AsyncIterator[FaultProxy]:
    host, port = temporal_address.split(":")
    async with FaultProxy(host, int(port)) as opened:
        yield opened


@pytest.fixture
def patient(settings: Settings) -> Settings:
    return settings.model_copy(update={"idle_seconds": PATIENCE})


class Running:
    """A workflow that no worker runs, and its stream, which the test writes."""

    def __init__(self, client: Client, workflow_id: str, writer: StreamWriter) -> None:
        self.handle = client.get_workflow_handle(workflow_id)
        self.writer = writer


@pytest.fixture
async def workflow(client: Client, queue: ChunkQueue, settings: Settings) -> AsyncIterator[Running]:
    handle = await client.start_workflow("Any", id=f"wf-{uuid.uuid4().hex}", task_queue="none")
    writer = await open_writer(await find_stream_name(handle), queue=queue, settings=settings)
    yield Running(client, handle.id, writer)
    await writer.aclose()


async def connect(proxy: FaultProxy) -> Client:
    return await Client.connect(proxy.address, retry_config=QUICK)


async def test_ingress_that_cuts_idle_connections_ends_nothing(
    proxy: FaultProxy, workflow: Running, queue: ChunkQueue, settings: Settings
) -> None:
    """No long poll comes to its end there, but short questions prove that Temporal is there.

    So neither chunks that come seldom nor silence are an error, and the workflow's end is noticed.
    """
    proxy.idle_seconds = 0.3
    client = await connect(proxy)
    impatient = settings.model_copy(update={"idle_seconds": 0.3})
    reading = subscribe(workflow.handle.id, client=client, queue=queue, settings=impatient)
    async with reading as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.wait([waiting], timeout=1.6)  # longer than a wait for the rest
        await workflow.writer.send_chunk("late")
        await workflow.writer.flush()
        event = await waiting
        assert isinstance(event, Chunk)
        assert event.value == "late"
        waiting = asyncio.ensure_future(anext(events))
        await workflow.handle.terminate()
        with pytest.raises(ProducerGoneError) as caught:
            await asyncio.wait_for(waiting, 10)
    assert caught.value.status == "TERMINATED"


async def test_outage_of_temporal_ends_a_reader_only_when_its_stream_is_silent_too(
    proxy: FaultProxy, workflow: Running, queue: ChunkQueue, patient: Settings
) -> None:
    """Then it says both: that nothing came, and what it could not learn."""
    client = await connect(proxy)
    reading = subscribe(workflow.handle.id, client=client, queue=queue, settings=patient)
    async with reading as events:
        proxy.refuse()
        proxy.cut()
        for number in range(8):  # for three times the patience
            await workflow.writer.send_chunk(number)
            await workflow.writer.flush()
            event = await anext(events)
            assert isinstance(event, Chunk)
            assert event.value == number
            await asyncio.sleep(0.2)
        with pytest.raises(
            BackendUnavailableError, match=r"no event .* for 0.5 s, .* Temporal did"
        ):
            await asyncio.wait_for(anext(events), 10)
        await workflow.writer.finish()
        assert isinstance(await anext(events), Seal)


@pytest.mark.full
async def test_readers_of_workflow_streams_have_the_same_patience(
    proxy: FaultProxy, workflow: Running, queue: ChunkQueue, patient: Settings
) -> None:
    """An item every now and then is enough while Temporal is away."""
    client = await connect(proxy)
    streams = WorkflowStreamClient.create(client, workflow.handle.id, queue=queue, settings=patient)
    async with streams:
        topic = streams.topic("news", type=int)
        items = topic.subscribe()
        topic.publish(0, force_flush=True)
        assert (await anext(items)).data == 0
        proxy.refuse()
        proxy.cut()
        for number in range(1, 10):
            await asyncio.sleep(0.2)
            topic.publish(number, force_flush=True)
            assert (await anext(items)).data == number
        with pytest.raises(BackendUnavailableError, match="Temporal did not say"):
            await asyncio.wait_for(anext(items), 20)
