"""Writes streams for tests of the command."""

from __future__ import annotations

from streamq import open_writer
from streamq.driver import ChunkQueue


async def write(queue: ChunkQueue, *names: str) -> None:
    """Write a sealed stream of one chunk under each name."""
    for name in names:
        async with open_writer(name, queue=queue) as stream:
            await stream.send_chunk("x" * 2000)
