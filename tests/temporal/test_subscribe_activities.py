"""Tests subscribers of standalone activities: they follow one to its end, or report no seal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import DeleteActivityExecutionRequest
from temporalio.client import ActivityHandle, Client
from temporalio.common import RetryPolicy
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run
from tests.temporal.support.reading import outline, read_all
from tests.temporal.support.standalone import begin, broken

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    ProducerGoneError,
    Settings,
    StreamNotFoundError,
    StreamWriter,
    load_settings,
    open_writer,
)
from streamq.devserver import TemporalDevServer, free_port
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, activity_stream_name, streaming_activity, subscribe
from streamq.temporal._activity_closing import ActivityClosingWatch
from streamq.testing import FaultProxy


@streaming_activity
async def say(stream: StreamWriter[str], text: str) -> str:
    await stream.send_chunk(text)
    return text


async def test_subscriber_before_the_start_misses_nothing(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A page may be open before the button is pressed; the id is all that it has."""
    handle = client.get_activity_handle(f"act-{uuid.uuid4().hex}")

    async def read() -> list[object]:
        subscription = subscribe(handle, from_="tail", queue=queue, settings=settings)
        async with subscription as events:
            return outline([event async for event in events])

    reading = asyncio.create_task(read())
    async with run_worker(say):
        await begin(client, task_queue, say, "x", id=handle.id)
        assert await reading == ["x", "END"]


async def test_cursor_resumes_where_its_reader_was(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A reader that reconnects misses nothing, also after the end."""
    async with run_worker(say):
        handle = await begin(client, task_queue, say, "x")
        async with subscribe(handle, queue=queue, settings=settings) as events:
            await anext(events)
            cursor = events.cursor
        await handle.result()
    async with subscribe(handle, from_=cursor, queue=queue, settings=settings) as events:
        assert [type(event).__name__ async for event in events] == ["Seal"]


async def abandoned(
    client: Client, queue: ChunkQueue, settings: Settings, **options: object
) -> ActivityHandle[object]:
    """Start an activity whose worker has sent one chunk and was killed."""
    handle = await begin(client, "nobody", "anything", **options)
    name = activity_stream_name(handle.id, str(handle.run_id))
    writer = await open_writer(name, queue=queue, settings=settings, epoch=1_000_001)
    await writer.send_chunk("one")
    await writer.aclose()
    return handle


@pytest.mark.parametrize(
    ("how", "status"),
    [
        pytest.param("cancel", "CANCELED", marks=pytest.mark.full),
        ("terminate", "TERMINATED"),
        ("time out", "TIMED_OUT"),
    ],
)
async def test_activity_that_ends_without_a_seal_ends_its_readers(
    client: Client, queue: ChunkQueue, settings: Settings, how: str, status: str
) -> None:
    """No code of the activity runs any more, so that only Temporal knows the ending."""
    timeout = timedelta(seconds=0.5) if how == "time out" else None
    handle = await abandoned(client, queue, settings, schedule_to_start_timeout=timeout)
    async with subscribe(handle, queue=queue, settings=settings) as events:
        await anext(events)
        if how != "time out":
            await getattr(handle, how)()
        with pytest.raises(ProducerGoneError) as caught:
            await anext(events)
    assert caught.value.status == status
    assert f"activity {handle.id!r} ended ({status}) without sealing" in str(caught.value)


async def test_activity_that_streams_nothing_ends_its_readers(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Reading a topic that is never written ends with the activity, with the reason."""
    async with run_worker(say):
        handle = await begin(client, task_queue, say, "x")
        async with subscribe(handle, "other", queue=queue, settings=settings) as events:
            with pytest.raises(ProducerGoneError, match="nothing was streamed") as caught:
                await anext(events)
    assert caught.value.status == "COMPLETED"


@pytest.mark.full
async def test_deleted_activity_ends_its_readers(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """An operator removes it, or its retention is over, while someone still reads."""
    handle = await abandoned(client, queue, settings)
    async with subscribe(handle, queue=queue, settings=settings) as events:
        await anext(events)
        await client.workflow_service.delete_activity_execution(
            DeleteActivityExecutionRequest(
                namespace=client.namespace, activity_id=handle.id, run_id=str(handle.run_id)
            )
        )
        with pytest.raises(ProducerGoneError) as caught:
            await anext(events)
    assert caught.value.status in ("NOT_FOUND", "TERMINATED")


@streaming_activity
async def fail_before_streaming(stream: StreamWriter[str]) -> None:
    raise broken("always")


async def test_failure_between_attempts_is_not_the_end(
    run_worker: Run, client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The watch waits for the last attempt."""
    policy = RetryPolicy(maximum_attempts=3)
    async with run_worker(fail_before_streaming):
        handle = await begin(client, task_queue, fail_before_streaming, retry_policy=policy)
        events = await read_all(handle, queue, settings)
    assert outline(events)[-1] == "ERROR"
    assert events[-1].attempt == 3


async def test_leaving_early_leaves_no_task_behind(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A browser that goes away must not leave a long poll behind."""
    handle = await abandoned(client, queue, settings)
    before = asyncio.all_tasks()
    async with subscribe(handle, queue=queue, settings=settings) as events:
        await anext(events)
        assert len(asyncio.all_tasks()) > len(before)
    assert asyncio.all_tasks() == before
    await handle.terminate()


async def test_unknown_activity_is_a_typed_error(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A mistyped id is reported, and not waited for for ever."""
    handle = client.get_activity_handle("no-such-activity")
    for seconds, expected in ((0.1, "no-such-activity.*within 0.1 s"), (0, "activity id")):
        with pytest.raises(StreamNotFoundError, match=expected):
            async with subscribe(handle, queue=queue, settings=settings, start_seconds=seconds):
                pass


async def test_server_without_standalone_activities_is_named(queue: ChunkQueue) -> None:
    """Older servers, and those that have it switched off, do not know such an activity."""
    settings = load_settings(backend="memory", retry_seconds=1, idle_seconds=0.5)
    with TemporalDevServer(dynamic_config={"activity.enableStandalone": "false"}) as server:
        client = await Client.connect(server.address)
        for run_id in (None, str(uuid.uuid4())):
            handle = client.get_activity_handle("a", run_id=run_id)
            with pytest.raises(ConfigurationError, match=r"activity\.enableStandalone"):
                async with subscribe(handle, queue=queue, settings=settings) as events:
                    await anext(events)


async def test_temporal_down_is_a_typed_error(queue: ChunkQueue) -> None:
    """An unreachable Temporal is named, and not mistaken for an unreachable queue."""
    client = await Client.connect(f"127.0.0.1:{free_port()}", lazy=True)
    settings = load_settings(backend="memory", retry_seconds=0.1)
    with pytest.raises(BackendUnavailableError) as caught:
        async with subscribe(client.get_activity_handle("a"), queue=queue, settings=settings):
            pass
    assert caught.value.backend == "temporal"


@pytest.mark.full
async def test_watch_outlives_a_proxy_that_cuts_long_polls(
    temporal_address: str, client: Client
) -> None:
    """An ingress cuts connections that are idle; Temporal is there, as a short query shows."""
    handle = await begin(client, "nobody", "anything")
    host, port = temporal_address.split(":")
    patience = 0.5
    async with FaultProxy(host, int(port)) as proxy:
        through = await Client.connect(proxy.address)
        watch = asyncio.create_task(
            ActivityClosingWatch(through, handle.id, patience_seconds=patience).wait(
                str(handle.run_id)
            )
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + 3 * patience
        while loop.time() < until and not watch.done():
            if proxy.connections:
                proxy.cut()
            await asyncio.wait([watch], timeout=patience / 5)
        assert not watch.done()
        await handle.terminate()
        assert await watch == "TERMINATED"


async def test_watch_gives_up_when_temporal_stays_away() -> None:
    """A reader must learn that nothing would report the end."""
    away = await Client.connect(f"127.0.0.1:{free_port()}", lazy=True)
    with pytest.raises(BackendUnavailableError, match="watch activity 'a'"):
        await ActivityClosingWatch(away, "a", patience_seconds=0.2).wait(str(uuid.uuid4()))


class Keyed(PayloadCodec, WithSerializationContext):
    """Encrypts, in earnest only for its type, with a key of the workflow or activity."""

    def __init__(self, key: bytes = b"") -> None:
        self.key = key

    def with_context(self, context: SerializationContext) -> Keyed:
        if isinstance(context, ActivitySerializationContext) and not context.workflow_id:
            return Keyed(f"activity {context.activity_id}".encode())
        return self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        assert self.key
        return [
            Payload(metadata={"encoding": b"keyed"}, data=self.key + each.SerializeToString())
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        assert self.key
        assert all(each.data.startswith(self.key) for each in payloads)
        return [Payload.FromString(each.data.removeprefix(self.key)) for each in payloads]


async def test_codec_gets_the_activity_as_its_context(
    temporal_address: str, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A key for each customer is chosen by it, alike for arguments, chunks and result."""
    converter = replace(DataConverter.default, payload_codec=Keyed())
    client = await Client.connect(temporal_address, data_converter=converter)
    plugin = StreamqPlugin(queue, settings)
    async with Worker(client, task_queue=task_queue, activities=[say], plugins=[plugin]):
        handle = await begin(client, task_queue, say, "x")
        assert outline(await read_all(handle, queue, settings)) == ["x", "END"]
        assert await handle.result() == "x"
