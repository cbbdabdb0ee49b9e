"""The queue: streamq's contract, put together from the rooms for writing, reading and following.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Entry,
    Guard,
    QueueOptions,
    Stored,
    StreamAppend,
    StreamId,
    StreamInfo,
    StreamqError,
    close_all,
    decode_position,
    for_stream,
    not_found_error,
)

from ._errors import BACKEND, to_streamq
from ._live_tail import LiveTail
from ._reading import KeyScan, RecordReader, StreamLister
from ._settings import RedisSettings
from ._writing import Appender
from .requests._commands import (
    Command,
    checked,
    parse_durability,
    persistence,
    remove,
    remove_indexed,
)
from .requests._connection import Connection, Server
from .requests._connection_group import ConnectionGroup
from .requests._handshake import Connector, check_unblock


class RedisQueue(ChunkQueue):
    """Streams on one Redis or Valkey server.

    It uses three connections at most, each made when it is first needed: one for appends, one for
    requests that return at once, and one that blocks for all streams that are followed.
    """

    backend = BACKEND

    def __init__(
        self, options: QueueOptions, settings: RedisSettings, capabilities: Capabilities
    ) -> None:
        self.capabilities = capabilities
        self._connector = Connector(settings)
        self._keys = settings.key_space()
        self._translate = partial(
            to_streamq, address=self._connector.address, keys=self._keys.granted
        )
        # Each request has a deadline.
        self._guard = Guard(BACKEND, self._translate, seconds=math.inf)
        self._connections = ConnectionGroup(self._connector.connect_again, settings.lookup_seconds)
        self._for_requests = self._connections.member(self._connect_for_requests)
        self._appender = Appender(
            self._connections.member(self._connector.connect), self._keys, options.ttl
        )
        self._reader = RecordReader(self._for_requests)
        self._lister = StreamLister(self._for_requests, self._keys, options.ttl, self._appender.lag)
        self._live_tail = LiveTail(
            self._connections.member(self._connect_for_following),
            self._for_requests,
            tail_bytes=settings.tail_bytes,
            block_seconds=settings.block_seconds,
        )
        self._loop = asyncio.get_running_loop()

    async def start(self) -> Server:
        """Connect once."""
        async with self._guard():
            return (await self._for_requests.get()).server

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        async with self._guard(stream):
            await self._appender.append(stream, self._keys.key(stream), entries, ttl)

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        async with self._guard():
            errors = await self._appender.append_many(
                [(self._keys.key(each.stream), each) for each in appends]
            )
            return [
                None if error is None else self._translated(error, each.stream)
                for error, each in zip(errors, appends, strict=True)
            ]

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        start = decode_position(after, backend=BACKEND, stream=stream)
        key = self._keys.key(stream)
        until = self._loop.time() + max_wait
        async with self._guard(stream):
            if max_wait <= 0:
                return await self._reader.read(key, start, max_records, max_bytes)
            tap = self._live_tail.tap(key, start)
            while True:
                if tap is not None:
                    found = await tap.read(start, max_records, max_bytes, until)
                    if found is not None:
                        return found
                found = await self._reader.read(key, start, max_records, max_bytes)
                if found:
                    return found
                tap = await self._live_tail.attach(key, start)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        async with self._guard(stream):
            info = await self._lister.describe(stream, last)
        if info is None:
            raise not_found_error(BACKEND, stream)
        return info

    async def delete(self, stream: StreamId) -> None:
        async with self._guard(stream):
            connection = await self._for_requests.get()
            for reply in await connection.call(*self._removal(stream)):
                checked(reply)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        walk = KeyScan(tenant, prefix)
        while not walk.is_complete:
            async with self._guard():
                infos = await self._lister.page(walk)
            for info in infos:
                yield info

    async def aclose(self) -> None:
        self._guard.close()
        self._connections.close()
        await close_all(self._connections.gone, self._connector.gone)

    # -- inside --------------------------------------------------------------------------------

    def _removal(self, stream: StreamId) -> list[Command]:
        """Return the commands that remove a stream, and its name from an index if there is one."""
        key = self._keys.key(stream)
        if not self._keys.is_indexed:
            return [remove(key)]
        return remove_indexed(key, self._keys.index(stream.tenant), self._keys.member(stream))

    def _translated(self, error: Exception, stream: StreamId) -> StreamqError:
        found = error if isinstance(error, StreamqError) else self._translate(error, str(stream))
        if found is None:
            raise error
        if found is not error:
            found.__cause__ = error
        return for_stream(found, str(stream), backend=BACKEND)

    async def _connect_for_requests(self) -> Connection:
        return await self._connector.connect(self._learn)

    async def _connect_for_following(self) -> Connection:
        return await self._connector.connect(check_unblock)

    async def _learn(self, connection: Connection) -> None:
        """Learn from the server, perhaps a new one, what this queue can promise."""
        durable = parse_durability(await connection.call(*persistence()))
        self.capabilities = dataclasses.replace(self.capabilities, durable=durable)
