"""Checks of expiry: streams disappear by themselves, not too early and not too late."""

from __future__ import annotations

import asyncio
from functools import partial

from streamq.driver import ChunkQueue, StreamId

from ._checks import Checks, data_of, entries, requires
from ._harness import BackendHarness, OpenQueue


class ExpiryChecks(Checks):
    """Streams disappear by themselves, not too early and not too late."""

    group = "expiry"

    @requires("expires")
    async def test_stream_expires_after_its_ttl(
        self, open_queue: OpenQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Streams nobody deletes must not fill the backend."""
        queue = await open_queue(ttl=backend.short_ttl)
        await queue.append(stream, entries(b"old-0", b"old-1", epoch=3))
        left = (await queue.describe(stream)).expires_in
        assert left is not None
        assert left <= backend.short_ttl
        await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")
        assert list(await self.read(queue, stream, max_wait=0)) == []
        assert [info async for info in queue.streams(stream.tenant)] == []
        await queue.append(stream, entries(b"new-0"))
        assert data_of(await self.read(queue, stream)) == [b"new-0"]

    @requires("expires")
    async def test_append_renews_the_ttl(
        self, open_queue: OpenQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A producer that runs for hours must not lose the beginning of its own stream."""
        queue = await open_queue(ttl=backend.short_ttl)
        ttl = backend.short_ttl.total_seconds()
        clock = asyncio.get_running_loop().time
        ends = clock() + 2 * ttl
        sent = 0
        while clock() < ends:
            await queue.append(stream, entries(b"%d" % sent, first=sent))
            sent += 1
            await asyncio.sleep(ttl / 6)
        assert [b"%d" % i for i in range(sent)] == data_of(await self.read(queue, stream))

    @requires("expires")
    async def test_long_ttl_is_reported(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Users are told how long a stream can still be read."""
        await queue.append(stream, entries(b"x"))
        left = (await queue.describe(stream)).expires_in
        assert left is not None
        assert left.total_seconds() > self.patience
