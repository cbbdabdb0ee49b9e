"""Removing large streams: in steps, so that others go on; and safe against a crash half-way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from streamq._sqlite import _schema as schema
from streamq._sqlite import _writing as writing
from streamq.driver import ChunkQueue, Entry, StreamId, StreamNotFoundError
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue, queue_factory

from .sqlite_database import STREAM, read_all

OTHER = StreamId("test", "other")
_MIB = 2**20


def content_of(path: Path) -> bytes:
    """Return the bytes of the file."""
    return path.read_bytes()


async def fill(queue: ChunkQueue, mebibytes: int) -> None:
    """Store a stream of this size."""
    for first in range(0, mebibytes * 4, 8):
        await queue.append(STREAM, [Entry(1, first + i, bytes(2**18)) for i in range(8)])


@pytest.mark.parametrize("way", ["deleted", "expired"])
async def test_others_go_on_while_a_large_stream_is_removed(way: str, path: Path) -> None:
    """One transaction for all of it would stop every producer of the machine, and fill the log."""
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        await fill(queue, 48)
        if way == "expired":
            # A repeat sets the time to live again.
            await queue.append(STREAM, [Entry(1, 0, b"")], ttl=timedelta(milliseconds=1))
            await asyncio.sleep(0.01)
        removing = asyncio.ensure_future(
            queue.delete(STREAM) if way == "deleted" else queue.sweep()
        )
        appended = longest_log = 0
        while not removing.done():
            await queue.append(OTHER, [Entry(1, appended, b"x")])
            appended += 1
            longest_log = max(longest_log, os.stat(f"{path}-wal").st_size)
        await removing
        assert appended > 20
        assert longest_log < 16 * _MIB
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM records").fetchone() == (appended,)
            assert connection.execute("SELECT count(*) FROM buried").fetchone() == (0,)


_DELETER = """
import asyncio, os, signal, sys
from datetime import timedelta
from pathlib import Path
from streamq._sqlite import _removal as removal
from streamq.driver import QueueOptions, StreamId
from streamq.sqlite import SqliteDriver, SqliteSettings

erase_step, steps = removal.erase_step, 0

def killed_half_way(*args, **options):
    global steps
    steps += 1
    if steps == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return erase_step(*args, **options)

removal.erase_step = killed_half_way

async def main():
    options = QueueOptions(ttl=timedelta(minutes=5))
    queue = await SqliteDriver.open(options, SqliteSettings(path=Path(sys.argv[1])))
    await queue.delete(StreamId("test", "stream"))

asyncio.run(main())
"""


async def test_stream_that_was_deleted_half_way_does_not_come_back(
    path: Path, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of `streamq delete` leaves neither a stream without a beginning nor its bytes."""
    queue = await open_queue()
    await fill(queue, 8)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _DELETER, str(path))
    assert await process.wait() == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (left,) = connection.execute("SELECT count(*) FROM records").fetchone()
    assert 0 < left < 32
    assert await read_all(queue) == []
    assert [info async for info in queue.streams("test")] == []
    with pytest.raises(StreamNotFoundError):
        await queue.describe(STREAM)
    await queue.append(STREAM, [Entry(1, 0, b"new")])
    assert await read_all(queue) == [b"new"]
    # Whoever writes next removes what is left, without being asked.
    monkeypatch.setattr(writing, "_SWEEP_SECONDS", 0.0)
    async with asyncio.timeout(30):
        while True:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                if connection.execute("SELECT count(*) FROM records").fetchone() == (1,):
                    break
            await (await open_queue()).aclose()


async def test_removing_pauses_while_a_reader_keeps_the_log(
    path: Path, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten transaction in another program keeps SQLite's log; it must not fill the disk."""
    monkeypatch.setattr(schema, "LOG_LIMIT_BYTES", 8 * _MIB)
    queue = await open_queue()
    await fill(queue, 32)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        await queue.delete(STREAM)
        assert await read_all(queue) == []
        assert os.stat(f"{path}-wal").st_size < 24 * _MIB
        assert await queue.sweep() == 0
    for index in range(3):  # merges the log, and begins it anew
        await queue.append(OTHER, [Entry(1, index, b"x")])
    assert await queue.sweep() == 1


@pytest.mark.parametrize("erases", [True, False])
async def test_deleted_bytes_are_overwritten_unless_that_is_switched_off(
    erases: bool, path: Path
) -> None:
    """`erases` is a promise; without it deleting is faster."""
    settings = SqliteSettings(path=path, secure_delete=erases)
    async with queue_factory(SqliteDriver, settings) as open_queue:
        queue = await open_queue()
        assert queue.capabilities.erases is erases
        await queue.append(STREAM, [Entry(1, 0, b"a secret of some length" * 1000)])
        await queue.append(OTHER, [Entry(1, 0, b"x")])
        await queue.delete(STREAM)
    assert (b"a secret of some length" in content_of(path)) is not erases
