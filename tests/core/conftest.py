"""A real memory queue per test, and a wrapper that injects scripted faults into it."""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

import pytest

from streamq import Settings, load_settings, open_queue
from streamq.driver import ChunkQueue, Entry, Stored, StreamId, StreamInfo


class FaultyQueue(ChunkQueue):
    """Passes calls on to a real queue, unless a scripted fault comes first.

    A fault is called with the name of the method and whether the real call has been made; it may
    raise, before (nothing stored) or after (acknowledgement lost).
    """

    def __init__(self, inner: ChunkQueue) -> None:
        self.inner = inner
        self.backend = inner.backend
        self.capabilities = inner.capabilities
        self.before: deque[Exception | None] = deque()
        self.after: deque[Exception | None] = deque()
        self.appends: list[list[Entry]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.appends.append(list(entries))
        await self.gate.wait()
        if self.before and (error := self.before.popleft()):
            raise error
        await self.inner.append(stream, entries, ttl=ttl)
        if self.after and (error := self.after.popleft()):
            raise error

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        return await self.inner.read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return await self.inner.describe(stream, last=last)

    async def delete(self, stream: StreamId) -> None:
        await self.inner.delete(stream)

    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        return self.inner.streams(tenant, prefix)

    async def aclose(self) -> None:
        await self.inner.aclose()


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
