"""Opening a file: files and paths that are refused, and what is created."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import ConfigurationError
from streamq._sqlite import _schema as schema
from streamq._sqlite._doorbells import Doorbells
from streamq.driver import AccessDeniedError, BackendError, Entry, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue, queue_factory

from .sqlite_database import STREAM, blocked_read, damage, mode_of, read_all


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    """A wrong path must neither destroy the file nor end in a traceback of sqlite3."""
    path.write_bytes(b"not a database " * 100)
    options = QueueOptions(ttl=timedelta(minutes=1))
    with pytest.raises(BackendError, match="STREAMQ_SQLITE_PATH"):
        asyncio.run(SqliteDriver.open(options, SqliteSettings(path=path)))
    assert path.read_bytes() == b"not a database " * 100


async def test_damaged_file_is_reported(path: Path, open_queue: OpenQueue) -> None:
    """A damaged disk is an error with a next step, not missing chunks."""
    queue = await open_queue()
    await queue.append(STREAM, [Entry(1, i, b"x" * 1000) for i in range(200)])
    await queue.aclose()
    damage(path)
    queue = await open_queue()
    with pytest.raises(BackendError, match="damaged"):
        await read_all(queue)


async def test_newer_schema_is_refused(path: Path, open_queue: OpenQueue) -> None:
    """After a downgrade, the old version must not write what the new one cannot read."""
    await (await open_queue()).aclose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigurationError, match="upgrade streamq"):
        await open_queue()


async def test_database_of_another_application_is_refused(
    path: Path, open_queue: OpenQueue
) -> None:
    """Our tables must not appear in the database of another application."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(ConfigurationError, match="another application"):
        await open_queue()


@pytest.mark.parametrize("bad", [".", "file/below.db", ":memory:", "file:x?mode=memory", "a\0b"])
async def test_impossible_path_is_refused(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error in the path is a matter of configuration, said at open."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    async with queue_factory(SqliteDriver, SqliteSettings(path=Path(bad))) as open_queue:
        with pytest.raises(ConfigurationError, match="STREAMQ_SQLITE_PATH"):
            await open_queue()


async def test_read_only_directory_is_refused(path: Path, open_queue: OpenQueue) -> None:
    """Containers run with read-only file systems; the message has to say which path."""
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write to read-only directories (root)")
        with pytest.raises(AccessDeniedError, match="read-only"):
            await open_queue()
    finally:
        path.parent.chmod(0o700)


async def test_missing_directories_are_created(tmp_path: Path) -> None:
    """The first run needs no setup; what the stream holds is for its owner only."""
    path = tmp_path / "a" / "b" / "streams.db"
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        await open_queue()
    assert mode_of(path.parent) == 0o700


async def test_closing_leaves_one_complete_file(path: Path, open_queue: OpenQueue) -> None:
    """Users copy the file; the newest streams would be in a log next to it, and missing."""
    for i in range(20):
        queue = await open_queue()
        await queue.append(STREAM, [Entry(1, i, b"%d" % i)])
        await queue.aclose()
        assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_files_are_for_their_owner_whatever_the_umask(
    umask: int, path: Path, open_queue: OpenQueue
) -> None:
    """Prompts and answers are in them, and the directory may be one that others can look into."""
    before = os.umask(umask)
    try:
        queue = await open_queue()
        read = await blocked_read(queue)
        await queue.append(STREAM, [Entry(1, 0, b"x")])
        assert await read == [b"x"]
        made = {name: mode_of(path.with_name(path.name + name)) for name in ("", "-wal", "-shm")}
        bells = Doorbells(path).directory
        assert mode_of(bells) == 0o700
    finally:
        os.umask(before)
    assert set(made.values()) == {0o600}, made


async def test_mode_of_an_existing_file_is_left_alone(path: Path, open_queue: OpenQueue) -> None:
    """A group that shares a database has given it its mode on purpose."""
    queue = await open_queue()
    await queue.aclose()
    os.chmod(path, 0o660)
    queue = await open_queue()
    await queue.append(STREAM, [Entry(1, 0, b"x")])
    assert {mode_of(path.with_name(path.name + suffix)) for suffix in ("", "-wal")} == {0o660}
