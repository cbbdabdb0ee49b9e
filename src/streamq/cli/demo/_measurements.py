"""Measures when chunks are sent and received, on the single clock of this process."""

from __future__ import annotations

import functools
import inspect
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from temporalio import activity

from streamq import Chunk, Event, Reset, Seal, StreamWriter
from streamq.temporal import streaming_activity

_KEPT_LATENCIES = 100_000


@dataclass(frozen=True, slots=True)
class Measurements:
    """The results of a demo; times are ``None`` if no chunk arrived.

    Attributes:
        chunks: Number of valid chunks: those after the last reset.
        chunk_bytes: Their bytes.
        attempts: Attempts of the activity that the reader received.
        first_chunk_seconds: Time from the start of the workflow to the first chunk at the reader.
        latency_seconds: Time from ``send_chunk`` to the reader, median.
        latency_p99_seconds: The same, 99th percentile.
        chunks_per_second: Rate between the first and the last chunk of the last attempt.
        head_start_seconds: Time from the first chunk at the reader to the end of the activity.
    """

    chunks: int
    chunk_bytes: int
    attempts: int
    first_chunk_seconds: float | None
    latency_seconds: float | None
    latency_p99_seconds: float | None
    chunks_per_second: float | None
    head_start_seconds: float | None


class Stopwatch:
    """Records the times of one demo."""

    def __init__(self) -> None:
        self.chunks = self.chunk_bytes = self.attempt = 0
        self._started = self._first_seen = self._last_seen = self._ended = 0.0
        self._began = 0.0  # first chunk of the newest attempt
        self._sent: dict[tuple[int, int], float] = {}
        self._latencies: deque[float] = deque(maxlen=_KEPT_LATENCIES)

    def start(self) -> None:
        """Record the start of the workflow."""
        self._started = time.perf_counter()

    def sending(self, attempt: int, seq: int) -> None:
        """Record that a chunk is about to be sent."""
        self._sent[attempt, seq] = time.perf_counter()

    def activity_ended(self) -> None:
        """Record the end of an attempt of the activity."""
        self._ended = time.perf_counter()

    def received(self, event: Event) -> None:
        """Record an event that the reader has received."""
        now = time.perf_counter()
        self.attempt = event.attempt
        if isinstance(event, Chunk):
            sent = self._sent.pop((event.attempt, event.seq), None)
            if sent is not None:
                self._latencies.append(now - sent)
            self._first_seen = self._first_seen or now
            self._began = self._began or now
            self._last_seen = now
            self.chunks += 1
            self.chunk_bytes += len(event.data)
        elif isinstance(event, Reset | Seal):
            # The last chunks of an older attempt may never have been stored.
            self._sent = {key: at for key, at in self._sent.items() if key[0] >= event.attempt}
        if isinstance(event, Reset):
            self.chunks = self.chunk_bytes = 0
            self._began = 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Time since the first chunk was received."""
        return time.perf_counter() - self._first_seen if self._first_seen else 0.0

    @property
    def chunks_per_second(self) -> float | None:
        """Rate between the first and the last chunk of the newest attempt."""
        took = self._last_seen - self._began
        return (self.chunks - 1) / took if self.chunks > 1 and took > 0 else None

    def results(self) -> Measurements:
        """Return the results."""
        latencies = sorted(self._latencies)
        seen = self._first_seen
        return Measurements(
            chunks=self.chunks,
            chunk_bytes=self.chunk_bytes,
            attempts=self.attempt,
            first_chunk_seconds=seen - self._started if seen else None,
            latency_seconds=statistics.median(latencies) if latencies else None,
            latency_p99_seconds=latencies[int(len(latencies) * 0.99)] if latencies else None,
            chunks_per_second=self.chunks_per_second,
            head_start_seconds=self._ended - seen if seen and self._ended else None,
        )


def measured(
    streaming: Callable[..., Awaitable[None]],
    stopwatch: Stopwatch,
    *,
    fail_after: int | None,
) -> Callable[..., Awaitable[None]]:
    """Return a streaming activity that records times, so that the original need not.

    Args:
        streaming: The activity.
        stopwatch: Records every chunk just before it is sent.
        fail_after: Number of chunks after which the first attempt fails; at its end if it has
            fewer. ``None`` for no failure.
    """
    function = inspect.unwrap(streaming)

    @functools.wraps(function)
    async def run(stream: StreamWriter, *args: Any) -> None:
        fails = fail_after is not None and activity.info().attempt == 1
        observed = _Observed(stream, stopwatch, fail_after if fails else None)
        try:
            await function(cast(StreamWriter, observed), *args)
            if fails:
                raise BrokenOnPurposeError
        finally:
            stopwatch.activity_ended()

    decorated: Callable[..., Awaitable[None]] = streaming_activity(run)
    return decorated


class BrokenOnPurposeError(RuntimeError):
    """The error that ``--fail-once`` raises in the activity."""

    def __init__(self) -> None:
        super().__init__("--fail-once breaks the first attempt on purpose")


class _Observed:
    """A writer that records when it sends."""

    def __init__(self, stream: StreamWriter, stopwatch: Stopwatch, fail_after: int | None) -> None:
        self._stream = stream
        self._stopwatch = stopwatch
        self._fail_after = fail_after

    async def send_chunk(self, value: object) -> None:
        stream = self._stream
        if stream.position == self._fail_after:
            raise BrokenOnPurposeError
        self._stopwatch.sending(stream.attempt, stream.position)
        await stream.send_chunk(value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
