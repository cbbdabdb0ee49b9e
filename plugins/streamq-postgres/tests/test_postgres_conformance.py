"""The contract of drivers, on PostgreSQL and through a connection pooler."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from postgres_servers import LOCKED, Pgbouncer, ask, plain, settings_for
from streamq.driver import StreamId
from streamq.testing import DriverSuite, ServerHarness
from streamq_postgres import PostgresDriver, PostgresSettings
from streamq_postgres._naming import names_of
from streamq_postgres._schema import TABLES
from streamq_postgres.embedded import EmbeddedPostgres, user_for_servers

_OF_STREAM = "(SELECT id FROM streamq.streams WHERE tenant = %s AND name = %s)"


class PostgresHarness(ServerHarness[EmbeddedPostgres, PostgresSettings]):
    """A server that all checks share, behind a proxy of each check."""

    driver = PostgresDriver
    answer_seconds = 6.0
    listing_page = 500

    @property
    def label(self) -> str:
        """Name the server program."""
        return "postgres (Debian)"

    def settings_at(self, address: str, login: str = "postgres") -> PostgresSettings:
        """Return settings that lead to an address, with deadlines that suit a test."""
        return settings_for(
            f"postgresql://{login}@{address}/postgres",
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=2.0,
        )

    async def start(self) -> None:
        """Remove what earlier checks have left: sweeps count the expired streams of everybody."""
        await super().start()
        async with plain(self.server.url) as client:
            cursor = await client.execute("SELECT to_regclass('streamq.buried')")
            if await cursor.fetchall() != [(None,)]:
                for table in TABLES:
                    await client.execute(f"DELETE FROM streamq.{table}")

    @property
    def inspected_url(self) -> str:
        """Where records are looked at past the driver."""
        return self.server.url

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Pass nothing on: a stopped main process would leave those that serve connections."""
        self.proxy.hold()
        try:
            yield
        finally:
            self.proxy.heal()

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the rows of a stream, also those that its removal has left."""
        query = (
            f"SELECT data FROM streamq.records WHERE stream = {_OF_STREAM} "
            "OR stream NOT IN (SELECT id FROM streamq.streams) ORDER BY stream, epoch, idx"
        )
        return [row[0] for row in await ask(self.inspected_url, query, *names_of(stream))]

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Remove the oldest rows."""
        newest = (
            "SELECT epoch, idx FROM streamq.records AS o WHERE o.stream = r.stream "
            "ORDER BY epoch DESC, idx DESC LIMIT %s"
        )
        query = (
            f"DELETE FROM streamq.records AS r WHERE stream = {_OF_STREAM} "
            f"AND (epoch, idx) NOT IN ({newest})"
        )
        await ask(self.server.url, query, *names_of(stream), keep)

    async def plant(self, tenant: str) -> None:
        """Add rows whose names are those of no stream."""
        names = (b"\xfe", b"l\xff", b"x\xed\xa0\x80", b"a" + b"n" * 2_000, b"\xff\xff")
        query = (
            "INSERT INTO streamq.streams "
            "(tenant, name, epoch, idx, records, size_bytes, expires_at) "
            "VALUES (%s, %s, 1, 0, 1, 1, now() + %s * interval '1 hour') RETURNING id"
        )
        async with plain(self.server.url) as client:
            for hours in (-1, 1):
                for name in names:
                    cursor = await client.execute(query, [tenant, name + b"+" * (hours > 0), hours])
                    (row,) = await cursor.fetchall()
                    await client.execute(
                        "INSERT INTO streamq.records VALUES (%s, 1, 0, 'x')", [row[0]]
                    )

    @asynccontextmanager
    async def full(self) -> AsyncIterator[PostgresSettings]:
        """Move the records to a file system that has no room for more."""
        move = "ALTER TABLE streamq.records SET TABLESPACE {}"
        async with plain(self.server.url) as client:
            await client.execute("VACUUM FULL streamq.records")  # leaves no room within pages
            cursor = await client.execute("SELECT pg_total_relation_size('streamq.records')")
            (size,) = (await cursor.fetchall())[0]
            with _small_disk(size + 2 * 2**20) as disk:
                await client.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
                try:
                    await client.execute(move.format("small"))
                    _fill(disk / "filler")
                    yield self.settings()
                finally:
                    (disk / "filler").unlink(missing_ok=True)
                    await client.execute(move.format("pg_default"))
                    await client.execute("DROP TABLESPACE small")

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[PostgresSettings]:
        """Log in as a user who may only read."""
        async with plain(self.server.url) as client:
            await client.execute("CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
            try:
                yield self.settings_at(self.server.address, "reader")
            finally:
                await client.execute("DROP ROLE reader")

    def wrong_credentials(self) -> tuple[PostgresSettings, str]:
        """Log in with a wrong password."""
        secret = "s3cr3t-of-nobody"
        return self.settings_at(self.server.address, f"{LOCKED}:{secret}"), secret


@contextmanager
def _small_disk(size: int) -> Iterator[Path]:
    user = user_for_servers()
    if user is None:
        pytest.skip("only root can mount a small file system")
    where = Path(tempfile.mkdtemp(prefix="streamq-test-disk-"))
    options = f"size={size},uid={user.pw_uid},gid={user.pw_gid},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    where.chmod(0o755)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as exc:
        where.rmdir()
        pytest.skip(f"a small file system cannot be mounted here: {exc}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True, timeout=10)
        where.rmdir()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@pytest.fixture(scope="module")
def suite_server(programs: Path, template: Path) -> Iterator[EmbeddedPostgres]:
    """Start a server that survives being killed, so that the queue declares ``durable``."""
    with EmbeddedPostgres(programs=programs, template=template, fsync=True) as running:
        yield running


class PooledHarness(PostgresHarness):
    """The same server, behind a pooler in transaction mode."""

    def __init__(self, directory: Path, server: EmbeddedPostgres, pooler: Pgbouncer) -> None:
        super().__init__(directory, server, port=pooler.port)

    @property
    def label(self) -> str:
        """Name the server program."""
        return "postgres (pgbouncer)"

    def unreachable(self) -> NoReturn:
        """Leave this to the suite without a pooler."""
        pytest.skip("the suite without a pooler has it")

    def wrong_credentials(self) -> NoReturn:
        """Leave this to the suite without a pooler: this one lets everybody in."""
        pytest.skip("the pooler of this test lets everybody in")


class TestPostgres(DriverSuite):
    """All that the driver declares."""

    @pytest.fixture
    def harness(self, tmp_path: Path, suite_server: EmbeddedPostgres) -> PostgresHarness:
        """Return a harness on the suite's server."""
        return PostgresHarness(tmp_path, suite_server)


@pytest.fixture(scope="module")
def pooler(suite_server: EmbeddedPostgres) -> Iterator[Pgbouncer]:
    """Start a pooler in transaction mode."""
    with Pgbouncer(suite_server) as running:
        yield running


@pytest.mark.full
class TestPooled(DriverSuite):
    """The same through a pooler, where statements of one connection have several sessions."""

    @pytest.fixture
    def harness(
        self, tmp_path: Path, suite_server: EmbeddedPostgres, pooler: Pgbouncer
    ) -> PooledHarness:
        """Return a harness on the suite's server, behind the pooler."""
        return PooledHarness(tmp_path, suite_server, pooler)
