"""Tests tracing: a stream is part of its workflow's trace, and its readers link to it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.opentelemetry import (
    OpenTelemetryPlugin,
    TracingInterceptor,
    create_tracer_provider,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker
from tests.temporal.support.reading import outline, read_all
from tests.temporal.support.standalone import begin

from streamq import ProducerGoneError, Settings, StreamWriter, open_writer
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    stream_name,
    streaming_activity,
    subscribe,
    trace_headers,
)

SOON = timedelta(milliseconds=20)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Collect all spans of this test, through a provider that is global for its duration."""
    exporter = InMemorySpanExporter()
    provider = create_tracer_provider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def by_interceptor() -> dict[str, Any]:
    return {"interceptors": [TracingInterceptor()]}


def by_plugin() -> dict[str, Any]:
    return {"plugins": [OpenTelemetryPlugin(add_temporal_spans=True)]}


@pytest.fixture(params=[by_interceptor, by_plugin])
async def traced(
    request: pytest.FixtureRequest, temporal_address: str, exporter: InMemorySpanExporter
) -> Client:
    """Return a client with each of the SDK's two ways of tracing."""
    return await Client.connect(temporal_address, **request.param())


@streaming_activity
async def say(stream: StreamWriter, text: str) -> None:
    with trace.get_tracer("test").start_as_current_span("user's own"):
        await stream.send_chunk(text)


failures: list[Exception] = []


@streaming_activity
async def stumble(stream: StreamWriter) -> None:
    await stream.send_chunk("x")
    await stream.flush()
    if failures:
        raise failures.pop()


def run_worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        activities=[say, stumble],
        plugins=[StreamqPlugin(queue, settings)],
    )


async def start(client: Client, task_queue: str, *call: str) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        "streamq.Stream",
        StreamRequest(call[0], list(call[1:])),
        id=f"wf-{uuid.uuid4().hex}",
        task_queue=task_queue,
    )


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context: trace.SpanContext | None = span.context
    assert context is not None
    return context


def ancestors(exporter: InMemorySpanExporter, span: ReadableSpan) -> Iterator[str]:
    known = {context_of(each).span_id: each for each in exporter.get_finished_spans()}
    while span.parent is not None:
        span = known[span.parent.span_id]
        yield span.name


def attributes(span: ReadableSpan, *names: str) -> tuple[object, ...]:
    assert span.attributes is not None
    return tuple(span.attributes.get(f"streamq.{name}") for name in names)


async def test_one_trace_from_the_caller_to_the_stream_and_a_link_from_its_reader(
    traced: Client,
    exporter: InMemorySpanExporter,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
) -> None:
    """From a slow page the activity that produced it can be found, and the other way round."""
    tracer = trace.get_tracer("test")
    async with run_worker(traced, queue, settings, task_queue):
        with tracer.start_as_current_span("caller"):
            handle = await start(traced, task_queue, "say", "hello")
        await handle.result()
        with tracer.start_as_current_span("page"):
            assert outline(await read_all(handle, queue, settings)) == ["hello", "END"]
    [written], [read] = named(exporter, "streamq.write"), named(exporter, "streamq.subscribe")
    above = list(ancestors(exporter, written))
    assert (above[0], above[-1]) == ("RunActivity:say", "caller")
    [own] = named(exporter, "user's own")
    assert next(ancestors(exporter, own)) == "RunActivity:say"
    assert list(ancestors(exporter, read)) == ["page"]
    assert [link.context.span_id for link in read.links] == [context_of(written).span_id]
    assert read.links[0].context.trace_id == context_of(written).trace_id
    assert attributes(written, "tenant", "backend", "attempt", "chunks", "bytes", "state") == (
        settings.tenant,
        "memory",
        1,
        1,
        5,
        "END",
    )
    assert attributes(written, "stream") == attributes(read, "stream")
    assert attributes(read, "attempt", "chunks", "bytes", "state") == (1, 1, 5, "END")


async def test_every_attempt_has_a_span_and_readers_link_to_each(
    traced: Client,
    exporter: InMemorySpanExporter,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
) -> None:
    """A retry is visible as two attempts at one stream, the first without an ending."""
    failures.append(ApplicationError("again", next_retry_delay=SOON))
    async with run_worker(traced, queue, settings, task_queue):
        handle = await start(traced, task_queue, "stumble")
        assert outline(await read_all(handle, queue, settings)) == ["x", "RESET 2", "x", "END"]
        await handle.result()  # the SDK complains of a workflow whose span is still open
    written, [read] = named(exporter, "streamq.write"), named(exporter, "streamq.subscribe")
    assert [attributes(span, "attempt", "state") for span in written] == [(1, "OPEN"), (2, "END")]
    assert not any(span.status.is_ok for span in written if span.status.description)
    assert {link.context.span_id for link in read.links} == {
        context_of(span).span_id for span in written
    }


async def test_failures_are_errors_on_both_sides(
    traced: Client,
    exporter: InMemorySpanExporter,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
) -> None:
    """A search for failed spans must find streams that ended badly, or not at all."""
    failures.append(ApplicationError("no such poem", type="Missing", non_retryable=True))
    async with run_worker(traced, queue, settings, task_queue):
        handle = await start(traced, task_queue, "stumble")
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        with pytest.raises(ProducerGoneError):
            async with subscribe(handle, "other", queue=queue, settings=settings) as events:
                await anext(events)
    [written], [read] = named(exporter, "streamq.write"), named(exporter, "streamq.subscribe")
    assert attributes(written, "state") == ("ERROR",)
    assert written.status.status_code is trace.StatusCode.ERROR
    assert written.status.description == "Missing: no such poem"
    assert read.status.status_code is trace.StatusCode.ERROR
    assert "ProducerGoneError" in str(read.status.description)


async def test_writer_outside_of_activities_can_be_linked_to(
    client: Client, exporter: InMemorySpanExporter, queue: ChunkQueue, settings: Settings
) -> None:
    """A producer outside of activities is found from its readers, too."""
    handle = await client.start_workflow(
        "streamq.Stream", StreamRequest("x"), id=f"wf-{uuid.uuid4().hex}", task_queue="nobody's"
    )
    name = stream_name(handle.id, str(handle.first_execution_run_id))
    with trace.get_tracer("test").start_as_current_span("filler") as span:
        writer = open_writer(name, queue=queue, settings=settings, headers=trace_headers())
        async with writer as stream:
            await stream.send_chunk("x")
    assert outline(await read_all(handle, queue, settings)) == ["x", "END"]
    await handle.terminate()
    [read] = named(exporter, "streamq.subscribe")
    assert [link.context.span_id for link in read.links] == [span.get_span_context().span_id]


async def test_without_a_tracer_provider_nothing_is_stored(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Without tracing the queue stores no header."""
    async with run_worker(client, queue, settings, task_queue):
        handle = await start(client, task_queue, "say", "hello")
        async with subscribe(handle, queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["hello", "END"]
            assert not events._open_reader().headers
        await handle.result()


def test_opentelemetry_is_optional() -> None:
    """An application without OpenTelemetry must be able to import and use all of streamq."""
    code = """
import sys
sys.modules["opentelemetry"] = None
from streamq import StreamId
from streamq.temporal import _tracing
assert _tracing.trace_headers() == {}
with _tracing.stream_span(StreamId("t", "s"), backend="memory") as span:
    assert span.headers == {}
reading = _tracing.ReadingSpan()
reading.begin("temporalWorkflowID", "wf")
reading.end(None, None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_standalone_activity_is_in_the_trace_of_its_caller(
    traced: Client,
    exporter: InMemorySpanExporter,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
) -> None:
    """The same holds without a workflow between caller and activity."""
    with trace.get_tracer("test").start_as_current_span("caller"):
        async with run_worker(traced, queue, settings, task_queue):
            try:
                handle = await begin(traced, task_queue, "say", "hello")
            except RPCError as exc:
                if exc.status is not RPCStatusCode.UNIMPLEMENTED:
                    raise
                pytest.skip(f"the oldest server has no standalone activities: {exc.message}")
            assert outline(await read_all(handle, queue, settings)) == ["hello", "END"]
            await handle.result()
    [written], [read] = named(exporter, "streamq.write"), named(exporter, "streamq.subscribe")
    above = list(ancestors(exporter, written))
    assert above[0] == "RunActivity:say"
    assert [link.context.span_id for link in read.links] == [context_of(written).span_id]
    assert attributes(written, "stream") == attributes(read, "stream")
    assert read.attributes is not None
    assert read.attributes["temporalActivityID"] == handle.id
