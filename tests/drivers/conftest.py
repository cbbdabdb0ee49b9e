"""Fixtures of the SQLite driver's tests: a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamq._sqlite import _listening as listening
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import OpenQueue, queue_factory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the test's database is."""
    return tmp_path / "streams.db"


@pytest.fixture
async def open_queue(path: Path) -> AsyncIterator[OpenQueue]:
    """Open queues on the test's database."""
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        yield open_queue


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocked reads depend on being woken."""
    monkeypatch.setattr(listening, "_POLL_SECONDS", 600.0)
