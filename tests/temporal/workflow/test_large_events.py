"""Tests large events and arguments: Temporal's limits of messages and payloads are respected."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import pytest
import temporalio.converter
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ActivityError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.following_workflows import Options
from tests.temporal.support.large_workflows import SENT, CountsCharacters, SlowGateway
from tests.temporal.support.waiting import reach_later_run

from streamq import Settings, StreamWriter
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, streaming_activity


@streaming_activity
async def send_slowly(
    chunks: int, size: int, result: int, ignored: str, stream: StreamWriter
) -> str:
    for i in range(chunks):
        await stream.send_chunk(f"{i} ".ljust(size, "x"))
        await asyncio.sleep(0.01)  # so that each poll finds little
    return "r" * result


@streaming_activity
async def send_accents(length: int, stream: StreamWriter) -> str:
    await stream.send_chunk("é" * length)
    return "sent"


@streaming_activity
async def send_texts(chunks: int, size: int, stream: StreamWriter) -> None:
    for i in range(chunks):
        await stream.send_chunk(f"{i} ".ljust(size, "x"))


def worker_of(
    workflow_type: type, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[workflow_type],
        activities=[send_texts, send_accents],
        plugins=[StreamqPlugin(queue, settings)],
    )


async def test_local_polls_of_a_fast_producer_fit_into_one_message(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The server ends a workflow whose task brings more than 4 MiB; full polls do not wait."""
    async with worker_of(CountsCharacters, client, queue, settings, task_queue):
        found = await asyncio.wait_for(
            client.execute_workflow(
                CountsCharacters.run,
                args=["send_texts", [1_000, 40_000], Options(polling="local", window_ms=20)],
                id=f"wf-{uuid.uuid4().hex}",
                task_queue=task_queue,
            ),
            60,
        )
    assert found == [1_000, 1_000 * 40_000]


async def test_slow_receiver_continues_as_new_with_backlog_that_fits(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A backlog above 2 MiB cannot be an argument of the next run, and stopped the receiver."""
    async with worker_of(SlowGateway, client, queue, settings, task_queue):
        receiver: Any = await client.start_workflow(
            SlowGateway.run, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        await client.execute_workflow(
            "streamq.Stream",
            StreamRequest(
                "send_texts",
                [SENT, 50_000],
                delivery="signal",
                target_workflow_id=receiver.id,
                summary=False,
            ),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        chunks, runs = await asyncio.wait_for(receiver.result(), 40)
    assert chunks == SENT
    assert runs > 1


async def test_large_chunks_do_not_prevent_continue_as_new(
    run_worker: Run, start: Start, client: Client
) -> None:
    """The answer of ``recent`` goes to the next run with the request; both must fit."""
    async with run_worker(send_slowly):
        handle = await start(
            "send_slowly", 30, 1_000_000, 1, "a" * 1_200_000, delivery="poll", window_seconds=0
        )
        result = await asyncio.wait_for(handle.result(), 60)
        newest = client.get_workflow_handle(handle.id)
        assert (await newest.describe()).run_id != handle.first_execution_run_id
    assert (result["chunks"], result["error"]) == (30, None)


async def test_deeply_nested_json_passes(run_worker: Run, start: Start) -> None:
    """Converters of batches recurse: polls of such a chunk failed and were retried for ever."""

    @streaming_activity
    async def send_deep(stream: StreamWriter) -> str:
        value: Any = "ground"
        for _ in range(900):
            value = [value]
        await stream.send_chunk(value)
        return "end"

    async with run_worker(send_deep):
        handle = await start("send_deep", delivery="poll")
        result = await asyncio.wait_for(handle.result(), 20)
        chunk, end = await handle.query("recent")
        assert chunk["undecoded"]["reason"] == "nested more than 300 deep"
        assert end["event"] == "end"
    assert (result["result"], result["chunks"], result["error"]) == ("end", 1, None)


async def test_arguments_that_do_not_fit_are_refused(run_worker: Run, start: Start) -> None:
    """A command that is too large would be retried for ever."""
    async with run_worker(send_slowly):
        handle = await start("send_slowly", 1, 1, 1, "a" * 1_600_000, delivery="poll")
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 10)
    assert "detached = false" in str(caught.value.cause)


async def test_result_that_is_too_large_is_reported(
    run_worker: Run, start: Start, client: Client
) -> None:
    """An activity whose result is too large would be retried for ever."""
    has_continued = asyncio.Event()

    @streaming_activity
    async def send_until_continued(stream: StreamWriter) -> str:
        while not has_continued.is_set():
            await stream.send_chunk("x")
            await asyncio.sleep(0.01)
        return "r" * 1_600_000

    async with run_worker(send_until_continued):
        handle = await start("send_until_continued", delivery="poll", window_seconds=0)
        # The next run of the workflow has the result fetched; this one would have got it itself.
        await reach_later_run(client, handle)
        has_continued.set()
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 40)
    assert isinstance(caught.value.cause, ActivityError)
    assert "ResultTooLargeError" in str(caught.value.cause.cause)


class _Base64(PayloadCodec):
    """Makes all data a third larger."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(data=b64encode(each.SerializeToString())) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(b64decode(each.data)) for each in payloads]


async def test_chunk_that_the_codec_makes_too_large_does_not_fail_the_work(
    temporal_address: str, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The poll was retried for ever, and the workflow that had its result never ended."""
    converter = dataclasses.replace(temporalio.converter.default(), payload_codec=_Base64())
    client = await Client.connect(temporal_address, data_converter=converter)
    async with worker_of(SlowGateway, client, queue, settings, task_queue):
        result: Any = await asyncio.wait_for(
            client.execute_workflow(
                "streamq.Stream",
                # Six bytes each as JSON: 1.68 MB.
                StreamRequest("send_accents", [280_000], delivery="poll"),
                id=f"wf-{uuid.uuid4().hex}",
                task_queue=task_queue,
            ),
            20,
        )
    assert result["result"] == "sent"
    assert "ChunkTooLargeError" in result["error"]


async def test_target_with_full_history_is_reported(queue: ChunkQueue, settings: Settings) -> None:
    """The server calls it an invalid argument, which does not state a remedy."""
    limit = {**FAST, "limit.historySize.error": "2000000"}
    with TemporalDevServer(dynamic_config=limit) as server:
        client = await Client.connect(server.address)
        receiver: Any = await client.start_workflow("Away", id="receiver", task_queue="away")
        async with worker_of(SlowGateway, client, queue, settings, "here"):
            result: Any = await client.execute_workflow(
                "streamq.Stream",
                StreamRequest(
                    "send_texts", [60, 50_000], delivery="signal", target_workflow_id=receiver.id
                ),
                id="agent",
                task_queue="here",
            )
    assert "SignalLimitError" in result["error"]
