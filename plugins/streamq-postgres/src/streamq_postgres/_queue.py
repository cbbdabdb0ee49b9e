"""The queue: streamq's contract, put together from the rooms for writing, reading and following.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Closing,
    Entry,
    Guard,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    decode_position,
)

from ._errors import BACKEND, to_streamq
from ._live_tail import LiveTail
from ._naming import channel
from ._reading import RecordReader, StreamLister
from ._settings import PostgresSettings
from ._sweeping import Remover
from ._writing import Appender
from .requests._connection import Connection, Server
from .requests._connection_group import ConnectionGroup
from .requests._connector import Connector
from .requests._statements import Statements


class PostgresQueue(ChunkQueue):
    """Streams in one schema of a database.

    It uses three connections at most, each made when it is first needed: one for appends, one for
    requests, and one that follows streams. A fourth one exists for a moment now and then.
    """

    backend = BACKEND

    def __init__(
        self, options: QueueOptions, settings: PostgresSettings, capabilities: Capabilities
    ) -> None:
        self.capabilities = self._best = capabilities
        self.connector = Connector(settings)
        self._group = ConnectionGroup(self.connector, settings.lookup_seconds, self._on_server)
        self._requests = self._group.member()
        statements = Statements(settings.schema_name)
        self._remover = Remover(self._requests, statements, settings.sweep_seconds)
        self._appender = Appender(
            self._group.member(),
            statements,
            ttl=options.ttl,
            how_to_commit=settings.synchronous_commit,
            lock_ms=settings.lock_ms,
            on_appended=self._remover.remind,
        )
        self._reader = RecordReader(self._requests, statements)
        self._lister = StreamLister(self._requests, statements)
        self._live_tail = LiveTail(
            self._group.member(),
            statements,
            channel=channel(settings.schema_name),
            tail_bytes=settings.tail_bytes,
            poll_seconds=settings.poll_seconds,
            poll_without_listen_seconds=settings.poll_without_listen_seconds,
        )
        translate = partial(to_streamq, address=self.connector.address)
        self._patience = settings.operation_timeout_seconds
        address = self.connector.address
        self._guard = Guard(BACKEND, translate, seconds=self._patience, address=address)
        self._closing = Closing(self._close)
        self._loop = asyncio.get_running_loop()

    async def start(self) -> Server:
        """Connect, and create the schema if there is none."""
        async with self._guard():
            return await self._requests.run(self._meet)

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        async with self._guard(stream):
            await self._appender.append(stream, entries, ttl)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        self._guard.check(stream)
        start = decode_position(after, backend=BACKEND, stream=stream)
        until = self._loop.time() + max_wait
        tap = self._live_tail.tap(stream, start) if max_wait > 0 else None
        async with self._guard(stream, seconds=max_wait + self._patience):
            while True:
                if tap is not None:
                    found = await tap.read(start, max_records, max_bytes, until)
                    if found is not None:
                        return found
                found = await self._reader.read(stream, start, max_records, max_bytes)
                if found or max_wait <= 0:
                    return found
                tap = await self._live_tail.attach(stream, start)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        async with self._guard(stream):
            info = await self._lister.describe(stream, last)
        if info is None:
            raise StreamNotFoundError(
                f"there is no stream {stream} (never written, deleted, or expired)",
                backend=BACKEND,
                stream=str(stream),
            )
        return info

    async def delete(self, stream: StreamId) -> None:
        async with self._guard(stream, seconds=3 * self._patience):
            await self._remover.delete(stream)
        self._live_tail.drop(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        after: bytes | None = b""
        while after is not None:
            async with self._guard():
                infos, after = await self._lister.page(tenant, prefix.encode(), after)
            for info in infos:
                yield info

    async def sweep(self) -> int:
        total, is_done = 0, False
        while not is_done:
            async with self._guard():
                gone, is_done = await self._remover.step()
            total += gone
        return total

    async def aclose(self) -> None:
        self._guard.close()
        await self._closing.run()

    def abandon(self) -> None:
        self._group.abandon()

    # -- inside --------------------------------------------------------------------------------

    async def _meet(self, connection: Connection) -> Server:
        if not connection.server.schema_version and not connection.server.is_standby:
            await self.connector.create_schema(connection)
        return connection.server

    def _on_server(self, server: Server) -> None:
        """Declare what the server, perhaps a new one, can do."""
        hears = not (server.is_pooled or server.is_standby)
        best = self._best
        self.capabilities = dataclasses.replace(
            best,
            durable=best.durable and server.is_durable,
            erases=best.erases and server.vacuums,
            latency=best.latency if hears else LatencyClass.TENS_OF_MILLISECONDS,
        )

    async def _close(self) -> None:
        self._live_tail.close()
        self._group.close()
        await self._appender.gone()
        await self._remover.gone()
        await self._live_tail.gone()
        await self._group.gone()
