"""Checks of expiry: streams expire after their time to live, neither earlier nor later."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from streamq.driver import ChunkQueue, FencedError, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness, OpenQueue

from ._conditions import requires
from ._records import data_of, entries, new_stream
from ._streams import StreamChecks, delivered

_SHORTER = timedelta(seconds=60)
_SWEEPS = 3


class ExpiryChecks(StreamChecks):
    """Streams expire after their time to live, neither earlier nor later."""

    group = "expiry"

    @requires("expires")
    async def test_stream_expires_after_its_ttl(
        self, open_queue: OpenQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Streams that are never deleted must not fill the backend."""
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
        """Users can see how long a stream can still be read."""
        await queue.append(stream, entries(b"x"))
        left = (await queue.describe(stream)).expires_in
        assert left is not None
        assert left.total_seconds() > self.patience

    async def expires_within(self, queue: ChunkQueue, stream: StreamId, ttl: timedelta) -> bool:
        """Whether a stream will be gone after this time."""
        left = (await queue.describe(stream)).expires_in
        assert left is not None
        return left <= ttl

    @requires("expires")
    async def test_append_can_shorten_the_ttl_and_the_next_one_restores_it(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """The append that ends a stream also shortens its time to live."""
        ending = new_stream()
        await queue.append(stream, entries(b"a"))
        await queue.append(stream, entries(b"b", first=1), ttl=_SHORTER)
        assert await self.expires_within(queue, stream, _SHORTER)
        await queue.append(stream, entries(b"c", first=2))
        assert not await self.expires_within(queue, stream, _SHORTER)
        await queue.append(ending, entries(b"a"))
        await queue.append(ending, entries(b"b", first=1), ttl=backend.short_ttl)
        await self.eventually(partial(self.is_gone, queue, ending), "the stream has expired")

    @requires("expires", "fenced")
    async def test_repeated_append_sets_the_shorter_ttl_again(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """The acknowledgement of the last record can be lost like any other."""
        await queue.append(stream, entries(b"a"))
        last = entries(b"b", first=1)
        for _ in range(2):
            await queue.append(stream, last, ttl=_SHORTER)
            assert await self.expires_within(queue, stream, _SHORTER)
        await queue.append(stream, last, ttl=backend.short_ttl)
        await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")

    @requires("expires", "fenced")
    async def test_refused_append_shortens_nothing(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A stale attempt that ends late must not expire the stream of its successor."""
        await queue.append(stream, entries(b"old-0"))
        await queue.append(stream, entries(b"new-0", epoch=2))
        with pytest.raises(FencedError):
            await other.append(stream, entries(b"old-1", first=1), ttl=_SHORTER)
        assert not await self.expires_within(queue, stream, _SHORTER)

    @requires("expires", "writable", "replay")
    async def test_sealed_stream_expires_by_its_own_ttl(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Thousands of finished runs must not be kept for as long as one that still runs."""
        settings = self.settings(sealed_ttl_seconds=_SHORTER.total_seconds())
        async with self.writer(queue, stream, settings=settings) as writer:
            await writer.send_chunk("a")
            await writer.flush()
            assert not await self.expires_within(queue, stream, _SHORTER)
            await writer.finish()
        assert await self.expires_within(queue, stream, _SHORTER)
        assert delivered(await self.read_all(queue, stream)) == ["a", "END"]
        brief = self.settings(sealed_ttl_seconds=backend.short_ttl.total_seconds())
        ending = new_stream()
        async with self.writer(queue, ending, settings=brief) as writer:
            await writer.send_chunk("a")
        await self.eventually(partial(self.is_gone, queue, ending), "the stream has expired")

    @requires("expires", "writable", "replay")
    async def test_reader_of_a_deleted_stream_gets_an_error(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader must not wait for ever for a stream that no longer exists."""
        writer = await self.writer(queue, stream)
        await writer.send_chunk("a")
        await writer.flush()
        await writer.aclose()
        async with self.reader(other, stream) as reader:
            assert delivered([await anext(reader)]) == ["a"]
            await queue.delete(stream)
            with pytest.raises(StreamNotFoundError):
                await reader.read_batch(max_wait=0.1)

    async def test_sweep_removes_expired_streams_only(
        self, open_queue: OpenQueue, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Cleanup jobs run on several machines at once, while producers write."""
        brief = await open_queue(ttl=backend.short_ttl)
        await queue.append(stream, entries(b"a"))
        swept: list[int] = []
        for _ in range(_SWEEPS):
            gone = [new_stream() for _ in range(5)]
            for each in gone:
                await brief.append(each, entries(b"old"))
            if queue.capabilities.expires:
                for each in gone:
                    await self.eventually(partial(self.is_gone, queue, each), "it has expired")
            counts = await asyncio.gather(queue.sweep(), brief.sweep(), queue.sweep())
            assert all(count >= 0 for count in counts)
            assert data_of(await self.read(queue, stream)) == [b"a"]
            if queue.capabilities.expires and backend.supplies("peek"):
                assert [await backend.peek(each) for each in gone] == [[]] * len(gone)
            swept.append(sum(counts))
            # More are streams that others have left on this server: the next sweep has fewer.
            if swept[-1] <= len(gone) or not queue.capabilities.expires:
                return
        assert min(swept) <= len(gone), (
            f"after {len(gone)} streams had expired, three sweeps at once removed {swept[-1]} in "
            f"all; so it was {_SWEEPS} times: count a stream only if this sweep has removed it"
        )
