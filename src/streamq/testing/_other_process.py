"""Another process for the checks: reads one record of a stream, prints it, and appends one."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys

from streamq.driver import START, AnyDriver, DriverSettings, Entry, QueueOptions, StreamId

from ._harness import LONG_TTL


async def _main(
    driver: AnyDriver, settings: DriverSettings, stream: StreamId, patience: float
) -> None:
    queue = await driver.open(QueueOptions(ttl=LONG_TTL), settings)
    async with queue:
        found = await queue.read(stream, START, max_records=1, max_bytes=1_000, max_wait=patience)
        sys.stdout.buffer.write(found[0].data)
        sys.stdout.flush()
        await queue.append(stream, [Entry(1, 1, b"theirs")])


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.stdin.buffer.readline())
    asyncio.run(_main(*pickle.load(sys.stdin.buffer)))
