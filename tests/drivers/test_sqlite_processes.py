"""Several processes on one file: they wake each other, take turns, and may be killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamq._sqlite._doorbells import Doorbells
from streamq.driver import Entry, StreamId
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue, queue_factory

from .sqlite_database import STREAM, blocked_read, mode_of, read_all, start, writer_process


async def test_append_in_another_process_wakes_a_read(
    path: Path, open_queue: OpenQueue, no_poll: None
) -> None:
    """Worker and gateway are two processes; without a wake-up, tokens would come once a second."""
    queue = await open_queue()
    async with writer_process(path, STREAM, 1) as (process, _):
        read = await blocked_read(queue)
        start(process)
        async with asyncio.timeout(20):
            assert await read == [b"0"]


async def test_deep_directories_still_get_wake_ups(tmp_path: Path, no_poll: None) -> None:
    """The address of a Unix socket is limited to about 100 bytes, and paths in CI are longer."""
    path = tmp_path / ("d" * 100) / "streams.db"
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        async with writer_process(path, STREAM, 1) as (process, _):
            read = await blocked_read(queue)
            assert mode_of(Doorbells(path).directory) == 0o700
            start(process)
            async with asyncio.timeout(20):
                assert await read == [b"0"]


async def test_killed_writer_leaves_every_acknowledged_record(
    path: Path, open_queue: OpenQueue
) -> None:
    """`durable` means that kill -9 loses no acknowledged record and splits no batch."""
    queue = await open_queue()
    async with writer_process(path, STREAM, 1_000_000, batch=3) as (process, readline):
        start(process)
        acknowledged = b"-1"
        async with asyncio.timeout(30):
            while int(acknowledged) < 300:
                acknowledged = await readline()
        process.kill()
        await process.wait()
        while line := await readline():
            acknowledged = line if line.endswith(b"\n") else acknowledged
    found = await read_all(queue)
    assert len(found) > int(acknowledged)
    assert len(found) % 3 == 0
    assert found == [b"%d" % i for i in range(len(found))]
    await queue.append(STREAM, [Entry(2, 0, b"next attempt")])
    assert (await read_all(queue))[-1] == b"next attempt"


async def test_two_processes_append_at_once(path: Path, open_queue: OpenQueue) -> None:
    """SQLite has one writer at a time; workers on one machine must take turns without errors."""
    queue = await open_queue()
    streams = [StreamId("test", f"s{i}") for i in range(3)]
    async with (
        writer_process(path, streams[0], 300) as (first, _),
        writer_process(path, streams[1], 300) as (second, _),
    ):
        start(first)
        start(second)
        for i in range(300):
            await queue.append(streams[2], [Entry(1, i, b"%d" % i)])
        async with asyncio.timeout(60):
            await asyncio.gather(first.communicate(), second.communicate())
    for stream in streams:
        assert await read_all(queue, stream) == [b"%d" % i for i in range(300)]


async def test_many_can_create_the_file_at_once(open_queue: OpenQueue) -> None:
    """All workers start together after a deployment."""
    queues = await asyncio.gather(*(open_queue() for _ in range(12)))
    for i, queue in enumerate(queues):
        await queue.append(STREAM, [Entry(1, i, b"%d" % i)])
    assert await read_all(queues[0]) == [b"%d" % i for i in range(12)]
