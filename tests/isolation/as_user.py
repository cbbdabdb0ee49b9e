"""Runs as another user of the machine: uses one SQLite file, and tries that of a neighbour.

``python -m tests.isolation.as_user UID OWN THEIRS`` ends with 0 if everything is as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from tests.isolation import tells_whole_story

from streamq.driver import AccessDeniedError, ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings


async def opened(path: Path) -> ChunkQueue:
    """Open the queue of a file."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    return await SqliteDriver.open(options, SqliteSettings(path=path))


async def use(path: Path) -> None:
    """Do with two queues all that a tenant does."""
    async with await opened(path) as queue, await opened(path) as other:
        await tells_whole_story(queue, other, "acme")


async def refusal(path: Path) -> str:
    """Return why a file cannot be used through the driver."""
    with pytest.raises(AccessDeniedError) as refused:
        async with await opened(path) as queue:
            await queue.sweep()
    return str(refused.value).replace(str(path), "PATH")


def try_bare(path: Path) -> None:
    """Try a file without the driver."""
    for uri in (f"file:{path}", f"file:{path}?mode=ro&immutable=1"):
        with (
            pytest.raises(sqlite3.OperationalError, match="unable to open"),
            contextlib.closing(sqlite3.connect(uri, uri=True)) as client,
        ):
            client.execute("SELECT count(*) FROM sqlite_master")
    for call in (path.stat, path.read_bytes, path.unlink, path.touch):
        with pytest.raises(PermissionError):
            call()


def main(uid: int, own: Path, theirs: Path) -> None:
    """Become the user, and try everything."""
    # Modules that are imported late may be where that user cannot read them.
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(use(Path(scratch) / "streams.db"))
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    asyncio.run(use(own))
    absent = theirs.with_name("absent.db")
    assert asyncio.run(refusal(theirs)) == asyncio.run(refusal(absent))
    for each in (theirs, absent):
        try_bare(each)
    for directory in (theirs.parent, own.parent.parent):
        with pytest.raises(PermissionError):
            os.listdir(directory)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
