"""Provides a real Temporal server for the session, and a client, queue and worker for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from tests.temporal.support.bench import Bench
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.processes import Shared

from streamq import Settings, load_settings
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import ChunkQueue, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import StreamqPlugin, StreamRequest

_OPTIONS = QueueOptions(ttl=timedelta(minutes=5))
_DYNAMIC_CONFIG = {
    **FAST,
    # So that a long history can be tested: the default is 4,096.
    "limit.historyCount.suggestContinueAsNew": "150",
    "frontend.WorkflowPauseEnabled": "true",
    # By default a run that is continued as new waits until its predecessor is a second old.
    "history.workflowIdReuseMinimalInterval": '"10ms"',
}


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer(dynamic_config=_DYNAMIC_CONFIG) as server:
        yield server.address


@pytest.fixture
async def client(temporal_address: str) -> Client:
    return await Client.connect(temporal_address)


@pytest.fixture
def settings() -> Settings:
    return load_settings(backend="memory", retry_seconds=5, idle_seconds=20, cancel_seconds=0.2)


@pytest.fixture
async def queue() -> AsyncIterator[ChunkQueue]:
    async with await MemoryDriver.open(_OPTIONS, MemorySettings(store=uuid.uuid4().hex)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """Open a backend that several processes see, and state how they find it."""
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


@pytest.fixture
def task_queue() -> str:
    return f"tq-{uuid.uuid4().hex}"


@pytest.fixture
def run_worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Run:
    """Return a function that runs a worker with the plugin for the given activities."""

    def run(*activities: Callable[..., Any]) -> AbstractAsyncContextManager[Worker]:
        return Worker(
            client,
            task_queue=task_queue,
            activities=activities,
            plugins=[StreamqPlugin(queue, settings)],
        )

    return run


@pytest.fixture
def start(client: Client, task_queue: str) -> Start:
    """Return a function that starts the generic workflow for an activity."""

    async def started(activity: str, *args: object, **options: Any) -> WorkflowHandle[Any, Any]:
        return await client.start_workflow(
            "streamq.Stream",
            StreamRequest(activity, list(args), **options),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )

    return started


@pytest.fixture
def bench(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Bench:
    return Bench(client, queue, settings, task_queue)
