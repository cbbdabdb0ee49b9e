"""Breaks a database file that many processes share: locks, half transactions, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ._backend import Backend
from ._schedule import Fault, FaultKind, Source

DATABASE = "database"
"""The file in which all streams are."""

_OWN_MOUNTS = "STREAMQ_CHAOS_OWN_MOUNTS"
_DISK_BYTES = 2**32
_MARGIN_BYTES = 65_536
_TRIES = 20
_PATIENCE_SECONDS = 5.0
_DYING_SECONDS = 30.0

_DIES = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
database.execute("PRAGMA cache_size = 10")  # so that its pages go into the log before the end
database.execute("BEGIN IMMEDIATE")
database.execute("CREATE TABLE unfinished (data)")
for _ in range(int(sys.argv[2])):
    database.execute("INSERT INTO unfinished VALUES (randomblob(20000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


class SqliteFile(Backend):
    """A database on a small disk of its own, as far as this user may mount one."""

    name = "sqlite"
    links = ()
    sources = (
        # Some are longer than a writer waits for another one, two seconds.
        Source(8, FaultKind.LOCK, (DATABASE,), 0.2, 4.0),
        Source(8, FaultKind.DIE, (DATABASE,), least=1, most=200),
        Source(5, FaultKind.FULL, (DATABASE,), 0.2, 2.5),
        Source(4, FaultKind.SNAPSHOT, (DATABASE,), 0.5, 4.0),
        Source(4, FaultKind.CHECKPOINT, (DATABASE,)),
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._disk = directory / "disk"
        self._path = self._disk / "streams.db"
        self._is_mounted = False

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process opens the file."""
        return {"STREAMQ_SQLITE_PATH": str(self._path), "STREAMQ_SQLITE_BUSY_SECONDS": "2"}

    async def start(self) -> None:
        """Make the disk."""
        self._disk.mkdir()
        if _OWN_MOUNTS in os.environ:
            self._is_mounted = _mount(f"size={_DISK_BYTES}", self._disk)

    def stop(self) -> None:
        """Remove the disk; it would also end with the last process that sees it."""
        if self._is_mounted:
            self._is_mounted = False
            subprocess.run(["umount", "--lazy", str(self._disk)], check=False, capture_output=True)

    async def carry_out(self, fault: Fault) -> bool:
        """Do to the file what another program does, or take the room of the disk."""
        if fault.kind is FaultKind.FULL:
            return await self._fill(fault.seconds)
        if fault.kind is FaultKind.DIE:
            return await self._die(fault.amount)
        statements = {
            FaultKind.LOCK: ("BEGIN IMMEDIATE", "ROLLBACK"),
            FaultKind.SNAPSHOT: ("BEGIN", "SELECT count(*) FROM sqlite_schema", "ROLLBACK"),
            FaultKind.CHECKPOINT: ("PRAGMA wal_checkpoint(TRUNCATE)",),
        }[fault.kind]
        return await asyncio.to_thread(self._run, statements, fault.seconds)

    def _run(self, statements: Sequence[str], seconds: float) -> bool:
        """Run statements, and pause before the last one; called in a thread."""
        try:
            with self._connected() as database:
                for statement in statements[:-1]:
                    database.execute(statement).fetchall()
                time.sleep(seconds)
                database.execute(statements[-1]).fetchall()
        except sqlite3.OperationalError:  # there is no file yet, or another fault was stronger
            return False
        return True

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        address = f"{self._path.as_uri()}?mode=rw"
        database = sqlite3.connect(
            address, uri=True, isolation_level=None, timeout=_PATIENCE_SECONDS
        )
        with contextlib.closing(database):
            yield database

    async def _die(self, rows: int) -> bool:
        if not self._path.exists():
            return False
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _DIES, str(self._path), str(rows)),
            stderr=asyncio.subprocess.DEVNULL,  # the disk may be full
        )
        try:
            async with asyncio.timeout(_DYING_SECONDS):
                return await process.wait() < 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _fill(self, seconds: float) -> bool:
        """Leave the disk no room but what is taken, and give it back after some seconds."""
        if not (self._is_mounted and self._shrink()):
            return False
        try:
            await asyncio.sleep(seconds)
        finally:
            _mount(f"remount,size={_DISK_BYTES}", self._disk)
        return True

    def _shrink(self) -> bool:
        for _ in range(_TRIES):  # writers take more of it meanwhile
            disk = os.statvfs(self._disk)
            taken = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            if _mount(f"remount,size={taken + _MARGIN_BYTES}", self._disk):
                return True
        return False


def enter_own_mounts() -> None:
    """Continue this program where it may mount disks that nobody else sees, if that is possible.

    They end with the last of its processes, however it ends. The process keeps its id.
    """
    unshare = shutil.which("unshare")
    if _OWN_MOUNTS in os.environ or unshare is None:
        return
    alone = [unshare, "--user", "--map-root-user", "--mount", "--"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode == 0:
        os.environ[_OWN_MOUNTS] = "1"
        os.execv(unshare, [*alone, sys.executable, *sys.orig_argv[1:]])


def _mount(options: str, disk: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
