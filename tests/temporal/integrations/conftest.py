"""Provides what the tests of the integrations share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from tests.temporal.support.processes import Shared

from streamq import load_settings
from streamq.driver import QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import subscribe

ReadTopic = Callable[[WorkflowHandle[Any, Any], str, Shared], Any]


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the integrations from sending traces over the Internet."""
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Shared]:
    settings = load_settings(backend="sqlite", idle_seconds=30)
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await SqliteDriver.open(options, SqliteSettings(path=tmp_path / "s.db")) as queue:
        yield Shared(queue, settings, {})


@pytest.fixture
def read() -> ReadTopic:
    """Return a function that reads all events of a topic, to its seal."""

    async def events_of(handle: WorkflowHandle[Any, Any], topic: str, shared: Shared) -> list[Any]:
        async with subscribe(handle, topic, queue=shared.queue, settings=shared.settings) as events:
            return [event async for event in events]

    return events_of
