"""Writes or reads kept streams with the streamq that this interpreter finds, for another version.

Run as ``python -m tests.stored.earlier write|read|slowly BACKEND``, configured by variables.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import json
import sys

import streamq
from streamq import open_queue

from .stories import Writing, read_all, settings, write_all

LIVE = [f"{number} " for number in range(60)]
"""What ``slowly`` writes, a flush each, so that readers follow it."""


async def main(task: str, backend: str) -> None:
    """Do it, and print the outlines or where streamq was imported from."""
    async with open_queue(settings(backend)) as queue:
        found: object = streamq.__file__
        if task == "write":
            await write_all(queue)
        elif task == "slowly":
            writer = await Writing(queue).open("live")
            for text in LIVE:
                await writer.send_chunk(text)
                await writer.flush()
                await asyncio.sleep(0.02)
            await writer.finish()
        else:
            found = await read_all(queue)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
