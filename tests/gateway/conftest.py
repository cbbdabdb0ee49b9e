"""A memory queue that counts and fails on demand, behind a real HTTP server on a free port."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from streamq import BackendUnavailableError, Settings, StreamqError, load_settings
from streamq.driver import ChunkQueue, Entry, QueueOptions, Stored, StreamId, StreamInfo
from streamq.gateway import Gateway, GatewayOptions, GatewayServer, create_app, serve
from streamq.memory import MemoryDriver, MemorySettings


class WatchedQueue(ChunkQueue):
    """Passes calls on to a real queue; counts what is going on, and can be taken down."""

    def __init__(self, inner: ChunkQueue) -> None:
        self.inner = inner
        self.backend = inner.backend
        self.capabilities = inner.capabilities
        self.down: StreamqError | None = None
        self.describe_down = False
        self.failed_describes = 0
        self.reading = 0
        self.most_reading = 0
        self.records_read = 0
        self.trimmed = 0
        """How many of the oldest records to withhold."""
        self._interrupt = asyncio.Event()
        self._idle = asyncio.Event()

    def take_down(self, error: StreamqError | None = None) -> None:
        """Fail every call from now on, also those that are waiting."""
        self.down = error or BackendUnavailableError("no route to secret-host:6379")
        self._interrupt.set()

    def bring_up(self) -> None:
        """Work again."""
        self.down = None
        self._interrupt.clear()

    async def idle(self) -> None:
        """Wait until nobody reads."""
        while self.reading:
            self._idle.clear()
            await self._idle.wait()

    def _check(self) -> None:
        if self.down is not None:
            raise self.down

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self._check()
        await self.inner.append(stream, entries, ttl=ttl)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self._check()
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        reading = asyncio.ensure_future(
            self.inner.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )
        )
        interrupted = asyncio.ensure_future(self._interrupt.wait())
        try:
            await asyncio.wait((reading, interrupted), return_when=asyncio.FIRST_COMPLETED)
            self._check()
            found = await reading
            if after == "" and self.trimmed:
                found = found[self.trimmed :]
            self.records_read += len(found)
            return found
        finally:
            reading.cancel()
            interrupted.cancel()
            await asyncio.gather(reading, interrupted, return_exceptions=True)
            self.reading -= 1
            if not self.reading:
                self._idle.set()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self._check()
        if self.describe_down:
            self.failed_describes += 1
            raise BackendUnavailableError("no route to secret-host:6379")
        return await self.inner.describe(stream, last=last)

    async def delete(self, stream: StreamId) -> None:
        self._check()
        await self.inner.delete(stream)

    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self._check()
        return self.inner.streams(tenant, prefix)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Served:
    """A running gateway and a client of it."""

    def __init__(self, server: GatewayServer, client: httpx.AsyncClient, gateway: Gateway) -> None:
        self.server = server
        self.client = client
        self.gateway = gateway

    async def get(self, path: str) -> httpx.Response:
        """Request something that ends."""
        return await self.client.get(path)

    @asynccontextmanager
    async def events(
        self, name: str, query: str = "", last_event_id: str | None = None
    ) -> AsyncIterator[EventSource]:
        """Open a stream."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        path = f"/streams/{name}/events{query and '?' + query}"
        async with aconnect_sse(self.client, "GET", path, headers=headers) as source:
            yield source

    async def collect(
        self, name: str, query: str = "", last_event_id: str | None = None
    ) -> list[ServerSentEvent]:
        """Read a stream to the end of the connection."""
        async with self.events(name, query, last_event_id) as source:
            return [event async for event in source.aiter_sse() if event.data]

    async def values(self, name: str, query: str = "") -> list[Any]:
        """Read a stream to the end of the connection and return the values of its chunks."""
        events = await self.collect(name, query)
        return [event.json()["value"] for event in events if event.event == "chunk"]

    async def raw(self, name: str, query: str = "") -> bytes:
        """Read the bytes of a connection."""
        return (await self.client.get(f"/streams/{name}/events?{query}")).content


class Serve:
    """Starts gateways that end with the test."""

    def __init__(self, stack: AsyncExitStack, queue: ChunkQueue, settings: Settings) -> None:
        self._stack = stack
        self._queue = queue
        self._settings = settings

    async def __call__(self, queue: ChunkQueue | None = None, **options: Any) -> Served:
        app = create_app(queue or self._queue, self._settings, options=GatewayOptions(**options))
        server = await self._stack.enter_async_context(serve(app))
        client = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=server.url, timeout=10, limits=httpx.Limits())
        )
        return Served(server, client, app.state.gateway)


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
