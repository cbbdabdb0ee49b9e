"""Writes streams of every kind on every backend, and keeps what the servers then have.

Run it with the streamq whose stored form is to be kept, once and before that form changes::

    PYTHONPATH=. OTHER/.venv/bin/python -m tests.stored ORIGIN [BACKEND...]

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from streamq import open_queue
from streamq.driver import StreamId

from .servers import IS_SAVED_AFTERWARDS, SERVERS, Kept, Server, store
from .stories import read_all, settings, write_all


async def write(kind: type[Server], directory: Path) -> Kept:
    """Return what the server keeps after every kind of stream was written."""
    server = kind(directory)
    kept: Kept = None
    async with server.running() as environment:
        os.environ.update(environment)
        async with open_queue(settings(kind.backend)) as queue:
            await write_all(queue)
        if kind.can_trim:
            await server.trim(StreamId("stored", "text"), 3)
        if kind not in IS_SAVED_AFTERWARDS:
            kept = await server.save()
    return await server.save() if kind in IS_SAVED_AFTERWARDS else kept


async def main(origin: str, wanted: list[str]) -> None:
    """Write the files of the wanted backends, or of all."""
    for kind in SERVERS:
        if wanted and kind.backend not in wanted:
            continue
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            kept = await write(kind, Path(first))
            async with kind(Path(second), kept).running() as environment:
                os.environ.update(environment)
                async with open_queue(settings(kind.backend)) as queue:
                    expected = await read_all(queue)
        size = store(kind.backend, expected, kept, origin)
        sys.stdout.write(f"{kind.backend}: {len(expected)} streams, {size} bytes\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
