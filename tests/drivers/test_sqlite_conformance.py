"""The contract of drivers, on one SQLite file."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from streamq._sqlite import _schema as schema
from streamq.driver import DriverSettings, StreamId
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import BackendHarness, DriverSuite

_ID = "(SELECT id FROM streams WHERE tenant = ? AND name = ?)"


class SqliteHarness(BackendHarness):
    """A database in the check's own directory."""

    driver = SqliteDriver
    short_ttl = timedelta(seconds=0.4)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory / "streams.db"
        self._locker: sqlite3.Connection | None = None

    async def stop(self) -> None:
        """Release the file that is locked."""
        if self._locker is not None:
            self._locker.close()

    def unreachable(self) -> DriverSettings:
        """Return settings with a file that another program keeps locked."""
        locked = self.directory / "locked.db"
        self._locker = sqlite3.connect(locked, isolation_level=None)
        self._locker.execute("BEGIN EXCLUSIVE")
        return SqliteSettings(path=locked, busy_seconds=0.05)

    def settings(self) -> SqliteSettings:
        """Return settings that lead to the database."""
        return SqliteSettings(path=self.path, busy_seconds=0.5)

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return what is in the table; for a stream that is gone, what is left of any such one."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            name = (stream.tenant, stream.name)
            (is_gone,) = connection.execute(f"SELECT {_ID} IS NULL", name).fetchone()
            rows = connection.execute(
                "SELECT data FROM records WHERE stream NOT IN (SELECT id FROM streams)"
                if is_gone
                else f"SELECT data FROM records WHERE stream = {_ID} ORDER BY epoch, idx",
                () if is_gone else name,
            )
            return [row[0] for row in rows]

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Delete the oldest rows."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                f"DELETE FROM records WHERE stream = {_ID} AND id NOT IN (SELECT id FROM records "
                f"WHERE stream = {_ID} ORDER BY epoch DESC, idx DESC LIMIT ?)",
                (stream.tenant, stream.name, stream.tenant, stream.name, keep),
            )

    async def plant(self, tenant: str) -> None:
        """Insert rows whose names are no names: empty, too long, not UTF-8, not text."""
        names = (b"", b"a" + b"n" * 2_000, b"y" + b"n" * 2_000, b"l\xff", b"x\xed\xa0\x80")
        insert = (
            "INSERT INTO streams (tenant, name, epoch, idx, records, size_bytes, expires_ms)"
            " VALUES (?, CAST(? AS TEXT), 1, 0, 1, 1, ?)"
        )
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            for row in [
                *((tenant, name, 2**42) for name in names),
                *((tenant, name + b"o" * 2_000, 0) for name in names),
                ("not a tenant!", b"a", 2**42),
            ]:
                cursor = connection.execute(insert, row)
                connection.execute(
                    "INSERT INTO records (stream, epoch, idx, data) VALUES (?, 1, 0, x'00')",
                    (cursor.lastrowid,),
                )
            connection.execute(insert.replace("TEXT", "BLOB"), (tenant, b"b", 2**42))

    async def restart(self) -> None:
        """Go on with a copy of the files as `kill -9` would leave them now."""
        crashed = self.path.with_name(f"after-{self.path.name}")
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{crashed}{suffix}")
        self.path = crashed

    @asynccontextmanager
    async def full(self) -> AsyncIterator[SqliteSettings]:
        """Open connections that cannot make the file much longer."""
        connect = schema.connect

        def connect_to_full_disk(
            path: Path, *, synchronous: str, busy_seconds: float
        ) -> sqlite3.Connection:
            connection = connect(path, synchronous=synchronous, busy_seconds=busy_seconds)
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 40}")
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "connect", connect_to_full_disk)
            yield self.settings()

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[SqliteSettings]:
        """Remove the permission to write to the directory."""
        self.directory.chmod(0o500)
        try:
            if os.access(self.directory, os.W_OK):
                pytest.skip("this user may write to read-only directories (root)")
            yield self.settings()
        finally:
            self.directory.chmod(0o700)


class TestConformance(DriverSuite):
    """The driver contract."""

    harness_type = SqliteHarness
