"""The base class of checks of whole streams, which write and read through the driver under test."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from streamq import (
    Chunk,
    EventOrGap,
    Gap,
    Opening,
    Reset,
    Seal,
    Settings,
    StreamReader,
    StreamWriter,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, StreamId

from ._base import Checks
from ._verdicts import same, same_records

_RETENTION_SECONDS = 300.0

# Most checks load the same settings; a thousand times, that takes longer than the checks.
_loaded = functools.cache(load_settings)


def values(events: Iterable[EventOrGap]) -> list[object]:
    """Return the values of the chunks, without the rest."""
    return [event.value for event in events if isinstance(event, Chunk)]


def delivered(events: Iterable[EventOrGap]) -> list[object]:
    """Return the events that a reader got, in short: values, ``RESET 2``, ``GAP 1-4``, ``END``."""
    story: list[object] = []
    for event in events:
        match event:
            case Chunk():
                story.append(event.value)
            case Reset():
                story.append(f"RESET {event.attempt}")
            case Gap():
                story.append(f"GAP {event.first}-{event.offset}")
            case Seal():
                story.append(event.state.name)
    return story


def valid_values(events: Iterable[EventOrGap]) -> list[object]:
    """Return the values that are valid: those after the last reset."""
    valid: list[object] = []
    for event in events:
        if isinstance(event, Chunk):
            valid.append(event.value)
        elif isinstance(event, Reset):
            valid.clear()
    return valid


def same_offsets(events: Sequence[EventOrGap], offsets: Iterable[int]) -> None:
    """Fail unless the events have these offsets."""
    __tracebackhide__ = True
    same(
        [event.offset for event in events],
        list(offsets),
        "the offsets of the events",
        cause="streamq numbers events by the records before them: describe(last=...) or read() "
        "left one out, or returned one that belongs to an older epoch",
    )


class StreamChecks(Checks):
    """Writes and reads whole streams through the driver under test, as applications do."""

    def settings(self, **overrides: Any) -> Settings:
        """Return settings that ignore the environment, with the deadlines of the harness."""
        options: dict[str, Any] = {
            "tenant": "kit",
            "ttl_seconds": _RETENTION_SECONDS,
            "sealed_ttl_seconds": _RETENTION_SECONDS,
            "max_chunk_bytes": 1_048_576,
            "buffer_bytes": 4_194_304,
            "retry_seconds": self.patience,
            "operation_seconds": self.patience,
            "idle_seconds": self.patience,
        }
        return _loaded(**(options | overrides))

    def writer(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        *,
        settings: Settings | None = None,
        **options: Any,
    ) -> Opening[StreamWriter]:
        """Open a stream for writing."""
        return open_writer(stream, queue=queue, settings=settings or self.settings(), **options)

    def reader(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        from_: str = "beginning",
        *,
        settings: Settings | None = None,
        **options: Any,
    ) -> Opening[StreamReader[Any, Gap]]:
        """Open a stream for reading."""
        return open_reader(
            stream, from_=from_, queue=queue, settings=settings or self.settings(), **options
        )

    async def write(self, queue: ChunkQueue, stream: StreamId, *texts: str) -> None:
        """Write a sealed stream, packed into few records."""
        async with self.writer(queue, stream) as writer:
            for text in texts:
                await writer.send_chunk(text)

    async def write_apart(self, queue: ChunkQueue, stream: StreamId, *texts: str) -> None:
        """Write a sealed stream with one chunk in each record, and the seal in one of its own."""
        async with self.writer(queue, stream) as writer:
            for text in texts:
                await writer.send_chunk(text)
                await writer.flush()

    async def read_all(
        self, queue: ChunkQueue, stream: StreamId, from_: str = "beginning", **options: Any
    ) -> list[EventOrGap]:
        """Read a stream to its seal."""
        async with self.reader(queue, stream, from_, **options) as reader:
            return [event async for event in reader]

    async def cursors(self, queue: ChunkQueue, stream: StreamId) -> list[str]:
        """Read a stream to its seal; return the first cursor and the one after each event."""
        async with self.reader(queue, stream) as reader:
            found = [reader.cursor]
            async for _ in reader:
                found.append(reader.cursor)
        return found

    def follow(
        self, queue: ChunkQueue, stream: StreamId, from_: str = "beginning"
    ) -> asyncio.Task[list[EventOrGap]]:
        """Read a stream to its seal in the background."""
        return self.begin(self.read_all(queue, stream, from_))

    def expect_same(self, results: Iterable[list[EventOrGap]], story: Sequence[object]) -> None:
        """Assert that every reader got the same events, with the same dense offsets."""
        __tracebackhide__ = True
        results = list(results)
        same_records(delivered(results[0]), list(story), "the events that a reader got")
        same_offsets(results[0], range(1, len(story) + 1))
        for number, result in enumerate(results[1:], 2):
            same(
                result,
                results[0],
                f"the events of reader {number}, compared with those of the first",
                cause="readers read in different orders, or one began after the first record; "
                "every connection has to return the same records in the same order",
            )
