"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from tests.isolation import code_blocks, finds_nothing, tells_whole_story, written_stream

from postgres_servers import OpenAt, ask, directory_for_servers, plain, settings_for
from streamq.driver import AccessDeniedError
from streamq.testing.checks import BasicChecks
from streamq_postgres import PostgresSettings
from streamq_postgres._naming import channel
from streamq_postgres.embedded import EmbeddedPostgres, user_for_servers
from test_postgres_conformance import PostgresHarness

TENANTS = ("acme", "globex")
ACCESS, COMMANDS, ENVIRONMENT = code_blocks("postgres")

FORBIDDEN = (
    "SET ROLE globex",
    "SET SESSION AUTHORIZATION globex",
    "GRANT globex TO acme",
    "GRANT CONNECT ON DATABASE globex TO acme",
    "ALTER DATABASE globex OWNER TO acme",
    "ALTER ROLE globex PASSWORD 'x'",
    "DROP DATABASE globex",
    "CREATE DATABASE copy TEMPLATE globex",
    "CREATE ROLE other",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('base')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'globex'",
)
"""Statements with which a role would reach what is not its own."""


def url_of(server: EmbeddedPostgres, tenant: str, database: str = "") -> str:
    """Return the address that the page gives a tenant, perhaps with another database."""
    lines = ENVIRONMENT.replace("127.0.0.1:5432", server.address).replace("acme", tenant)
    url = dict(line.split("=", 1) for line in lines.splitlines())["STREAMQ_POSTGRES_URL"]
    return url if not database else f"{url.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="module")
def guarded(programs: Path, template: Path) -> Iterator[EmbeddedPostgres]:
    """Start a server that asks for passwords as the page says, except of its administrator."""
    with directory_for_servers() as directory:
        file = directory / "pg_hba.conf"
        file.write_text(f"host all postgres 127.0.0.1/32 trust\n{ACCESS}")
        if (user := user_for_servers()) is not None:
            shutil.chown(file, user.pw_uid, user.pw_gid)
        arguments = ("-c", f"hba_file={file}")
        with EmbeddedPostgres(programs=programs, template=template, arguments=arguments) as server:
            asyncio.run(_make_tenants(server))
            yield server


async def _make_tenants(server: EmbeddedPostgres) -> None:
    async with plain(server.url) as client:
        for tenant in TENANTS:
            for command in COMMANDS.replace("acme", tenant).splitlines():
                await client.execute(command.encode())


async def test_tenant_can_do_everything_with_its_own_streams(
    guarded: EmbeddedPostgres, open_at: OpenAt
) -> None:
    """Rights that lack something are widened in a hurry, and then to everything."""
    url = url_of(guarded, "acme")
    await tells_whole_story(await open_at(url), await open_at(url), "acme")


async def test_tenant_finds_nothing_of_another_through_the_driver(
    guarded: EmbeddedPostgres, open_at: OpenAt
) -> None:
    """Neither in its own database nor in that of the other."""
    owner = await open_at(url_of(guarded, "globex"))
    theirs = await written_stream(owner, "globex")
    before = await owner.describe(theirs, last=9)
    await finds_nothing(await open_at(url_of(guarded, "acme")), theirs)
    assert (await owner.describe(theirs, last=9)).last == before.last
    with pytest.raises(AccessDeniedError, match="permission denied for database"):
        await open_at(url_of(guarded, "acme", database="globex"))


async def test_tenant_gets_nothing_of_another_through_a_bare_client(
    guarded: EmbeddedPostgres, open_at: OpenAt
) -> None:
    """Whoever has the password does not have to use streamq."""
    owner = await open_at(url_of(guarded, "globex"))
    await written_stream(owner, "globex")
    for database in ("globex", "absent"):
        with pytest.raises(psycopg.OperationalError, match=r"denied|does not exist"):
            await ask(url_of(guarded, "acme", database=database), "SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        await ask(url_of(guarded, "globex").replace("PASSWORD", "guessed"), "SELECT 1")
    async with plain(url_of(guarded, "acme")) as client:
        for statement in FORBIDDEN:
            with pytest.raises(InsufficientPrivilege):
                await client.execute(statement.encode())
        cursor = await client.execute(
            "SELECT DISTINCT query FROM pg_stat_activity WHERE usename = 'globex'"
        )
        assert await cursor.fetchall() == [("<insufficient privilege>",)]


async def test_tenant_hears_no_notification_of_another(
    guarded: EmbeddedPostgres, open_at: OpenAt
) -> None:
    """A notification says which stream was written to, to whoever guesses names."""
    owner = await open_at(url_of(guarded, "globex"))
    async with plain(url_of(guarded, "acme")) as client:
        await client.execute(f"LISTEN {channel('streamq')}".encode())
        await written_stream(owner, "globex")
        await client.execute(f"NOTIFY {channel('streamq')}, 'own'".encode())
        heard = [each.payload async for each in client.notifies(stop_after=1)]
    assert heard == ["own"]


class TenantHarness(PostgresHarness):
    """Logs in with the rights of the page."""

    def settings_at(self, address: str, login: str = "") -> PostgresSettings:
        """Return settings of a tenant."""
        return settings_for(url_of(self.server, "acme"))

    @property
    def inspected_url(self) -> str:
        """The database of the tenant."""
        return url_of(self.server, "acme")


@pytest.mark.full
class TestTenant(BasicChecks):
    """A sample of the conformance kit, with the rights of one tenant."""

    @pytest.fixture
    def harness(self, tmp_path: Path, guarded: EmbeddedPostgres) -> TenantHarness:
        """Return a harness on the server that asks for passwords."""
        return TenantHarness(tmp_path, guarded)
