"""Defines the input and the result of ``streamq.poll``: plain JSON for other SDKs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ._poll_limits import MAX_BYTES, MAX_EVENTS, MAX_WAIT_SECONDS

POLL_ACTIVITY = "streamq.poll"

_ALWAYS_SENT = ("max_wait_seconds", "window_seconds")


@dataclass(frozen=True)
class PollRequest:
    """Input of ``streamq.poll``; plain JSON for other SDKs.

    Attributes:
        stream: Name of the stream, as :func:`stream_name` returns it.
        cursor: Position after which to read, from an earlier result; ``None`` is the beginning.
        tenant: Tenant of the stream, by default the worker's.
        max_wait_seconds: How long to wait for the first event.
        window_seconds: How long to collect more events after the first, counted from the start of
            the poll. Trades latency for Temporal history. Never applied before the first event of
            a stream has been delivered, and cut short by the end of the stream. An event that comes
            after a pause longer than the window is returned at once.
        polled_ms: ``clock_ms`` of the previous poll. If that is no longer ago than the window, by
            the clock of this worker, the window is counted from 20 ms after it: polls come at an
            even pace regardless of how long the server takes between them.
        max_events: Most events to return.
        max_bytes: Most bytes of events to return, as JSON; a single event is returned even if it is
            larger, as long as it fits Temporal's limit of 2 MiB.
        values: Whether to return the events or only to count them.
        producer: Id of the workflow that produces the stream on behalf of another one. A poll that
            finds nothing checks every two seconds whether it has ended, and returns if so.
    """

    stream: str
    cursor: str | None = None
    tenant: str | None = None
    max_wait_seconds: float = MAX_WAIT_SECONDS
    window_seconds: float = 0.0
    polled_ms: int | None = None
    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES
    values: bool = True
    producer: str | None = None


@dataclass(frozen=True)
class PollResult:
    """Result of ``streamq.poll``.

    Attributes:
        cursor: Where the next poll continues; unchanged if nothing came.
        sealed: Whether the stream has ended with these events, or before them.
        events: The events in order; empty if they are only counted. Consecutive chunks of one
            attempt are one object, which docs/temporal.md describes.
        count: Number of events.
        chunks: Number of chunks among them since the last reset.
        bytes: Bytes of those chunks, as stored.
        resets: Number of resets among them.
        attempt: The newest attempt among them, 0 if there are none.
        elapsed_ms: How long the poll took, rounded up.
        clock_ms: When it ended, by a clock that only this process of the worker can compare.
        producer_over: Whether nothing came and the workflow ``producer`` has ended.
        hidden: Whether nothing came although events are stored. On a backend without replay the
            events that a crashed reader had received stay hidden from others for a while.
    """

    cursor: str
    sealed: bool
    events: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    chunks: int = 0
    bytes: int = 0
    resets: int = 0
    attempt: int = 0
    elapsed_ms: int = field(default=0, compare=False)
    clock_ms: int = field(default=0, compare=False)
    producer_over: bool = False
    hidden: bool = False


def without_defaults(request: PollRequest) -> dict[str, Any]:
    """Return a request as JSON without optional fields that have their default value.

    The input of every poll is stored in the history of the workflow, which is billed by the byte.
    """
    return {
        each.name: getattr(request, each.name)
        for each in dataclasses.fields(request)
        if each.name in _ALWAYS_SENT or getattr(request, each.name) != each.default
    }
