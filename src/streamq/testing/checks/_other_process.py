"""Runs one task of a check in another process, on a queue of its own.

The check starts it with ``python -m`` and passes driver, settings and task on standard input.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streamq.driver import START, ChunkQueue, Entry, QueueOptions, StreamId
from streamq.testing._harness import LONG_TTL

TAKEOVER = [Entry(2, index, b"2-%d" % index) for index in range(4)]
"""The records that :func:`take_over` appends."""


LIFE_RECORDS, MOST_LIVES, BEGINS_SECONDS = 40, 400, 0.8


def life(epoch: int) -> list[Entry]:
    """Return the records with which :func:`begin_again` begins a stream."""
    return [Entry(epoch, index, b"%d-%d" % (epoch, index)) for index in range(LIFE_RECORDS)]


async def reply(queue: ChunkQueue, stream: StreamId, patience: float) -> None:
    """Read one record of a stream, print it, acknowledge it, and append one."""
    found = await queue.read(stream, START, max_records=1, max_bytes=1_000, max_wait=patience)
    sys.stdout.buffer.write(found[0].data)
    sys.stdout.flush()
    await queue.commit(stream, found[0].position)
    await queue.append(stream, [Entry(1, 1, b"theirs")])


async def take_over(queue: ChunkQueue, streams: Sequence[StreamId], patience: float) -> None:
    """Take over one stream after the other, each as soon as it has a record."""
    for stream in streams:
        await queue.read(stream, START, max_records=1, max_bytes=1_000, max_wait=patience)
        for entry in TAKEOVER:
            await queue.append(stream, [entry])


async def begin_again(queue: ChunkQueue, stream: StreamId, patience: float) -> None:
    """Delete a stream and begin it anew, again and again for a while; it stays in the end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + BEGINS_SECONDS
    for epoch in range(1, MOST_LIVES + 1):
        await queue.delete(stream)
        await queue.append(stream, life(epoch))
        if loop.time() > until:
            break


async def _main() -> None:
    sys.path[:] = json.loads(sys.stdin.buffer.readline())
    driver, settings, task, subject, patience = pickle.load(sys.stdin.buffer)
    async with await driver.open(QueueOptions(ttl=LONG_TTL), settings) as queue:
        await TASKS[task](queue, subject, patience)


TASKS: dict[str, Callable[[ChunkQueue, Any, float], Awaitable[None]]] = {
    "reply": reply,
    "take over": take_over,
    "begin again": begin_again,
}

if __name__ == "__main__":
    asyncio.run(_main())
