"""The generic workflow ``streamq.Stream``."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import SOON, failure_of, outline
from tests.temporal.support.waiting import wait_progress

from streamq import Settings, StreamWriter, open_reader, open_writer
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamWorkflow, streaming_activity, subscribe


@streaming_activity
async def send_many(stream: StreamWriter, chunks: int) -> None:
    for i in range(chunks):
        await stream.send_chunk(f"chunk {i}")


async def test_without_delivery_history_does_not_grow_with_chunks(
    run_worker: Run, start: Start
) -> None:
    """Delivery none: ten thousand chunks cost Temporal exactly what ten cost."""
    lengths = []
    async with run_worker(send_many):
        for chunks in (10, 10_000):
            for summary in (True, False):
                handle = await start("send_many", chunks, summary=summary)
                result = await handle.result()
                assert result["chunks"] == (chunks if summary else None)
                lengths.append(len((await handle.fetch_history()).events))
    assert lengths == [17, 11, 17, 11]


async def test_the_workflow_sees_the_first_chunk_while_the_activity_runs(
    run_worker: Run, start: Start
) -> None:
    """Delivery poll: consumer and producer run at the same time."""
    seen = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        await stream.send_chunk("first")
        await seen.wait()
        await stream.send_chunk(b"\xff\x00")
        return "result"

    async with run_worker(produce):
        handle = await start("produce", delivery="poll")
        progress = await wait_progress(handle, chunks=1)
        assert (progress["attempt"], progress["sealed"]) == (1, False)
        seen.set()
        result = await handle.result()
        assert result == {
            "result": "result",
            "stream": progress["stream"],
            "chunks": 2,
            "bytes": 7,
            "resets": 0,
            "attempts": 1,
            "digest": hashlib.sha256(
                b"\0\0\0\0\0\0\0\5first" + b"\0\0\0\0\0\0\0\2\xff\0"
            ).hexdigest(),
            "error": None,
        }
        recent = await handle.query("recent")
    first, second, end = recent
    assert (first["value"], second["base64"], end["state"]) == ("first", "/wA=", "END")


async def test_counts_start_again_with_the_next_attempt(run_worker: Run, start: Start) -> None:
    """Delivery poll: chunks of a failed attempt do not count twice."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        for i in range(7):
            await stream.send_chunk(i)
        if activity.info().attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)

    async with run_worker(produce):
        handle = await start("produce", delivery="poll")
        result = await handle.result()
    assert (result["chunks"], result["resets"]) == (7, 1)


async def test_history_grows_with_time_and_not_with_chunks(run_worker: Run, start: Start) -> None:
    """Delivery poll: batches, so that a fast stream takes a few polls instead of thousands."""
    async with run_worker(send_many):
        handle = await start("send_many", 5_000, delivery="poll")
        result = await handle.result()
        assert result["chunks"] == 5_000
        assert len((await handle.fetch_history()).events) < 100


async def test_cancelling_the_workflow_waits_for_the_seal(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Delivery poll: cancellation reaches the producer, and the stream is sealed by the end."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("working")
        await asyncio.Event().wait()

    async with run_worker(produce):
        handle = await start("produce", delivery="poll", heartbeat_seconds=1)
        await wait_progress(handle, chunks=1)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert (await handle.describe()).status.name == "CANCELED"  # type: ignore[union-attr]
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["working", "CANCELLED"]


async def test_a_failed_producer_fails_the_workflow(run_worker: Run, start: Start) -> None:
    """Delivery poll: following the stream does not hide the failure."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        raise ApplicationError("broken", type="ModelError", non_retryable=True)

    async with run_worker(produce):
        handle = await start("produce", delivery="poll")
        failure = await failure_of(handle)
    assert isinstance(failure, ApplicationError)
    assert failure.type == "ModelError"


async def test_an_activity_that_does_not_stream_is_not_waited_for(
    run_worker: Run, start: Start
) -> None:
    """Delivery poll of an ordinary activity ends with the activity."""

    @activity.defn
    async def plain() -> str:
        return "plain"

    async with run_worker(plain):
        handle = await start("plain", delivery="poll")
        result = await asyncio.wait_for(handle.result(), 10)
    assert (result["result"], result["chunks"]) == ("plain", 0)


async def test_a_long_history_goes_on_with_counting_only(run_worker: Run, start: Start) -> None:
    """Delivery poll, not detached: when a run grows long values stay out of it; counts go on."""
    total = 80

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        for i in range(total):
            await stream.send_chunk(i)
            await asyncio.sleep(0.02)  # so that each poll finds little

    async with run_worker(produce):
        handle = await start("produce", delivery="poll", window_seconds=0, detached=False)
        assert (await handle.result())["chunks"] == total
        assert not (await handle.query("progress"))["carries_values"]
        recent = await handle.query("recent")
        events = (await handle.fetch_history()).events
    assert 0 < len(recent) < total
    assert len(events) > 150


async def test_a_stream_that_cannot_be_followed_does_not_break_the_work(
    run_worker: Run, start: Start
) -> None:
    """Delivery poll: the result arrives, with the reason why the numbers are too small."""

    @streaming_activity
    async def produce(stream: StreamWriter) -> str:
        await stream.send_chunk("\x01" * 1_000_000)  # too large for a payload, as JSON
        return "result"

    async with run_worker(produce):
        handle = await start("produce", delivery="poll")
        result = await handle.result()
    assert (result["result"], result["chunks"]) == ("result", 1)
    assert "following stopped: ChunkTooLargeError" in result["error"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"topic": "a/b"}, "without '/'"),
        ({"delivery": "carrier pigeon"}, "carrier pigeon"),
        ({"max_attempts": -1}, "max_attempts"),
        ({"args": "not a list"}, "args"),
        ({"heartbeat_second": 5}, "did you mean 'heartbeat_seconds'"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    run_worker: Run, client: Client, task_queue: str, wrong: dict[str, Any], message: str
) -> None:
    """Whoever starts the workflow by name gets an error, not a workflow that never ends."""
    request = {"activity": "send_many", "args": [1], **wrong}
    async with run_worker(send_many):
        handle = await client.start_workflow(
            "streamq.Stream", request, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        failure = await failure_of(handle)
    assert isinstance(failure, ApplicationError)
    assert failure.type == "ConfigurationError"
    assert message in failure.message


@pytest.mark.parametrize("delivery", ["none", "poll"])
async def test_histories_can_be_replayed(run_worker: Run, start: Start, delivery: str) -> None:
    """The workflow is deterministic: its own history replays."""
    async with run_worker(send_many):
        handle = await start("send_many", 3_000, delivery=delivery)
        await handle.result()
        history = await handle.fetch_history()
    replayer = Replayer(workflows=[StreamWorkflow], plugins=[StreamqPlugin()])
    await replayer.replay_workflow(history)


async def test_a_stream_that_somebody_else_took_over_is_left_to_them(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """A producer that was fenced must not end what its successor is still writing."""
    fenced = asyncio.Event()

    @streaming_activity
    async def produce(stream: StreamWriter) -> None:
        await stream.send_chunk("a")
        await stream.flush()
        await fenced.wait()
        await stream.send_chunk("too late")
        await stream.flush()

    async with run_worker(produce):
        handle = await start("produce", max_attempts=1)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            await anext(events)
            async with open_writer(
                events.stream, queue=queue, settings=settings, epoch=2**60
            ) as other:
                fenced.set()
                with pytest.raises(WorkflowFailureError):
                    await asyncio.wait_for(handle.result(), 15)
                await other.send_chunk("b")
    async with open_reader(events.stream, queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["b"]
