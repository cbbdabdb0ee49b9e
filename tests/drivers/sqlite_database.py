"""Shared by the tests of the SQLite driver: another process that writes, and views of the file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from streamq.driver import START, ChunkQueue, StreamId

STREAM = StreamId("test", "stream")

_WRITER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from streamq.driver import Entry, QueueOptions, StreamId
from streamq.sqlite import SqliteDriver, SqliteSettings

async def main(path, name, count, batch):
    options = QueueOptions(ttl=timedelta(minutes=5))
    queue = await SqliteDriver.open(options, SqliteSettings(path=Path(path)))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for first in range(0, int(count), int(batch)):
        numbers = range(first, first + int(batch))
        entries = [Entry(1, number, b"%d" % number) for number in numbers]
        await queue.append(StreamId("test", name), entries)
        print(numbers[-1], flush=True)
    await queue.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def writer_process(
    path: Path, stream: StreamId, count: int, batch: int = 1
) -> AsyncIterator[tuple[Process, Callable[[], Awaitable[bytes]]]]:
    """Run a process that appends numbers, once it gets a line; yield it and its `readline`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _WRITER, str(path), stream.name, str(count), str(batch)),
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"open\n"
        yield process, process.stdout.readline
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def start(process: Process) -> None:
    """Let a writer process begin."""
    assert process.stdin is not None
    process.stdin.write(b"\n")


def count_of(path: Path, data: bytes) -> int:
    """Count records in the file, also those that no stream shows any more."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*) FROM records WHERE data = ?", (data,))
        return int(rows.fetchone()[0])


def mode_of(path: Path) -> int:
    """Return the permission bits of a file or directory."""
    return path.stat().st_mode & 0o777


def exists(path: Path) -> bool:
    """Tell whether there is a file or directory."""
    return path.exists()


def damage(path: Path) -> None:
    """Overwrite all but the first pages of a database."""
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))


async def read_all(queue: ChunkQueue, stream: StreamId = STREAM) -> list[bytes]:
    """Read what is stored now."""
    records = await queue.read(stream, START, max_records=1_000_000, max_bytes=2**30, max_wait=0)
    return [record.data for record in records]


async def blocked_read(queue: ChunkQueue) -> asyncio.Task[list[bytes]]:
    """Start a read of the test's stream and give it time to block."""

    async def read() -> list[bytes]:
        records = await queue.read(STREAM, START, max_records=1, max_bytes=1000, max_wait=60)
        return [record.data for record in records]

    task = asyncio.ensure_future(read())
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()
    return task
