"""A real memory queue per test, and the same queue behind a script of faults."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from streamq import Settings, load_settings, open_queue
from streamq.driver import ChunkQueue
from streamq.testing import FaultyQueue


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings for a store that no other test sees."""
    monkeypatch.setenv("STREAMQ_MEMORY_STORE", uuid.uuid4().hex)
    return load_settings(backend="memory", idle_seconds=5, retry_seconds=5)


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[ChunkQueue]:
    """The real memory queue."""
    async with open_queue(settings) as queue:
        yield queue


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def anywhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Settings, ChunkQueue]]:
    """Settings of a store of its own on each backend, and a queue there."""
    with contextlib.ExitStack() as stack:
        if request.param == "redis":
            pytest.importorskip("streamq_redis", reason="the plugin streamq-redis is missing")
            from streamq_redis.embedded import EmbeddedRedis

            monkeypatch.setenv("STREAMQ_REDIS_URL", stack.enter_context(EmbeddedRedis()).url)
        monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
        monkeypatch.setenv("STREAMQ_MEMORY_STORE", uuid.uuid4().hex)
        settings = load_settings(backend=request.param, idle_seconds=5, retry_seconds=5)
        async with open_queue(settings) as queue:
            yield settings, queue


@pytest.fixture
def faulty(queue: ChunkQueue) -> FaultyQueue:
    """The memory queue behind scripted faults."""
    return FaultyQueue(queue)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], object]:
    """Wait until a condition holds, for at most five seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - plain state has no event to wait for
                await asyncio.sleep(0)

    return wait
