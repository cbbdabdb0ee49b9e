"""Helpers of the PostgreSQL driver's tests: servers, plain clients, and reading beside a test."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from pydantic import SecretStr
from tests.programs import missing, program

from streamq.devserver import DevServer
from streamq.driver import ChunkQueue, Stored, StreamId
from streamq_postgres import PostgresSettings
from streamq_postgres.embedded import (
    USER,
    EmbeddedPostgres,
    as_user,
    debian_programs,
    user_for_servers,
)

OpenAt: TypeAlias = Callable[..., Awaitable[ChunkQueue]]
"""Opens a queue at a URL, with any settings."""

StartServer: TypeAlias = Callable[..., EmbeddedPostgres]
"""Starts a server for one test, with any options."""

LOCKED = "locked"
"""A user whom the server asks for a password; everybody else may enter."""

_ACCESS = f"""
host all {LOCKED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""


def programs_of_debian() -> Path:
    """Return the directory of Debian's programs; skip, or fail, without them."""
    found = debian_programs()
    if found is None:
        missing("there is no /usr/lib/postgresql/*/bin; install Debian's postgresql")
    return found


@contextmanager
def directory_for_servers() -> Iterator[Path]:
    """Yield a directory that the user who runs servers can reach, unlike those of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="streamq-test-postgres-"))
    try:
        if (user := user_for_servers()) is not None:
            shutil.chown(directory, user.pw_uid, user.pw_gid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def make_template(programs: Path, directory: Path) -> Path:
    """Make a data directory that servers begin with a copy of."""
    data = directory / "template"
    command = [str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust"]
    command += ["-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **as_user(user_for_servers()))
    (data / "pg_hba.conf").write_text(_ACCESS)
    return data


class Pgbouncer(DevServer):
    """A connection pooler in front of a server; it lets everybody in."""

    backend = "pgbouncer"
    stop_signal = signal.SIGTERM

    def __init__(self, server: EmbeddedPostgres, *, mode: str = "transaction") -> None:
        super().__init__(stop_seconds=1)
        self._to = server
        self._mode = mode

    @property
    def url(self) -> str:
        """The value for STREAMQ_POSTGRES_URL."""
        return f"postgresql://{USER}@{self.address}/postgres"

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        binary = program("pgbouncer", "/usr/sbin/pgbouncer", package="pgbouncer")
        config = data_dir / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"postgres = host=127.0.0.1 port={self._to.port} user={USER}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"pool_mode = {self._mode}\nauth_type = any\n"
            "max_client_conn = 500\ndefault_pool_size = 5\nserver_login_retry = 0\n"
        )
        command = [binary, str(config)]
        if (user := user_for_servers()) is not None:
            for path in (data_dir, config):
                shutil.chown(path, user.pw_uid, user.pw_gid)
            command += ["-u", user.pw_name]
        return command

    def answers(self, log: Path) -> bool:
        """Whether it reports that it listens."""
        return b"process up" in log.read_bytes()


def settings_for(url: str, **options: Any) -> PostgresSettings:
    """Return settings with a URL and perhaps more."""
    return PostgresSettings(url=SecretStr(url), **options)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Connect past the driver, as another user of the database would."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as client:
        yield client


async def ask(url: str, query: Any, *values: object) -> list[Any]:
    """Run one statement past the driver, and return its rows."""
    async with plain(url) as client:
        cursor = await client.execute(query, values or None)
        return await cursor.fetchall() if cursor.description else []


def read_soon(
    queue: ChunkQueue, stream: StreamId, after: str = "", wait: float = 30
) -> asyncio.Task[list[Stored]]:
    """Read in the background."""

    async def read() -> list[Stored]:
        return list(
            await queue.read(stream, after, max_records=100, max_bytes=10**6, max_wait=wait)
        )

    return asyncio.ensure_future(read())


async def sessions(url: str) -> list[int]:
    """Return the processes of the server that serve streamq."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'streamq'"
    return [row[0] for row in await ask(url, query)]
