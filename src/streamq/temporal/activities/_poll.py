"""Runs ``streamq.poll``: waits for events after a cursor and returns them with the next cursor."""

from __future__ import annotations

import asyncio
import math

from temporalio import activity

from streamq._errors import ChunkTooLargeError, StreamNotFoundError, StreamqError
from streamq._events import Chunk, Event, Reset, Seal
from streamq._open import open_reader, stream_id
from streamq._reader import StreamReader
from streamq.driver import ChunkQueue
from streamq.temporal._event_json import EventPacker
from streamq.temporal._failure import application_error, final_failure
from streamq.temporal._input import takes
from streamq.temporal._runs import is_ended

from ._beating import beating
from ._context import activity_context
from ._limits import check_limits, check_seconds
from ._poll_request import POLL_ACTIVITY, PollRequest, PollResult

_HIDDEN_GRACE_SECONDS = 5.0
_LONGEST_HIDDEN_SECONDS = 45.0  # such a poll has a minute
_LONGEST_READ_SECONDS = 20.0

_TURN_SECONDS = 0.02
"""What lies between two polls, at least in the window of the second one.

Where a server takes longer, chunks have waited that long already; where it is quicker, polls would
come more often than they are worth.
"""

_MOST_BYTES = 2_097_152  # Temporal's limit for a payload
_LARGE_BYTES = 1_000_000
_LONGEST_BEAT_SECONDS = 10.0
_LOOK_SECONDS = 2.0  # between two looks whether the producer of an idle stream still runs


@activity.defn(name=POLL_ACTIVITY)
@takes(PollRequest)
async def poll(request: PollRequest) -> PollResult:
    """Wait for events after a cursor and return them with the next cursor.

    Reading removes nothing: the same cursor gives the same events again (and more, if there are
    more by then), so that a poll that is lost with its worker is simply made again. Sends
    heartbeats while it waits, three in a heartbeat timeout, and can be cancelled at any time. May
    be called as a local activity.

    Raises:
        ApplicationError: Its type is the name of the streamq error, such as ``TrimmedError``.
    """
    context = activity_context()
    try:
        _check(request)
        settings = context.settings
        if request.tenant:
            settings = settings.model_copy(update={"tenant": request.tenant})
        stream = stream_id(request.stream, settings)
        async with open_reader(
            stream,
            from_=request.cursor or "beginning",
            queue=context.queue,
            settings=context.settings,
            codec=context.codec(stream),
            commits=False,  # before the result is in the history, nothing may be gone
        ) as reader:
            polling = _PollRun(request, reader, context.queue).run()
            if activity.info().is_local:
                return await polling
            # Apart from reading: each wait that is cut short costs a request.
            return await beating(polling, longest_seconds=_LONGEST_BEAT_SECONDS)
    except StreamqError as exc:
        raise application_error(exc) from exc


def _check(request: PollRequest) -> None:
    check_seconds("max_wait_seconds", request.max_wait_seconds)
    check_limits(request.window_seconds, request.max_events, request.max_bytes)


async def _check_size(result: PollResult) -> None:
    """Fail for good if Temporal will not carry a result: a payload codec may make it larger.

    Raises:
        ApplicationError: It is too large; not retryable. The SDK's own failure would be.
    """
    converter = activity_context().client.data_converter
    size = sum(each.ByteSize() for each in await converter.encode([result]))
    if size > _MOST_BYTES:
        raise final_failure(
            ChunkTooLargeError,
            f"{result.count} events take {size} bytes as Temporal's payload, more than it carries "
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
        # Nothing delivered yet: the first chunk is what people wait for.
        window_until = self._window_until() if reader.offset else self._started
        cursor = await self._collect(wait_until, window_until)
        hidden = False
        if not request.max_wait_seconds and self._is_in_doubt() and await self._is_there():
            # Asked for the rest, and the end has not come: a reader that died may have it.
            seconds = self._queue.hidden_seconds + _HIDDEN_GRACE_SECONDS
            until = self._clock() + min(seconds, _LONGEST_HIDDEN_SECONDS)
            cursor = await self._collect(until, until)
            hidden = self._is_in_doubt() and await self._is_there(something=True)
        producer_over = not self._count and (self._producer_over or await self._look())
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
            # Another host's clock has another beginning.
            if 0 <= self._started - polled <= window:
                return polled + _TURN_SECONDS + window
        return self._started + window

    async def _collect(self, wait_until: float, window_until: float) -> str:
        """Take what comes; return the cursor after it."""
        request, reader = self._request, self._reader
        cursor = reader.cursor
        while self._count < request.max_events and reader.seal is None and not reader.is_spent:
            event = await self._next(window_until if self._count else wait_until)
            if event is None or not self._take(event):
                break
            cursor = reader.cursor
        return cursor

    def _is_in_doubt(self) -> bool:
        """Whether finding nothing does not mean that there is nothing."""
        is_empty = not self._count and self._reader.seal is None
        return is_empty and not self._queue.capabilities.replay

    async def _is_there(self, *, something: bool = False) -> bool:
        """Whether the stream exists, and, if asked, has records."""
        try:
            info = await self._queue.describe(self._reader.stream)
        except StreamNotFoundError:
            return False
        return not something or info.records != 0

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
        """Read an event; give up as soon as the producer, if the poll looks after one, is over.

        The read itself is not cut into pieces: where reading costs a request, each piece would.
        """
        reading = self._reader.read_batch(max_events=1, max_wait=wait)
        if self._request.producer is None or self._count:
            return await reading
        task = asyncio.create_task(reading)
        try:
            while not (await asyncio.wait([task], timeout=_LOOK_SECONDS))[0]:
                if await self._look() and not task.done():
                    self._producer_over = True  # the next poll finds what it has stored last
                    return []
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> bool:
        """Whether the workflow that produces the stream, if one is named, has ended."""
        producer = self._request.producer
        return producer is not None and await is_ended(activity.client(), producer)

    def _take(self, event: Event) -> bool:
        """Add an event to the result, unless it is too much; it is then read again next time."""
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
