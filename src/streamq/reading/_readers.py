"""Reads many streams in one iteration, in turn, each with a place and an ending of its own.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Generic, Self

from streamq._errors import ClosedError, ConfigurationError, StreamqError
from streamq._events import GapT, StreamId
from streamq.driver import ChunkQueue, Closing, Home, close_all
from streamq.records._values import T

from ._endings import idle_timeout
from ._reader import StreamReader
from ._stream_event import ReadFailure, StreamEvent, StreamFound

_LONGEST_WAIT_SECONDS = 20.0

OpenOne = Callable[[StreamId, str | None], Awaitable[StreamReader[T, GapT]]]
"""Opens the reader of a stream at a place, or where readers begin by default."""


class _Reading(Generic[T, GapT]):
    """The reading of one stream."""

    __slots__ = ("failure", "is_over", "reader", "task", "wanted")

    def __init__(self, reader: StreamReader[T, GapT]) -> None:
        self.reader = reader
        self.wanted = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        self.is_over = False


class StreamReaders(Generic[T, GapT]):
    """Reads many streams event by event; their values are of type ``T``.

    Get it from :func:`streamq.open_readers`. Iterating yields a :class:`StreamEvent` for each event
    of each stream. A stream ends with its ``Seal`` or a :class:`ReadFailure`; the iteration
    ends when all streams have ended, unless there are prefixes: then it goes on for new streams.

    Streams take turns, one event each, so that one with much to catch up delays no other. A task
    for each stream waits for its next events, and has at most one read from the backend ahead. It
    reads on only when the iteration comes back after the last event that it read.

    For one task at a time; :meth:`add`, :meth:`remove` and :meth:`aclose` may be called from
    others. Cancelling a call loses nothing: the next call continues.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        open_one: OpenOne[T, GapT],
        *,
        identify: Callable[[str | StreamId], StreamId],
        idle_seconds: float,
        max_streams: int,
        goes_on: bool = False,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._queue = queue
        self._open_one = open_one
        self._identify = identify
        self._idle_seconds = idle_seconds
        self._max_streams = max_streams
        self._goes_on = goes_on
        self._clock = asyncio.get_running_loop().time
        self._home = Home("readers", backend=queue.backend)
        self._closed = False
        self._closing = Closing(
            self._end_tasks, self._close_readers, *([] if on_close is None else [on_close])
        )
        self._readings: dict[StreamId, _Reading[T, GapT]] = {}
        self._ended: dict[StreamId, str] = {}  # cursors of streams that are read no more
        self._removed: set[StreamId] = set()  # a prefix may list them still
        self._idle: list[_Reading[T, GapT]] = []  # read on when the iteration comes back
        self._ready: deque[_Reading[T, GapT]] = deque()
        self._news: deque[StreamEvent[T, GapT]] = deque()
        self._trouble: Exception | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open: set[StreamReader[T, GapT]] = set()

    @property
    def streams(self) -> tuple[StreamId, ...]:
        """The streams that are read now: they have neither ended nor failed."""
        return tuple(self._readings)

    @property
    def cursors(self) -> Mapping[StreamId, str]:
        """The place after the last event delivered, of each stream; before the seal if it ended.

        Pass it as ``from_`` to go on later, each stream at its own place.
        """
        return self._ended | {
            stream: reading.reader.cursor for stream, reading in self._readings.items()
        }

    async def add(self, stream: str | StreamId, *, from_: str | None = None) -> None:
        """Read one more stream; without effect if it is read already.

        Args:
            stream: Name within the configured tenant, or a full identity.
            from_: As for :func:`streamq.open_reader`. By default where this stream was left here,
                and otherwise where the readers were told to begin.

        Raises:
            ConfigurationError: The name is not usable, or there are ``max_streams`` already.
            ClosedError: The readers are closed.
            StreamqError: As for :func:`streamq.open_reader`.
        """
        identity = self._identify(stream)
        self._removed.discard(identity)
        await self.begin(identity, from_)

    async def remove(self, stream: str | StreamId) -> str | None:
        """Stop reading a stream; its other events are not delivered. No prefix finds it again.

        Returns:
            The place after its last event that was delivered; ``None`` if it was not read here.
        """
        identity = self._identify(stream)
        if self._goes_on:
            self._removed.add(identity)
        self._news = deque(item for item in self._news if item.stream != identity)
        reading = self._readings.pop(identity, None)
        if reading is None:
            return self._ended.pop(identity, None)
        self._wake()
        await close_all(lambda: self._leave(reading))
        return reading.reader.cursor

    async def begin(
        self, stream: StreamId, from_: str | None = None, *, found: StreamFound | None = None
    ) -> None:
        """Read one more stream, as :meth:`add` does; announce it if a prefix has found it."""
        self._check_open()
        if stream in self._readings:
            return
        if len(self._readings) >= self._max_streams:
            raise ConfigurationError(
                f"{self._max_streams} streams are read already, and {stream} is one more; read "
                "fewer, or permit more with max_streams="
            )
        reader = await self._open_one(stream, from_ or self._ended.get(stream))
        if self._closed or stream in self._readings:  # another call was quicker
            await reader.aclose()
            self._check_open()
            return
        self._ended.pop(stream, None)
        self._open.add(reader)
        reading = self._readings[stream] = _Reading(reader)
        reading.task = self.own(self._read(reading), f"streamq-read {stream}")
        self._idle.append(reading)
        if found is not None:
            self._news.append(StreamEvent(stream, found))
        self._wake()

    def knows(self, stream: StreamId) -> bool:
        """Return whether a stream is read, was read to its end or was removed."""
        return stream in self._readings or stream in self._ended or stream in self._removed

    def own(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that ends when the readers are closed, at the latest."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def report(self, trouble: Exception) -> None:
        """Raise an error from the iteration, once; it can be continued."""
        self._trouble = trouble
        self._wake()

    def fail(self, stream: StreamId, error: StreamqError) -> None:
        """Deliver the failure of a stream that could not be opened."""
        self._news.append(StreamEvent(stream, ReadFailure(error)))
        self._wake()

    def give_up(self, stream: StreamId) -> None:
        """Read a stream no more although it has not ended; its place stays known."""
        reading = self._readings[stream]
        if reading.task is not None:
            reading.task.cancel()
        self._end(reading)

    def forget(self, streams: Iterable[StreamId]) -> None:
        """Forget the places of streams that have ended."""
        for stream in streams:
            self._ended.pop(stream, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent[T, GapT]:
        """Return the next event of any stream.

        Raises:
            StopAsyncIteration: All streams have ended, and there is no prefix.
            ClosedError: The readers are closed.
            StreamqError: The streams below a prefix could not be listed for the retry deadline;
                the next call goes on. What concerns one stream is a :class:`ReadFailure`.
        """
        while True:
            self._check_open()
            for reading in self._idle:
                reading.wanted.set()
            self._idle.clear()
            if self._news:
                return self._news.popleft()
            if self._trouble is not None:
                trouble, self._trouble = self._trouble, None
                raise trouble
            if self._ready:
                item = await self._take(self._ready.popleft())
                if item is not None:
                    return item
            elif not self._readings and not self._goes_on:
                raise StopAsyncIteration
            else:
                self._changed.clear()
                await self._changed.wait()

    async def aclose(self) -> None:
        """Stop reading. Idempotent. Events that were not delivered are left to later readers.

        Cancellation: everything is released all the same, soon after this call at the latest.
        """
        self._closed = True
        self._home.check()
        self._wake()
        await self._closing.run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def _take(self, reading: _Reading[T, GapT]) -> StreamEvent[T, GapT] | None:
        """Deliver the next event of a stream. Does not suspend: its reader has the event."""
        reader = reading.reader
        if self._readings.get(reader.stream) is not reading:
            return None  # removed meanwhile
        if reading.failure is not None:
            self._end(reading)
            if isinstance(reading.failure, StreamqError):
                return StreamEvent(reader.stream, ReadFailure(reading.failure))
            raise reading.failure
        (event,) = await reader.read_batch(max_events=1, max_wait=0.0)
        if reader.seal is not None:
            self._end(reading)
        elif reader.is_ready:
            self._ready.append(reading)
        else:
            self._idle.append(reading)
        return StreamEvent(reader.stream, event)

    def _end(self, reading: _Reading[T, GapT]) -> None:
        """Read a stream no more; its task closes the reader."""
        stream = reading.reader.stream
        del self._readings[stream]
        self._ended[stream] = reading.reader.cursor
        reading.is_over = True
        reading.wanted.set()

    async def _read(self, reading: _Reading[T, GapT]) -> None:
        """Wait for the next events of one stream each time when the iteration wants them."""
        reader = reading.reader
        while True:
            await reading.wanted.wait()
            reading.wanted.clear()
            if reading.is_over:
                await self._close(reader)
                return
            try:
                await self._wait(reader)
            except Exception as exc:  # noqa: BLE001 - delivered or raised by the iteration
                reading.failure = exc
            self._ready.append(reading)
            self._wake()

    async def _wait(self, reader: StreamReader[T, GapT]) -> None:
        until = self._clock() + self._idle_seconds
        while not reader.is_ready:
            left = until - self._clock()
            if left <= 0:
                queue = self._queue
                raise idle_timeout(
                    reader.stream,
                    self._idle_seconds,
                    backend=queue.backend,
                    consumes=not queue.capabilities.replay,
                )
            await reader.read_batch(max_events=0, max_wait=min(left, _LONGEST_WAIT_SECONDS))

    async def _leave(self, reading: _Reading[T, GapT]) -> None:
        if reading.task is not None:
            reading.task.cancel()
            await asyncio.wait({reading.task})
        await self._close(reading.reader)

    async def _close(self, reader: StreamReader[T, GapT]) -> None:
        await reader.aclose()
        self._open.discard(reader)

    def _check_open(self) -> None:
        self._home.check()
        if self._closed:
            raise ClosedError("these readers are closed")

    def _wake(self) -> None:
        self._changed.set()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close_readers(self) -> None:
        await asyncio.gather(*map(self._close, list(self._open)), return_exceptions=True)
