"""Writes streams for readers of many, and shows what they deliver."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from streamq import (
    Chunk,
    Gap,
    OnRetry,
    ReadFailure,
    Reset,
    Seal,
    Settings,
    StreamEvent,
    StreamFound,
    StreamReaders,
    open_writer,
)
from streamq.driver import ChunkQueue, StreamId
from streamq.testing import FaultyQueue


async def write(queue: ChunkQueue, settings: Settings, name: str, *values: object) -> None:
    """Write a stream and end it."""
    async with open_writer(name, queue=queue, settings=settings) as writer:
        for value in values:
            await writer.send_chunk(value)


async def write_on(queue: ChunkQueue, settings: Settings, name: str, *values: object) -> None:
    """Write more of a stream, and leave it open."""
    writer = await open_writer(name, queue=queue, settings=settings, on_retry=OnRetry.RESUME)
    for value in values:
        await writer.send_chunk(value)
    await writer.flush()
    await writer.aclose()


def shown(item: StreamEvent[Any, Any]) -> tuple[str, object]:
    """Return the name of the stream, and the value or the kind of the event."""
    match item.event:
        case Chunk():
            return item.stream.name, item.event.value
        case Seal():
            return item.stream.name, item.event.state.name
        case ReadFailure():
            return item.stream.name, type(item.event.error)
        case Reset() | Gap() | StreamFound():
            return item.stream.name, type(item.event)
        case other:
            raise AssertionError(other)


async def rest(readers: StreamReaders[Any, Any]) -> list[tuple[str, object]]:
    return [shown(item) async for item in readers]


def of(name: str, items: Sequence[tuple[str, object]]) -> list[object]:
    """Return what one stream delivered."""
    return [what for stream, what in items if stream == name]


class Consuming(FaultyQueue):
    """A queue without replay: counts what is acknowledged."""

    def __init__(self, inner: ChunkQueue) -> None:
        super().__init__(inner, capabilities=dataclasses.replace(inner.capabilities, replay=False))
        self.committed: list[tuple[str, str]] = []
        self.released: list[str] = []

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.committed.append((stream.name, upto))

    async def release(self, stream: StreamId, after: str) -> None:
        self.released.append(stream.name)
