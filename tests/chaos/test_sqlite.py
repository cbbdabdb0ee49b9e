"""Breaks a database file in each way of a run: it really happens, and the file survives it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from ._schedule import Fault, FaultKind
from ._sqlite import DATABASE, SqliteFile


@pytest.fixture
async def file(tmp_path: Path) -> SqliteFile:
    """A database in WAL mode with a table, on the disk that is there."""
    backend = SqliteFile(tmp_path)
    await backend.start()
    path = backend.settings("")["STREAMQ_SQLITE_PATH"]
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE kept (value)")
    database.commit()
    database.close()
    return backend


def write(backend: SqliteFile) -> None:
    """Write as a worker does that waits for nobody."""
    database = sqlite3.connect(backend.settings("")["STREAMQ_SQLITE_PATH"], timeout=0)
    try:
        with database:
            database.execute("INSERT INTO kept VALUES (1)")
    finally:
        database.close()


async def test_a_lock_keeps_others_from_writing(file: SqliteFile) -> None:
    """Otherwise the run would prove that a free database can be written."""
    locking = asyncio.create_task(file.carry_out(Fault(0, FaultKind.LOCK, DATABASE, 0.5)))

    def is_locked() -> bool:
        try:
            write(file)
        except sqlite3.OperationalError:
            return True
        return False

    async with asyncio.timeout(30):
        while not (locking.done() or is_locked()):  # noqa: ASYNC110 - locks have no event
            await asyncio.sleep(0.01)
    assert not locking.done()
    assert await locking
    write(file)


async def test_a_program_that_dies_leaves_nothing_of_its_transaction(file: SqliteFile) -> None:
    """Its pages are in the log, and neither readers nor the next writer may take them for valid."""
    path = Path(file.settings("")["STREAMQ_SQLITE_PATH"])
    log = path.with_name(f"{path.name}-wal")
    keeps_the_log = sqlite3.connect(path)
    keeps_the_log.execute("SELECT * FROM kept").fetchall()
    assert await file.carry_out(Fault(0, FaultKind.DIE, DATABASE, amount=50))
    assert log.stat().st_size > 50 * 20_000
    tables = keeps_the_log.execute("SELECT name FROM sqlite_schema").fetchall()
    assert tables == [("kept",)]
    keeps_the_log.close()
    write(file)


async def test_a_fault_before_there_is_a_file_has_no_effect(tmp_path: Path) -> None:
    """The first fault may come before the first worker."""
    backend = SqliteFile(tmp_path)
    await backend.start()
    for kind in (FaultKind.LOCK, FaultKind.DIE, FaultKind.SNAPSHOT, FaultKind.CHECKPOINT):
        assert not await backend.carry_out(Fault(0, kind, DATABASE))
    assert not list(Path(backend.settings("")["STREAMQ_SQLITE_PATH"]).parent.iterdir())
