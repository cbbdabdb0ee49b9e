"""Findings of `streamq doctor` about a database and its place."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamq._sqlite import _doctor as doctor
from streamq.driver import Entry, Finding, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue

from .sqlite_database import STREAM

OPTIONS = QueueOptions(ttl=timedelta(minutes=1))


async def examined(path: Path) -> dict[str, Finding]:
    """Return the findings by subject."""
    found = await SqliteDriver.examine(OPTIONS, SqliteSettings(path=path))
    return {finding.subject: finding for finding in found}


async def test_sound_database(path: Path, open_queue: OpenQueue) -> None:
    """One line says what was looked at; nothing of it needs anybody."""
    await (await open_queue()).append(STREAM, [Entry(1, 0, b"x")])
    found = await examined(path)
    server = found.pop("server")
    for word in ("SQLite 3", "journal mode wal", "only the owner", "no damage", "in the future"):
        assert word in server.detail
    assert [each for each in found.values() if not each.ok] == []


async def test_file_is_opened_once_to_be_examined(
    path: Path, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opening of a large database on a slow disk takes time, and may wait for its lock."""
    await open_queue()
    connect, opened = sqlite3.connect, 0

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        nonlocal opened
        opened += 1
        connection: sqlite3.Connection = connect(*args, **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", counting)
    doctor.examine(path, SqliteSettings(path=path))
    assert opened == 1


async def test_room_within_the_file_counts(path: Path, open_queue: OpenQueue) -> None:
    """After streams were deleted on a full disk, new ones take their place in the file."""
    queue = await open_queue()
    await queue.append(STREAM, [Entry(1, 0, bytes(3 * 2**20))])
    assert "in the file" not in (await examined(path))["server"].detail
    await queue.delete(STREAM)
    assert " 3 of them in the file" in (await examined(path))["server"].detail


async def test_file_that_others_can_read(path: Path, open_queue: OpenQueue) -> None:
    """An older version created it so; it is not changed behind the owner's back."""
    await (await open_queue()).aclose()
    os.chmod(path, 0o644)
    finding = (await examined(path))["permissions"]
    assert finding.ok
    assert finding.is_warning
    assert "0644" in finding.detail
    assert finding.remedy.startswith("chmod 600")


@pytest.mark.parametrize(("kind", "is_fine"), [("nfs4", False), ("cifs", False), ("ext4", True)])
async def test_network_file_system(
    kind: str, is_fine: bool, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks and shared memory do not work across machines; the damage comes later."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nserver:/x {path.parent} {kind} rw 0 0\n")
    monkeypatch.setattr(doctor, "_MOUNTS", mounts)
    found = await examined(path)
    assert ("file system" not in found) is is_fine
    assert all(each.ok for each in found.values()) is is_fine


async def test_damage_is_found(path: Path, open_queue: OpenQueue) -> None:
    """A page that was overwritten is found before a reader meets it."""
    queue = await open_queue()
    await queue.append(STREAM, [Entry(1, i, b"x" * 1000) for i in range(200)])
    await queue.aclose()
    overwrite_middle(path)
    assert not (await examined(path))["integrity"].ok


def overwrite_middle(path: Path) -> None:
    """Overwrite a page in the middle of the file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)


async def test_attempt_from_the_future(path: Path, open_queue: OpenQueue) -> None:
    """The machine's clock was set back: streams will stay too long, or were removed too early."""
    epoch = time.time_ns() // 1_000 + 3_600_000_000
    await (await open_queue()).append(STREAM, [Entry(epoch, 0, b"x")])
    finding = (await examined(path))["clock"]
    assert finding.is_warning
    assert "future" in finding.detail


async def test_memory_says_that_it_is_for_one_process() -> None:
    """Worker and gateway with the memory backend see different streams, without an error."""
    (finding,) = await MemoryDriver.examine(OPTIONS, MemorySettings())
    assert finding.is_warning
    assert "each process" in finding.detail
