"""The poll activity: from a cursor, a batch of events and the next cursor."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from streamq._errors import ConfigurationError, StreamqError
from streamq._events import Chunk, Event, Reset, Seal, StreamId
from streamq._open import open_reader, stream_id
from streamq._reader import StreamReader

from ._context import activity_context
from ._failure import application_error
from ._pulse import heartbeat_seconds

POLL_ACTIVITY = "streamq.poll"

_PAYLOAD_BYTES = 1_900_000
"""Temporal refuses payloads above 2 MiB; some room is left for the rest of the result."""

_EVENT_OVERHEAD = 2
_LONGEST_WAIT_SECONDS = 3_600.0


@dataclass(frozen=True)
class PollRequest:
    """What to poll for; plain JSON for other SDKs.

    Attributes:
        stream: Name of the stream, as :func:`stream_name` returns it.
        cursor: Where to go on: from an earlier result; ``None`` is the beginning.
        tenant: Tenant of the stream, by default the worker's.
        max_wait_seconds: How long to wait for the first event.
        window_seconds: How long to collect more events after the first, counted from the start of
            the poll. Trades latency for Temporal history. Never applied before the first event of
            a stream has been delivered, and cut short by the end of the stream.
        max_events: Most events to return.
        max_bytes: Most bytes of events to return, as JSON; one event is returned whatever its size,
            if it fits Temporal's limit of 2 MiB.
        values: Whether to return the events or only to count them.
    """

    stream: str
    cursor: str | None = None
    tenant: str | None = None
    max_wait_seconds: float = 60.0
    window_seconds: float = 0.0
    max_events: int = 1_000
    max_bytes: int = 524_288
    values: bool = True


@dataclass(frozen=True)
class PollResult:
    """What a poll found.

    Attributes:
        cursor: Where the next poll goes on; the same as before if nothing came.
        sealed: Whether the stream has ended with these events (or before).
        events: The events as :meth:`streamq.Chunk.to_dict` and its siblings give them, in order;
            empty if only counting.
        count: How many events there were.
        chunks: How many chunks there are among them since the last reset.
        bytes: Bytes of those chunks, as stored.
        resets: How many resets there are.
        attempt: The newest attempt among them, 0 if there are none.
    """

    cursor: str
    sealed: bool
    events: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    chunks: int = 0
    bytes: int = 0
    resets: int = 0
    attempt: int = 0


@activity.defn(name=POLL_ACTIVITY)
async def poll(request: PollRequest) -> PollResult:
    """Wait for events after a cursor and return them with the next cursor.

    Reading removes nothing: the same cursor gives the same events again (and more, if there are
    more by then), so that a poll that is lost with its worker is simply made again. Sends
    heartbeats while it waits and can be cancelled at any time.

    Raises:
        ApplicationError: Its type is the name of the streamq error, such as ``TrimmedError``.
    """
    context = activity_context()
    try:
        _check(request)
        stream = stream_id(
            StreamId(request.tenant, request.stream) if request.tenant else request.stream,
            context.settings,
        )
        async with open_reader(
            stream,
            from_=request.cursor or "beginning",
            queue=context.queue,
            settings=context.settings,
        ) as reader:
            return await _Poll(request, reader, context.settings.cancel_seconds).run()
    except StreamqError as exc:
        raise application_error(exc) from exc


def _check(request: PollRequest) -> None:
    if not 0 <= request.max_wait_seconds <= _LONGEST_WAIT_SECONDS:
        raise ConfigurationError(
            f"max_wait_seconds {request.max_wait_seconds} is outside 0 to {_LONGEST_WAIT_SECONDS:g}"
        )
    if not 0 <= request.window_seconds <= _LONGEST_WAIT_SECONDS:
        raise ConfigurationError(
            f"window_seconds {request.window_seconds} is outside 0 to {_LONGEST_WAIT_SECONDS:g}"
        )
    if request.max_events < 1 or not 1 <= request.max_bytes <= _PAYLOAD_BYTES:
        raise ConfigurationError(
            f"max_events must be at least 1, and max_bytes 1 to {_PAYLOAD_BYTES}, not "
            f"{request.max_events} and {request.max_bytes}"
        )


class _Poll:
    def __init__(
        self, request: PollRequest, reader: StreamReader, longest_beat_seconds: float
    ) -> None:
        self._request = request
        self._reader = reader
        self._beat_seconds = heartbeat_seconds(activity.info(), longest_beat_seconds)
        self._beat_at = 0.0
        self._events: list[dict[str, Any]] = []
        self._sealed = False
        self._size = self._count = self._chunks = self._bytes = self._resets = self._attempt = 0

    async def run(self) -> PollResult:
        request, reader = self._request, self._reader
        started = time.monotonic()
        wait_until = started + request.max_wait_seconds
        # Nothing delivered yet: the first chunk is what people wait for.
        window_until = started + (request.window_seconds if reader.offset else 0.0)
        cursor = reader.cursor
        while self._count < request.max_events and reader.seal is None:
            event = await self._next(window_until if self._count else wait_until)
            if event is None or not self._take(event):
                break
            cursor = reader.cursor
        return PollResult(
            cursor,
            self._sealed,
            self._events,
            self._count,
            self._chunks,
            self._bytes,
            self._resets,
            self._attempt,
        )

    async def _next(self, until: float) -> Event | None:
        """Return the next event; ``None`` if there is none until then."""
        while True:
            now = time.monotonic()
            if now >= self._beat_at:
                activity.heartbeat()
                self._beat_at = now + self._beat_seconds
            wait = max(min(until - now, self._beat_seconds), 0.0)
            batch = await self._reader.read_batch(max_events=1, max_wait=wait)
            if batch:
                return batch[0]
            if self._reader.seal is not None or time.monotonic() >= until:
                return None

    def _take(self, event: Event) -> bool:
        """Add an event to the result, unless it is too much; it is then read again next time."""
        if self._request.values:
            data = event.to_dict()
            size = len(json.dumps(data, separators=(",", ":"))) + _EVENT_OVERHEAD
            if self._events and self._size + size > self._request.max_bytes:
                return False
            if size > _PAYLOAD_BYTES:
                raise ApplicationError(
                    f"event {event.offset} takes {size} bytes as JSON, more than Temporal carries "
                    "in one payload (2 MiB); read this stream outside the workflow (subscribe, "
                    "delivery 'none') or send smaller chunks",
                    type="ChunkTooLargeError",
                    non_retryable=True,
                )
            self._size += size
            self._events.append(data)
        self._count += 1
        self._attempt = event.attempt
        if isinstance(event, Reset):
            self._chunks = self._bytes = 0
            self._resets += 1
        elif isinstance(event, Chunk):
            self._chunks += 1
            self._bytes += len(event.data)
        elif isinstance(event, Seal):
            self._sealed = True
        return True
