"""Appends when something is wrong: locks, a full disk, a bad neighbour; and the sweep."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from streamq._sqlite import _schema as schema
from streamq._sqlite import _writing as writing
from streamq.driver import BackendError, BackendUnavailableError, Entry, StorageFullError, StreamId
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue, queue_factory

from .sqlite_database import STREAM, count_of, read_all


async def test_lock_held_by_another_process_is_unavailable_and_passes(path: Path) -> None:
    """A backup tool may lock the file; streamq retries, and aclose does not wait for it."""
    settings = SqliteSettings(path=path, busy_seconds=0.05)
    async with queue_factory(SqliteDriver, settings) as open_queue:
        queue = await open_queue()
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailableError, match="BUSY") as caught:
            await queue.append(STREAM, [Entry(1, 0, b"x")])
        assert (caught.value.stream, caught.value.retryable) == (str(STREAM), True)
        locker.execute("ROLLBACK")
        locker.close()
        await queue.append(STREAM, [Entry(1, 0, b"x")])
        assert await read_all(queue) == [b"x"]


async def test_aclose_does_not_wait_for_a_lock(path: Path) -> None:
    """A shutdown has seconds; the append that waits for the lock is finished by its thread."""
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        append = asyncio.ensure_future(queue.append(STREAM, [Entry(1, 0, b"x")]))
        await asyncio.sleep(0)
        await queue.aclose()
        assert not append.done()
        locker.execute("ROLLBACK")
        locker.close()
        await append
        assert await read_all(await open_queue()) == [b"x"]


async def test_full_disk_is_storage_full_and_keeps_what_is_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is for the operator to fix; the stream goes on where it stopped."""
    connect = schema.connect

    def connect_to_small_disk(
        path: Path, *, synchronous: str, busy_seconds: float
    ) -> sqlite3.Connection:
        connection = connect(path, synchronous=synchronous, busy_seconds=busy_seconds)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    monkeypatch.setattr(schema, "connect", connect_to_small_disk)
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        await queue.append(STREAM, [Entry(1, 0, b"x")])
        with pytest.raises(StorageFullError, match="disk"):
            await queue.append(STREAM, [Entry(1, 1, b"y" * 1_000_000)])
        await queue.append(STREAM, [Entry(1, 1, b"z")])
        assert await read_all(queue) == [b"x", b"z"]


async def test_bad_append_does_not_fail_its_neighbours(open_queue: OpenQueue) -> None:
    """Appends share a transaction; a bug in one activity must not stop all others of the worker."""
    queue = await open_queue()
    results = await asyncio.gather(
        *(
            queue.append(StreamId("test", f"s{i}"), [Entry(1, 2**70 if i == 5 else i, b"x")])
            for i in range(10)
        ),
        return_exceptions=True,
    )
    assert [BackendError if i == 5 else None for i in range(10)] == [
        None if result is None else type(result) for result in results
    ]


async def test_expired_records_are_removed_from_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No operator runs a cleaning job for an embedded default: the file must not grow for ever."""
    monkeypatch.setattr(writing, "_SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(writing, "_SWEEP_AGAIN_SECONDS", 0.0)
    ttl = timedelta(milliseconds=20)
    async with queue_factory(SqliteDriver, SqliteSettings(path=path), ttl=ttl) as open_queue:
        queue = await open_queue()
        names = ("expires", "expires and comes back")
        for name in names:
            await queue.append(StreamId("test", name), [Entry(1, i, b"old") for i in range(1500)])
        async with asyncio.timeout(20):
            while [info async for info in queue.streams("test")]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
            index = 0
            while index == 0 or count_of(path, b"old"):
                await queue.append(StreamId("test", names[1]), [Entry(2, index, b"new")])
                index += 1
