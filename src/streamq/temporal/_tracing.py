"""Records spans of streams: one for each attempt that writes, one for each subscription, linked.

It needs ``opentelemetry-api`` (extra ``otel``) and a tracer provider set by the application;
without them nothing is recorded. The headers of the stream carry the trace context, as W3C Trace
Context. They do not carry baggage, which may be confidential to readers of the backend.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from streamq._errors import SealedError, StreamqError, error_text
from streamq._events import SealState, StreamId
from streamq.reading._reader import StreamReader
from streamq.records._wire import SealBody
from streamq.writing._writer import StreamWriter

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _is_installed = False
else:
    _is_installed = True
    _propagator = TraceContextTextMapPropagator()

_SCOPE = "streamq"
_NOT_SEALED = "OPEN"


def trace_headers() -> dict[str, str]:
    """Return the current trace context as headers for :func:`streamq.open_writer`.

    They are empty without OpenTelemetry, and outside of a trace.
    """
    headers: dict[str, str] = {}
    if _is_installed:
        _propagator.inject(headers)
    return headers


class StreamSpan:
    """The span of one attempt to write a stream; get one from :func:`stream_span`.

    Attributes:
        headers: Trace context of the span, for :func:`streamq.open_writer`.
    """

    def __init__(self, span: trace.Span | None) -> None:
        self.headers: dict[str, str] = {}
        self._span = span
        self._writer: StreamWriter[Any] | None = None
        if span is not None:
            _propagator.inject(self.headers, trace.set_span_in_context(span))

    def follow(self, writer: StreamWriter[Any]) -> None:
        """End the span with the writer: when its seal is durable, it fails, or it is closed."""
        self._writer = writer
        if self._span is not None:
            self._span.set_attribute("streamq.attempt", writer.attempt)
            writer.on_stopped(self._end)

    def fail(self, error: BaseException) -> None:
        """End the span at once: the stream could not be opened. A followed writer ends it later."""
        if self._span is not None and self._writer is None:
            if isinstance(error, SealedError):  # often a repeated attempt, which discards
                self._span.set_attribute("streamq.state", "SEALED")
            else:
                self._span.set_attribute("streamq.state", _NOT_SEALED)
                _set_error(self._span, error)
            self._span.end()

    def _end(self, seal: SealBody | None, failure: StreamqError | None) -> None:
        span, writer = self._span, self._writer
        assert span is not None
        assert writer is not None
        numbers = writer.statistics()
        span.set_attribute("streamq.chunks", numbers.chunks)
        span.set_attribute("streamq.bytes", numbers.chunk_bytes)
        if seal is not None:
            span.set_attribute("streamq.state", seal.state.name)
            if seal.state is SealState.ERROR:
                span.set_status(trace.StatusCode.ERROR, f"{seal.error_type}: {seal.message}")
        else:
            span.set_attribute("streamq.state", _NOT_SEALED)
            if failure is not None:
                _set_error(span, failure)
        span.end()


@contextmanager
def stream_span(stream: StreamId, *, backend: str) -> Iterator[StreamSpan]:
    """Begin the span of an attempt to write a stream, as a child of the current one.

    The block opens the writer: it passes :attr:`StreamSpan.headers` to :func:`streamq.open_writer`
    and the writer to :meth:`StreamSpan.follow`, after which the span ends with the writer. If the
    block raises, the span ends there. The span does not become the current one, so that the
    producer's own spans have the same parent as without streamq.
    """
    begun = None
    if _is_installed:
        begun = trace.get_tracer(_SCOPE).start_span(
            "streamq.write",
            kind=trace.SpanKind.PRODUCER,
            attributes={**_names(stream), "streamq.backend": backend},
        )
    span = StreamSpan(begun)
    try:
        yield span
    except BaseException as exc:
        span.fail(exc)
        raise


class ReadingSpan:
    """The span of one subscription, a child of the span that is current when it begins."""

    def __init__(self) -> None:
        self._span: trace.Span | None = None
        self._headers: Mapping[str, str] = {}

    def begin(self, id_attribute: str, id: str) -> None:
        """Begin the span, if spans are recorded in this process."""
        if not _is_installed:
            return
        span = trace.get_tracer(_SCOPE).start_span(
            "streamq.subscribe",
            kind=trace.SpanKind.CONSUMER,
            attributes={id_attribute: id},
        )
        self._span = span if span.is_recording() else None

    def opened(self, stream: StreamId, backend: str) -> None:
        """Add the stream and its backend once the reader is open."""
        if self._span is not None:
            self._span.set_attributes({**_names(stream), "streamq.backend": backend})

    def follow(self, reader: StreamReader[Any, object]) -> None:
        """Link to the span of the attempt that is read, unless it is the same as before."""
        if self._span is None or reader.headers == self._headers:
            return
        self._headers = dict(reader.headers)
        context = _propagator.extract(self._headers)
        produced = trace.get_current_span(context).get_span_context()
        if produced.is_valid:
            self._span.add_link(produced)

    def end(self, reader: StreamReader[Any, object] | None, error: BaseException | None) -> None:
        """End the span with the counts and the ending that were read."""
        span, self._span = self._span, None
        if span is None:
            return
        if reader is not None:
            numbers, seal = reader.statistics(), reader.seal
            span.set_attribute("streamq.chunks", numbers.chunks)
            span.set_attribute("streamq.bytes", numbers.chunk_bytes)
            span.set_attribute("streamq.state", seal.state.name if seal else _NOT_SEALED)
            if seal is not None:
                span.set_attribute("streamq.attempt", seal.attempt)
        if isinstance(error, StreamqError):
            _set_error(span, error)
        span.end()


def _names(stream: StreamId) -> dict[str, str]:
    return {"streamq.stream": stream.name, "streamq.tenant": stream.tenant}


def _set_error(span: trace.Span, error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        return
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error_text(error)}")
