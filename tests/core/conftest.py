"""A real memory queue per test, and the same queue behind a script of faults."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

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
