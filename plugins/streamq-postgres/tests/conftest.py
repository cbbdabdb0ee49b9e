"""Real servers for the tests: PostgreSQL of Debian's packages, started here and stopped here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from postgres_servers import (
    StartServer,
    directory_for_servers,
    make_template,
    programs_of_debian,
    settings_for,
)
from streamq.testing import open_queue_fixture, open_with_fixture, stream_fixture
from streamq_postgres import PostgresDriver, PostgresSettings
from streamq_postgres.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the directory of the programs under test."""
    return programs_of_debian()


@pytest.fixture(scope="session")
def template(programs: Path) -> Iterator[Path]:
    """Return a data directory that servers begin with a copy of: making one takes seconds."""
    with directory_for_servers() as directory:
        yield make_template(programs, directory)


@pytest.fixture(scope="session")
def server(programs: Path, template: Path) -> Iterator[EmbeddedPostgres]:
    """Return a server that all tests share."""
    with EmbeddedPostgres(programs=programs, template=template) as running:
        yield running


@pytest.fixture
def start_server(programs: Path, template: Path) -> Iterator[StartServer]:
    """Return a function that starts a server for one test."""
    with ExitStack() as stack:

        def start(**options: Any) -> EmbeddedPostgres:
            server = EmbeddedPostgres(programs=programs, template=template, **options)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def settings(server: EmbeddedPostgres) -> PostgresSettings:
    """Return settings that lead to the shared server."""
    return settings_for(server.url)


stream = stream_fixture()
open_queue = open_queue_fixture(PostgresDriver)
open_at = open_with_fixture(PostgresDriver, settings_for)
