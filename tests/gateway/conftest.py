"""Fixtures for tests of the gateway."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import Settings, load_settings
from streamq.driver import QueueOptions
from streamq.gateway._log_limit import LogLimit
from streamq.memory import MemoryDriver, MemorySettings
from streamq_redis.embedded import EmbeddedRedis

from .replicas import settings_of
from .served import Serve, WatchedQueue


@pytest.fixture(autouse=True)
def unlimited_log() -> None:
    """Begin with an unused limit of log lines: loggers and their limits are the process's."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for limit in list(getattr(logger, "filters", ())):
            if isinstance(limit, LogLimit) and isinstance(logger, logging.Logger):
                logger.removeFilter(limit)
                logger.addFilter(LogLimit())


@pytest.fixture
def settings() -> Settings:
    return load_settings(backend="memory", retry_seconds=0.05)


@pytest.fixture
async def queue() -> AsyncIterator[WatchedQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with WatchedQueue(inner) as watched:
        yield watched


@pytest.fixture
async def start(queue: WatchedQueue, settings: Settings) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:
        yield Serve(stack, queue, settings)


@pytest.fixture(scope="session")
def redis() -> Iterator[EmbeddedRedis]:
    """A server for all tests of the process."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def shared_settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A backend that several gateways share, and a key for tokens."""
    if request.param == "redis":
        server: EmbeddedRedis = request.getfixturevalue("redis")
        monkeypatch.setenv("STREAMQ_REDIS_URL", server.url)
        monkeypatch.setenv("STREAMQ_REDIS_KEY_PREFIX", f"r{uuid.uuid4().hex}")
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    return settings_of(request.param)
