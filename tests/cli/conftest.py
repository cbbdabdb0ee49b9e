"""Fixtures for tests of the command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

from .command import DATABASE, Cli, Inside, is_ours


@pytest.fixture(scope="session")
def bytecode(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for compiled modules, so that not every process has to compile them."""
    cache = getattr(pytestconfig, "cache", None)
    if cache is None:
        return tmp_path_factory.mktemp("bytecode")
    place: Path = cache.mkdir("streamq-bytecode")
    return place


@pytest.fixture
def cli(tmp_path: Path, bytecode: Path) -> Iterator[Cli]:
    kept = {name: value for name, value in os.environ.items() if not is_ours(name)}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(bytecode)}
    runner = Cli(tmp_path, environment)
    yield runner
    for process in runner.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inside:
    return Inside(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def temporal() -> Iterator[TemporalDevServer]:
    """A Temporal server that demos share, in tests that are not about starting one."""
    with TemporalDevServer() as server:
        yield server


@pytest.fixture
async def queue(cli: Cli) -> AsyncIterator[ChunkQueue]:
    """The sqlite backend that the commands use by default, opened in this process."""
    settings = SqliteSettings(path=cli.directory / DATABASE)
    opened = await SqliteDriver.open(QueueOptions(ttl=timedelta(hours=1)), settings)
    yield opened
    await opened.aclose()
