"""Every way to write a streaming activity, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import SOON, failure_of, outline, read_all

from streamq import (
    BlockingStreamWriter,
    Chunk,
    ConfigurationError,
    Encoding,
    Event,
    Seal,
    SealState,
    SerializationError,
    Serializer,
    Settings,
    StreamId,
    StreamWriter,
    open_reader,
    open_writer,
)
from streamq.driver import START, ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, streaming_activity, subscribe
from streamq.temporal._serializer import PayloadCodecOfRecords, conversion


class Token(BaseModel):
    text: str
    score: float


class Scramble(PayloadCodec):
    """Stands for encryption."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={"encoding": b"binary/scrambled"},
                data=bytes(byte ^ 0x5A for byte in payload.SerializeToString()),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(bytes(byte ^ 0x5A for byte in payload.data)) for payload in payloads
        ]


def threaded(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    pool: ThreadPoolExecutor,
    *activities: Callable[..., Any],
) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        activities=activities,
        activity_executor=pool,
        plugins=[StreamqPlugin(queue, settings)],
    )


async def test_a_function_in_a_thread_streams(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, start: Start
) -> None:
    """Most libraries block; they stream with the same calls, unawaited."""

    @streaming_activity
    def produce(count: int, stream: BlockingStreamWriter[str]) -> int:
        for i in range(count):
            stream.send_chunk(str(i))
        stream.flush()
        assert stream.durable_position == count
        return threading.get_ident()

    with ThreadPoolExecutor(2) as pool:
        async with threaded(client, queue, settings, task_queue, pool, produce):
            handle = await start("produce", 500)
            events = await read_all(handle, queue, settings)
            assert (await handle.result())["result"] != threading.get_ident()
    assert outline(events) == [*(str(i) for i in range(500)), "END"]


async def test_a_thread_that_waits_for_room_is_woken_by_cancellation(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, start: Start
) -> None:
    """A blocked thread cannot be cancelled by anybody but the writer it waits in."""
    cancelled = threading.Event()

    @streaming_activity
    def produce(stream: BlockingStreamWriter[str]) -> None:
        stream.send_chunk("working")
        try:
            while not activity.is_cancelled():
                activity.wait_for_cancelled_sync(0.05)
            stream.flush()
        finally:
            cancelled.set()

    with ThreadPoolExecutor(2) as pool:
        async with threaded(client, queue, settings, task_queue, pool, produce):
            handle = await start("produce", heartbeat_seconds=1)
            async with subscribe(handle, queue=queue, settings=settings) as events:
                story: list[Event] = [await anext(events)]
                await handle.cancel()
                story += [event async for event in events]
            await failure_of(handle)
    assert cancelled.is_set()
    assert outline(story) == ["working", "CANCELLED"]


async def test_a_thread_that_fails_is_tried_again(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, start: Start
) -> None:
    """Attempts, resets and endings are the same whatever the function looks like."""

    @streaming_activity
    def produce(stream: BlockingStreamWriter[str]) -> None:
        stream.send_chunk(f"attempt {stream.attempt}")
        if activity.info().attempt == 1:
            raise ApplicationError("again", next_retry_delay=SOON)

    with ThreadPoolExecutor(2) as pool:
        async with threaded(client, queue, settings, task_queue, pool, produce):
            handle = await start("produce")
            events = await read_all(handle, queue, settings)
            await handle.result()
    assert [e.value for e in events if isinstance(e, Chunk)] == ["attempt 1", "attempt 2"]
    assert isinstance(events[-1], Seal)


async def test_generators_stream_what_they_yield(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, start: Start
) -> None:
    """The shortest way to write one: yield the chunks, return the result."""

    @streaming_activity
    async def walk(count: int) -> AsyncIterator[int]:
        for i in range(count):
            yield i

    @streaming_activity
    def climb(count: int) -> Generator[int, None, str]:
        yield from range(count)
        return "top"

    with ThreadPoolExecutor(2) as pool:
        async with threaded(client, queue, settings, task_queue, pool, walk, climb):
            for name, result in (("walk", None), ("climb", "top")):
                handle = await start(name, 3)
                events = await read_all(handle, queue, settings)
                assert outline(events) == [0, 1, 2, "END"]
                assert (await handle.result())["result"] == result


async def test_methods_and_several_streams(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """One activity may have an answer, a log and more, each a stream with its own ending."""

    class Model:
        name = "m1"

        @streaming_activity(name="generate")
        async def generate(
            self, stream: StreamWriter[str], logs: StreamWriter[dict[str, str]], prompt: str
        ) -> str:
            await logs.send_chunk({"model": self.name})
            await stream.send_chunk(prompt)
            return prompt

    async with run_worker(Model().generate):
        handle = await start("generate", "hello")
        await handle.result()
        for topic, said in (("default", "hello"), ("logs", {"model": "m1"})):
            async with subscribe(handle, topic, queue=queue, settings=settings) as events:
                assert outline([event async for event in events]) == [said, "END"]


async def test_heartbeat_details_are_the_users(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """What an activity notes for its next attempt must not be replaced by our own heartbeats."""
    seen: list[Sequence[Any]] = []

    @streaming_activity
    async def produce(stream: StreamWriter[str]) -> None:
        seen.append(activity.info().heartbeat_details)
        if activity.info().attempt == 1:
            activity.heartbeat("page", 7)
        await stream.send_chunk("a")
        await stream.flush()
        if activity.info().attempt < 3:
            raise ApplicationError("again", next_retry_delay=SOON)

    async with run_worker(produce):
        handle = await start("produce")
        await handle.result()
    assert [list(details) for details in seen] == [[], ["page", 7], ["page", 7]]


async def test_heartbeat_details_are_what_was_noted(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """An object that the function goes on changing is not noted before it says so."""
    seen: list[Sequence[Any]] = []

    @streaming_activity
    async def produce(stream: StreamWriter[str]) -> None:
        seen.append(list(activity.info().heartbeat_details))
        if activity.info().attempt == 1:
            state = {"page": 1}
            activity.heartbeat(state)
            state["page"] = 2
            await asyncio.sleep(3 * settings.cancel_seconds)  # heartbeats of ours go on
            raise ApplicationError("again", next_retry_delay=SOON)

    async with run_worker(produce):
        handle = await start("produce", heartbeat_seconds=5)
        await handle.result()
    assert seen == [[], [{"page": 1}]]


async def test_details_that_cannot_be_encoded_end_the_stream(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """The SDK fails such an activity by cancelling it; to readers that is a failure, too."""

    @streaming_activity
    async def produce(stream: StreamWriter[str]) -> None:
        await stream.send_chunk("a")
        activity.heartbeat(object())
        await asyncio.Event().wait()

    async with run_worker(produce):
        handle = await start("produce", max_attempts=1)
        events = await read_all(handle, queue, settings)
        await failure_of(handle)
    seal = events[-1]
    assert isinstance(seal, Seal)
    assert (seal.state, seal.attempt) == (SealState.ERROR, 1), "sealed by the activity itself"
    assert "heartbeat" in seal.message


@streaming_activity(topic="logs")
async def takes_logs(stream: StreamWriter[str]) -> None:
    """Ends a topic that another activity wants."""


@streaming_activity
async def wants_logs(stream: StreamWriter[str], logs: StreamWriter[str]) -> None:
    """Cannot open its second stream."""


@workflow.defn(sandboxed=False)
class SharesATopic:
    @workflow.run
    async def run(self) -> None:
        limit = timedelta(seconds=20)
        await workflow.execute_activity(takes_logs, start_to_close_timeout=limit)
        with contextlib.suppress(ActivityError):
            await workflow.execute_activity(wants_logs, start_to_close_timeout=limit)
        await workflow.wait_condition(lambda: False)


async def test_a_stream_ends_with_the_one_beside_it_that_cannot_be_opened(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The activity has failed for good: nobody must wait for a stream that it had opened."""
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[SharesATopic],
        activities=[takes_logs, wants_logs],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        name = f"wf-{uuid.uuid4().hex}"
        handle = await client.start_workflow(SharesATopic.run, id=name, task_queue=task_queue)
        async with subscribe(handle, queue=queue, settings=settings) as events:
            seal = await anext(events)
        await handle.terminate()
    assert isinstance(seal, Seal)
    assert (seal.state, seal.error_type) == (SealState.ERROR, "SealedError")


async def test_work_that_is_repeated_may_send_what_it_sent_before(
    run_worker: Run, start: Start, queue: ChunkQueue, settings: Settings
) -> None:
    """Chunks that go nowhere are encoded by the same converter, which may take more than JSON."""

    @streaming_activity
    async def produce(stream: StreamWriter[float]) -> str:
        await stream.send_chunk(float("nan"))
        await stream.finish()
        if activity.info().attempt == 1:
            raise ApplicationError("the worker died here", next_retry_delay=SOON)
        return "result"

    async with run_worker(produce):
        handle = await start("produce")
        assert (await handle.result())["result"] == "result"


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_what_browsers_do_not_read_is_not_called_json(value: object) -> None:
    """Python writes NaN and Infinity, which JSON does not have: a page would lose its stream."""
    serializer: Serializer[Any]
    serializer, _ = conversion(DataConverter.default, "wf/run/topic", "default")
    encoding, data = serializer.encode(value)
    assert encoding is Encoding.PAYLOAD
    assert repr(serializer.decode(encoding, data)) == repr(value)
    assert serializer.encode("NaN") == (Encoding.TEXT, b"NaN")
    assert serializer.encode(["NaN"])[0] is Encoding.JSON


@pytest.mark.parametrize("converter", [DataConverter.default, pydantic_data_converter])
def test_a_value_of_another_type_is_refused_without_being_repeated(
    converter: DataConverter,
) -> None:
    """Who asks for a type gets it or an error; errors go to logs and to Temporal unencrypted."""
    serializer, _ = conversion(converter, "wf/run/topic", "default", Token)
    for encoding, data in (
        (Encoding.BYTES, b"secret"),
        (Encoding.TEXT, b"secret"),
        (Encoding.JSON, b'{"text": "secret", "score": "secret"}'),
    ):
        with pytest.raises(SerializationError, match="Token") as caught:
            serializer.decode(encoding, data)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    either: Serializer[Any]
    either, _ = conversion(converter, "wf/run/topic", "default", bytes | str)  # type: ignore[arg-type]
    assert either.decode(Encoding.BYTES, b"\xff") == b"\xff"


async def test_models_through_an_encrypting_codec(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Whoever encrypts what Temporal stores gets the same for the queue; models on both ends."""
    converter = replace(pydantic_data_converter, payload_codec=Scramble())
    secret = Client(client.service_client, namespace=client.namespace, data_converter=converter)

    @streaming_activity
    async def produce(stream: StreamWriter[Token]) -> None:
        await stream.send_chunk(Token(text="very secret", score=0.5))

    async with Worker(
        secret,
        task_queue=task_queue,
        activities=[produce],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        handle: Any = await secret.start_workflow(
            "streamq.Stream",
            StreamRequest("produce", delivery="poll"),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        async with subscribe(handle, queue=queue, settings=settings, value_type=Token) as events:
            chunk = await anext(events)
            name = events.stream.name
        assert isinstance(chunk, Chunk)
        assert chunk.value == Token(text="very secret", score=0.5)
        assert (await handle.result())["chunks"] == 1
    stored = await queue.read(
        StreamId("default", name), START, max_records=99, max_bytes=10**6, max_wait=0
    )
    assert stored
    assert not any(b"secret" in each.data for each in stored)


async def test_readers_without_a_client_are_told_the_converter(
    queue: ChunkQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway and the command line have no Temporal client to take the codec from."""
    module = ModuleType("company_converters")
    module.__dict__["ours"] = replace(pydantic_data_converter, payload_codec=Scramble())
    module.__dict__["other"] = "nonsense"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    codec = PayloadCodecOfRecords(Scramble())
    async with open_writer("s", queue=queue, settings=settings, codec=codec) as writer:
        await writer.send_chunk("words")
    known = settings.model_copy(update={"data_converter": "company_converters:ours"})
    async with open_reader("s", queue=queue, settings=known) as reader:
        assert await reader.collect() == ["words"]
    for wrong in ("company_converters:other", "company_converters:gone", "no_such_module:x", "x"):
        mistaken = settings.model_copy(update={"data_converter": wrong})
        with pytest.raises(ConfigurationError, match="STREAMQ_DATA_CONVERTER"):
            await open_reader("s", queue=queue, settings=mistaken)


@pytest.mark.parametrize("converter", [DataConverter.default, pydantic_data_converter])
def test_text_stays_text(converter: DataConverter) -> None:
    """Tokens are text: as JSON each would cost two quotes, an escape and ten microseconds."""
    serializer: Serializer[Any]
    serializer, codec = conversion(converter, "wf/run/topic", "default")
    assert codec is None
    assert serializer.encode('say "hi"') == (Encoding.TEXT, b'say "hi"')
    assert serializer.encode(b"\xff") == (Encoding.BYTES, b"\xff")
    assert serializer.decode(Encoding.TEXT, b"hi") == "hi"
    assert serializer.encode(None) == (Encoding.JSON, b"null")


async def test_the_function_itself_can_be_called() -> None:
    """A unit test calls the function itself with any writer; nothing of Temporal is needed."""

    @streaming_activity
    async def produce(prompt: str, stream: StreamWriter[str]) -> str:
        await stream.send_chunk(prompt)
        return prompt

    class Collects:
        chunks: list[str]

        async def send_chunk(self, value: str) -> None:
            self.chunks.append(value)

    writer = Collects()
    writer.chunks = []
    function: Any = produce
    assert await function("a", stream=writer) == "a"
    assert writer.chunks == ["a"]
