"""What checks of whole streams stand on: writing and reading through the driver under test."""

from __future__ import annotations

from collections.abc import Iterable

from streamq import Chunk, Event, open_reader, open_writer
from streamq.driver import ChunkQueue, StreamId

from ._checks import Checks


def values(events: Iterable[Event]) -> list[object]:
    """Return the values of the chunks, without the rest."""
    return [event.value for event in events if isinstance(event, Chunk)]


class StreamChecks(Checks):
    """Whole streams through the driver under test: what applications get on top of it."""

    async def write(self, queue: ChunkQueue, stream: StreamId, *texts: str) -> None:
        """Write a sealed stream, packed into few records."""
        async with open_writer(stream, queue=queue) as writer:
            for text in texts:
                await writer.send_chunk(text)

    async def read_all(
        self, queue: ChunkQueue, stream: StreamId, from_: str = "beginning"
    ) -> list[Event]:
        """Read a stream to its seal."""
        async with open_reader(
            stream, from_=from_, queue=queue, idle_seconds=self.patience
        ) as reader:
            return [event async for event in reader]
