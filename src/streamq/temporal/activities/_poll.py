"""Runs ``streamq.poll``: waits for events after a cursor and returns them with the next cursor."""

from __future__ import annotations

import asyncio
import math

from temporalio import activity

from streamq._errors import ChunkTooLargeError, StreamNotFoundError, StreamqError
from streamq._events import Chunk, Event, Reset, Seal, StreamId
from streamq._settings import Settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.opening._open import open_reader, stream_id
from streamq.reading._reader import StreamReader
from streamq.temporal._event_json import EventPacker
from streamq.temporal._failure import application_error, final_failure
from streamq.temporal._input import takes
from streamq.temporal._workflow_runs import has_workflow_ended

from ._context import ActivityContext, activity_context, wait_without_slot
from ._poll_limits import check_limits, check_seconds
from ._poll_request import POLL_ACTIVITY, PollRequest, PollResult

_HIDDEN_GRACE_SECONDS = 5.0
_LONGEST_HIDDEN_SECONDS = 45.0  # such a poll may take a minute
_LONGEST_READ_SECONDS = 20.0

_TURN_SECONDS = 0.02
"""Least time that is assumed between two polls when the window of the second is computed.

A server that takes longer has made chunks wait that long already. With a faster server polls would
come more often than is useful.
"""

_MOST_BYTES = 2_097_152  # Temporal's limit of a payload
_LARGE_BYTES = 1_000_000
_LONGEST_BEAT_SECONDS = 10.0
_CHECK_SECONDS = 2.0  # interval of checks whether the producer of an idle stream still runs


@activity.defn(name=POLL_ACTIVITY)
@takes(PollRequest)
async def poll(request: PollRequest) -> PollResult:
    """Wait for events after a cursor and return them with the next cursor.

    Reading removes nothing: the same cursor returns the same events again (and further ones, if
    there are any by then), so that a poll that is lost with its worker is repeated. It occupies no
    activity slot while it waits, sends heartbeats, three in a heartbeat timeout, and can be
    cancelled at any time. It may be called as a local activity, which keeps its slot.

    Raises:
        ApplicationError: Its type is the name of the streamq error, such as ``TrimmedError``.
    """
    context = activity_context()
    try:
        stream = _check(request, context.settings)
    except StreamqError as exc:
        raise application_error(exc) from exc
    polling = _poll(request, stream, context)
    # Heartbeats do not interrupt reading: each wait that is cut short costs a request.
    return await wait_without_slot(polling, longest_seconds=_LONGEST_BEAT_SECONDS)


async def _poll(request: PollRequest, stream: StreamId, context: ActivityContext) -> PollResult:
    try:
        async with open_reader(
            stream,
            from_=request.cursor or "beginning",
            queue=context.queue,
            settings=context.settings,
            codec=context.codec(stream),
            commits=False,  # nothing may be removed before the result is in the history
        ) as reader:
            return await _PollRun(request, reader, context.queue).run()
    except StreamqError as exc:
        raise application_error(exc) from exc


def _check(request: PollRequest, settings: Settings) -> StreamId:
    """Return the stream of a valid request."""
    check_seconds("max_wait_seconds", request.max_wait_seconds)
    check_limits(request.window_seconds, request.max_events, request.max_bytes)
    if request.tenant:
        settings = settings.model_copy(update={"tenant": request.tenant})
    return stream_id(request.stream, settings)


async def _check_size(result: PollResult) -> None:
    """Fail without a retry if a result exceeds Temporal's limit, as a payload codec may make it.

    Raises:
        ApplicationError: It is too large; not retryable. The SDK's own failure is retryable.
    """
    converter = activity_context().client.data_converter
    size = sum(each.ByteSize() for each in await converter.encode([result]))
    if size > _MOST_BYTES:
        raise final_failure(
            ChunkTooLargeError,
            f"{result.count} events take {size} bytes as a payload, more than Temporal's limit "
            f"({_MOST_BYTES}); send smaller chunks, lower max_bytes, or read this stream outside "
            "the workflow (subscribe, delivery 'none')",
        )


class _PollRun:
    def __init__(self, request: PollRequest, reader: StreamReader, queue: ChunkQueue) -> None:
        self._request = request
        self._reader = reader
        self._queue = queue
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._packed = EventPacker()
        self._sealed = self._producer_over = False
        self._count = self._chunks = self._bytes = self._resets = self._attempt = 0

    async def run(self) -> PollResult:
        request, reader = self._request, self._reader
        wait_until = self._started + request.max_wait_seconds
        # No window before the first event of the stream, so that it is delivered at once.
        window_until = self._window_until() if reader.offset else self._started
        cursor = await self._collect(wait_until, window_until)
        hidden = False
        if not request.max_wait_seconds and self._may_be_hidden() and await self._exists():
            # The rest was requested and has no end: a crashed reader may have received it.
            seconds = self._queue.hidden_seconds + _HIDDEN_GRACE_SECONDS
            until = self._clock() + min(seconds, _LONGEST_HIDDEN_SECONDS)
            cursor = await self._collect(until, until)
            hidden = self._may_be_hidden() and await self._exists(with_records=True)
        producer_over = not self._count and (
            self._producer_over or await self._has_producer_ended()
        )
        ended = self._clock()
        result = PollResult(
            cursor,
            self._sealed,
            self._packed.entries,
            self._count,
            self._chunks,
            self._bytes,
            self._resets,
            self._attempt,
            math.ceil((ended - self._started) * 1_000),
            math.ceil(ended * 1_000),
            producer_over,
            hidden,
        )
        if self._packed.size + len(cursor) > _LARGE_BYTES:
            await _check_size(result)
        return result

    def _window_until(self) -> float:
        window, polled_ms = self._request.window_seconds, self._request.polled_ms
        if polled_ms is not None:
            polled = polled_ms / 1_000
            # The clock of another host starts at another value.
            if 0 <= self._started - polled <= window:
                return polled + _TURN_SECONDS + window
        return self._started + window

    async def _collect(self, wait_until: float, window_until: float) -> str:
        """Add events to the result until a limit is reached; return the cursor after them."""
        request, reader = self._request, self._reader
        cursor = reader.cursor
        while self._count < request.max_events and reader.seal is None and not reader.is_spent:
            event = await self._next(window_until if self._count else wait_until)
            if event is None or not self._take(event):
                break
            cursor = reader.cursor
        return cursor

    def _may_be_hidden(self) -> bool:
        """Whether nothing was found and the backend may hide stored events from this reader."""
        is_empty = not self._count and self._reader.seal is None
        return is_empty and not self._queue.capabilities.replay

    async def _exists(self, *, with_records: bool = False) -> bool:
        """Whether the stream exists and, if requested, has records."""
        try:
            info = await calling.describe(self._queue, self._reader.stream)
        except StreamNotFoundError:
            return False
        return not with_records or info.records != 0

    async def _next(self, until: float) -> Event | None:
        """Return the next event; ``None`` if there is none until then."""
        while True:
            wait = max(min(until - self._clock(), _LONGEST_READ_SECONDS), 0.0)
            batch = await self._read(wait)
            if batch:
                return batch[0]
            if self._producer_over or self._reader.seal is not None or self._clock() >= until:
                return None

    async def _read(self, wait: float) -> list[Event]:
        """Read one event; return none as soon as the producer, if the request names one, has ended.

        The read is not split into shorter ones: on some backends each read costs a request.
        """
        reading = self._reader.read_batch(max_events=1, max_wait=wait)
        if self._request.producer is None or self._count:
            return await reading
        task = asyncio.create_task(reading)
        # Beside the read: Temporal's answer may take seconds, and must not delay an event.
        end = asyncio.create_task(self._wait_producer_end())
        try:
            await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self._producer_over = True  # the next poll finds its last records
            return []
        finally:
            for each in (task, end):
                each.cancel()
            await asyncio.gather(task, end, return_exceptions=True)

    async def _wait_producer_end(self) -> None:
        is_over = False
        while not is_over:
            await asyncio.sleep(_CHECK_SECONDS)
            is_over = await self._has_producer_ended()

    async def _has_producer_ended(self) -> bool:
        """Whether the workflow that produces the stream, if the request names one, has ended."""
        producer = self._request.producer
        return producer is not None and await has_workflow_ended(activity.client(), producer)

    def _take(self, event: Event) -> bool:
        """Add an event to the result unless it does not fit; the next poll then reads it again."""
        request = self._request
        if request.values and not self._packed.add(event, max_bytes=request.max_bytes):
            return False
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
