"""Files that are removed, moved or replaced while they are open: nothing succeeds into the void."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from streamq._sqlite import _listening as listening
from streamq._sqlite._doorbells import Doorbells
from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    ChunkQueue,
    Entry,
    StreamNotFoundError,
)
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue, queue_factory

from .sqlite_database import STREAM, blocked_read, exists, read_all, start, writer_process


def remove_directory(path: Path) -> None:
    """Remove everything, as `rm -rf .streamq` does."""
    shutil.rmtree(path.parent)


def move_directory(path: Path) -> None:
    """Move the directory away."""
    path.parent.rename(path.parent.with_name("elsewhere"))


def remove_file(path: Path) -> None:
    """Remove only the database."""
    path.unlink()


def replace_file(path: Path) -> None:
    """Put another database in its place, as restoring a backup does."""
    other = path.with_name("other.db")
    with contextlib.closing(sqlite3.connect(path)) as source:
        source.execute("VACUUM INTO ?", (str(other),))
    with contextlib.closing(sqlite3.connect(other)) as copy:
        copy.executescript("DELETE FROM records; DELETE FROM streams; VACUUM")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    other.replace(path)


CHANGES = [remove_directory, move_directory, remove_file, replace_file]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the test's database is: in a directory that is created."""
    return tmp_path / "state" / "streams.db"


@pytest.mark.parametrize("change", CHANGES)
async def test_nothing_is_acknowledged_into_a_removed_file(
    change: Callable[[Path], None], path: Path, open_queue: OpenQueue
) -> None:
    """An activity that succeeds into a deleted file has lost its result, and nobody learns it."""
    queue, other = await open_queue(), await open_queue()
    await queue.append(STREAM, [Entry(1, 0, b"a"), Entry(1, 1, b"b")])
    assert await read_all(other) == [b"a", b"b"]
    change(path)
    with pytest.raises(BackendError, match="removed or replaced"):
        await append_with_retries(queue, Entry(1, 2, b"c"))
    with pytest.raises(StreamNotFoundError):
        await queue.describe(STREAM)
    # The next attempt is whole, for every connection that was open before and for new ones.
    await append_with_retries(queue, Entry(2, 0, b"open"))
    await queue.append(STREAM, [Entry(2, 1, b"d")])
    assert await read_all(other) == [b"open", b"d"]
    assert await read_all(await open_queue()) == [b"open", b"d"]


async def append_with_retries(queue: ChunkQueue, entry: Entry) -> None:
    """Append as streamq does: another connection may have to close its files first."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await queue.append(STREAM, [entry])
            except BackendUnavailableError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("change", CHANGES)
async def test_blocked_read_gets_what_is_stored_in_the_new_file(
    change: Callable[[Path], None],
    path: Path,
    open_queue: OpenQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway that goes on reading the deleted file shows nothing of what comes next."""
    monkeypatch.setattr(listening, "_POLL_SECONDS", 0.05)
    queue = await open_queue()
    read = await blocked_read(queue)
    change(path)
    async with writer_process(path, STREAM, 1) as (process, _):
        start(process)
        async with asyncio.timeout(20):
            assert await read == [b"0"]


@pytest.mark.parametrize("suffixes", [("-wal", "-shm"), ("-wal",), ("-shm",)])
async def test_removed_log_loses_nothing(
    suffixes: tuple[str, ...], path: Path, open_queue: OpenQueue
) -> None:
    """Somebody tidies up; until the log is merged, the newest records are nowhere else."""
    queue, other = await open_queue(), await open_queue()
    await queue.append(STREAM, [Entry(1, 0, b"a")])
    assert await read_all(other) == [b"a"]
    for suffix in suffixes:
        path.with_name(path.name + suffix).unlink()
    await append_with_retries(queue, Entry(1, 1, b"b"))
    async with writer_process(path, STREAM, 3) as (process, readline):
        start(process)
        async with asyncio.timeout(20):
            assert [await readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(BackendUnavailableError):
                if await read_all(other) == [b"a", b"b", b"2"]:
                    break
            await asyncio.sleep(0.01)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_switched_link_leads_to_the_other_file(tmp_path: Path) -> None:
    """Deployments switch a link; worker and gateway have to agree on the file afterwards."""
    for name in ("blue", "green"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    link.symlink_to("blue")
    settings = SqliteSettings(path=link / "streams.db")
    async with queue_factory(SqliteDriver, settings) as open_queue:
        queue = await open_queue()
        await queue.append(STREAM, [Entry(1, 0, b"blue")])
        link.unlink()
        link.symlink_to("green")
        await append_with_retries(queue, Entry(2, 0, b"green"))
        assert await read_all(queue) == [b"green"]
        assert exists(tmp_path / "green" / "streams.db")


async def test_removed_directory_of_doorbells_is_made_again(
    path: Path, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its doorbell a reader would be a second late for the rest of its life."""
    monkeypatch.setattr(listening, "_POLL_SECONDS", 0.05)
    queue = await open_queue()
    read = await blocked_read(queue)
    directory = Doorbells(path).directory
    shutil.rmtree(directory)
    async with asyncio.timeout(20):
        while not exists(directory):  # noqa: ASYNC110 - files have no event
            await asyncio.sleep(0.01)
    monkeypatch.setattr(listening, "_POLL_SECONDS", 600.0)
    await (await open_queue()).append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]
