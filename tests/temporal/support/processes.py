"""Runs workers in other processes, over backends that several processes see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from streamq import Settings, load_settings
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

_SCRIPT = Path(__file__).with_name("worker_process.py")
_OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


@dataclass
class Shared:
    """A backend that several processes see."""

    queue: ChunkQueue
    settings: Settings
    environment: dict[str, str]


@pytest.fixture(params=["sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    settings = load_settings(backend=request.param, idle_seconds=30)
    environment = {"STREAMQ_BACKEND": request.param}
    if request.param == "sqlite":
        path = tmp_path / "streams.db"
        async with await SqliteDriver.open(_OPTIONS, SqliteSettings(path=path)) as queue:
            yield Shared(queue, settings, environment | {"STREAMQ_SQLITE_PATH": str(path)})
        return
    pytest.importorskip("streamq_redis")
    from streamq_redis import RedisDriver, RedisSettings
    from streamq_redis.embedded import EmbeddedRedis

    with EmbeddedRedis() as server:
        async with await RedisDriver.open(
            _OPTIONS, RedisSettings(url=SecretStr(server.url))
        ) as queue:
            yield Shared(queue, settings, environment | {"STREAMQ_REDIS_URL": server.url})


@contextmanager
def worker(
    shared: Shared, address: str, task_queue: str, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | shared.environment
    command = [sys.executable, str(_SCRIPT), address, task_queue, *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
