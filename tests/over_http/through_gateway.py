"""Appends to an SQLite file and reads it through a gateway: a driver for the conformance kit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq import StreamqError, load_settings
from streamq.driver import (
    ChunkQueue,
    Driver,
    DriverSettings,
    Entry,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    close_all,
)
from streamq.gateway import GatewayOptions, GatewayServer, create_app, serve
from streamq.over_http._address import GatewayAddress
from streamq.over_http._queue import connect
from streamq.sqlite import SqliteDriver, SqliteSettings

_BOUND = 100_000
OPTIONS = GatewayOptions(client_share=1.0, max_waiting=_BOUND, max_connections=_BOUND)


class ThroughGatewaySettings(DriverSettings):
    """Where records are written to, and where they are read from."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_THROUGH_")

    toml_table = "through"
    path: Path = Field(description="file")
    url: str = Field(description="address of the gateway")


class ThroughGatewayQueue(ChunkQueue):
    """Writes by the backend's queue, and reads by that of its gateway."""

    backend = "through"

    def __init__(self, writing: ChunkQueue, reading: ChunkQueue) -> None:
        self.capabilities = reading.capabilities
        self._writing = writing
        self._reading = reading

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with _named(stream):
            await self._writing.append(stream, entries, ttl=ttl)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        with _named(stream):
            return await self._reading.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with _named(stream):
            return await self._reading.describe(stream, last=last)

    async def delete(self, stream: StreamId) -> None:
        with _named(stream):
            await self._writing.delete(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        with _named(None):
            async for info in self._reading.streams(tenant, prefix):
                yield info

    async def sweep(self) -> int:
        with _named(None):
            return await self._writing.sweep()

    async def aclose(self) -> None:
        await close_all(self._reading.aclose, self._writing.aclose)


class _named:
    """Lets errors of either queue have the name of the driver under test."""

    def __init__(self, stream: StreamId | None) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, StreamqError):
            exc.backend = "through"


class ThroughGatewayDriver(Driver[ThroughGatewaySettings]):
    """SQLite behind a gateway."""

    name = "through"
    summary = "SQLite behind a gateway"
    capabilities = SqliteDriver.capabilities
    settings_type = ThroughGatewaySettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: ThroughGatewaySettings) -> ChunkQueue:
        async with AsyncExitStack() as stack:
            writing = await SqliteDriver.open(options, SqliteSettings(path=settings.path))
            stack.push_async_callback(writing.aclose)
            with _named(None):
                reading = await connect(GatewayAddress.parse(settings.url + "/t/x"), None)
            stack.pop_all()
        return ThroughGatewayQueue(writing, reading)


@asynccontextmanager
async def gateway_in_thread(path: Path) -> AsyncIterator[GatewayServer]:
    """Serve a file in a thread, so that the caller's event loop has nothing of the gateway."""
    started: asyncio.Future[GatewayServer] = asyncio.get_running_loop().create_future()
    here, stop = asyncio.get_running_loop(), threading.Event()

    async def run() -> None:
        settings = load_settings(
            backend="sqlite", gateway_trust_tenants=True, gateway_anonymous="read,list"
        )
        queue = await SqliteDriver.open(
            QueueOptions(ttl=timedelta(minutes=5)), SqliteSettings(path=path)
        )
        async with queue, serve(create_app(queue, settings, options=OPTIONS)) as server:
            here.call_soon_threadsafe(started.set_result, server)
            while not stop.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    try:
        yield await started
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)
