"""Serves a memory queue that counts and fails on demand over real HTTP, on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NoReturn

import httpx
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from streamq import Encoding, Settings, open_writer
from streamq.driver import ChunkQueue, Stored, StreamId
from streamq.gateway import Authorize, Gateway, GatewayOptions, GatewayServer, create_app, serve
from streamq.testing import FaultyQueue


def number(event: ServerSentEvent) -> str:
    """Return the offset that the id of an event begins with."""
    return event.id.partition("@")[0]


async def eventually(condition: Callable[[], bool]) -> None:
    """Poll a condition for which there is no event."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class AsStored:
    """A serializer that stores what it is given, as another program might."""

    def encode(self, value: tuple[Encoding, bytes]) -> tuple[Encoding, bytes]:
        return value

    def decode(self, encoding: Encoding, data: bytes) -> NoReturn:
        raise NotImplementedError


class WatchedQueue(FaultyQueue):
    """Counts the records that are read, and can withhold the oldest ones."""

    def __init__(self, inner: ChunkQueue) -> None:
        super().__init__(inner)
        self.records_read = 0
        self.trimmed = 0
        """Number of the oldest records to withhold."""

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        found = await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )
        if after == "" and self.trimmed:
            found = found[self.trimmed :]
        self.records_read += len(found)
        return found


class Served:
    """A running gateway and a client of it."""

    def __init__(self, server: GatewayServer, client: httpx.AsyncClient, gateway: Gateway) -> None:
        self.server = server
        self.client = client
        self.gateway = gateway

    async def get(self, path: str) -> httpx.Response:
        """Request a response that ends."""
        return await self.client.get(path)

    @asynccontextmanager
    async def events(
        self, name: str, query: str = "", last_event_id: str | None = None
    ) -> AsyncIterator[EventSource]:
        """Open a stream."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        path = f"/events/{name}{query and '?' + query}"
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
        return (await self.client.get(f"/events/{name}?{query}")).content


class Serve:
    """Starts gateways that end with the test."""

    def __init__(self, stack: AsyncExitStack, queue: ChunkQueue, settings: Settings) -> None:
        self._stack = stack
        self._queue = queue
        self._settings = settings

    async def __call__(
        self,
        queue: ChunkQueue | None = None,
        *,
        authorize: Authorize | None = None,
        **options: Any,
    ) -> Served:
        app = create_app(
            queue or self._queue,
            self._settings,
            authorize=authorize,
            options=GatewayOptions(**options),
        )
        server = await self._stack.enter_async_context(serve(app))
        client = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=server.url, timeout=10, limits=httpx.Limits())
        )
        return Served(server, client, app.state.gateway)


async def fill(queue: WatchedQueue, name: str, count: int = 3) -> None:
    async with open_writer(name, queue=queue) as writer:
        for number in range(count):
            await writer.send_chunk(f"{number} ")


async def end(queue: ChunkQueue, name: str, *values: Any, epoch: int | None = None) -> None:
    async with open_writer(name, queue=queue, epoch=epoch) as writer:
        for value in values:
            await writer.send_chunk(value)
