"""Checks of several connections: what one does counts for all, whatever they remember."""

from __future__ import annotations

import asyncio

import pytest

from streamq.driver import START, ChunkQueue, FencedError, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness

from ._base import Checks
from ._conditions import needs, requires
from ._promises import promises
from ._records import data_of, entries, numbered

_STALE = "a connection believes what it remembers of a stream: ask the backend, which others change"


class ConnectionChecks(Checks):
    """What one connection does counts for every other, whatever that one remembers."""

    group = "connections"

    async def has(self, queue: ChunkQueue, stream: StreamId, expected: list[bytes]) -> None:
        """Assert that a connection finds these records, and no others, by each of its calls."""
        if not queue.capabilities.replay:
            await self.expect(queue, stream, expected)
            return
        for most in (1, 1_000):
            found = data_of(await self.read(queue, stream, max_records=most, max_wait=0))
            assert found == expected[:most], f"a read with max_records={most}"
        if not expected:
            with pytest.raises(StreamNotFoundError):
                await queue.describe(stream, last=1)
            with pytest.raises(StreamNotFoundError):
                await queue.describe(stream)
            assert [info async for info in queue.streams(stream.tenant)] == []
            return
        info = await queue.describe(stream, last=len(expected) + 5)
        assert data_of(info.last) == expected[::-1]
        if info.records is not None:
            assert info.records == len(expected), "StreamInfo.records counts what was removed"
        assert [info.stream async for info in queue.streams(stream.tenant)] == [stream]

    async def remembered(self, queue: ChunkQueue, stream: StreamId) -> str:
        """Make a connection know all that it can know of a stream; return the last position."""
        if not queue.capabilities.replay:
            await queue.describe(stream)
            return START
        last = (await self.read(queue, stream, max_wait=0))[-1].position
        await self.read(queue, stream, last, max_wait=0.05)  # it may follow the stream now
        await queue.describe(stream, last=5)
        _ = [info async for info in queue.streams(stream.tenant)]
        return last

    @promises("ChunkQueue.delete", "Remove a stream and everything in it", cause=_STALE)
    @promises("ChunkQueue.append", "The first entry creates the stream.")
    @pytest.mark.parametrize("epoch", [1, 5], ids=["older epoch", "same epoch"])
    async def test_append_after_another_connection_has_deleted_begins_anew(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, epoch: int
    ) -> None:
        """A connection that remembers the newest entry would refuse or skip the first of the next
        run, and the text would have no beginning."""
        await queue.append(stream, entries(*numbered(3, "old"), epoch=5))
        await self.remembered(queue, stream)
        await other.delete(stream)
        await queue.append(stream, entries(b"new-0", epoch=epoch))
        await queue.append(stream, entries(b"new-1", epoch=epoch, first=1))
        await self.has(other, stream, [b"new-0", b"new-1"])
        if queue.capabilities.replay:
            await self.has(queue, stream, [b"new-0", b"new-1"])

    @promises("ChunkQueue.delete", "Remove a stream and everything in it", cause=_STALE)
    async def test_append_after_another_connection_has_begun_anew_goes_on_there(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Records of the next run are not repeats of those of the run before."""
        await queue.append(stream, entries(*numbered(3, "old"), epoch=5))
        await self.remembered(queue, stream)
        await other.delete(stream)
        await other.append(stream, entries(b"new-0"))
        await queue.append(stream, entries(b"new-1", first=1))
        await other.append(stream, entries(b"new-2", first=2))
        await queue.append(stream, entries(b"new-3", first=3))
        await self.has(other, stream, numbered(4, "new-"))
        if queue.capabilities.replay:
            await self.has(queue, stream, numbered(4, "new-"))

    @promises(
        "ChunkQueue.delete", "Remove a stream and everything in it; no error if it does not exist."
    )
    @promises(
        "ChunkQueue.describe",
        "Every entry whose append had returned before the call is reflected, across processes.",
        cause=_STALE,
    )
    @requires("replay", "ordered")
    async def test_what_another_connection_has_deleted_is_gone_for_every_call(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader that has followed a stream keeps records of it in memory."""
        await other.append(stream, entries(*numbered(4, "old")))
        middle = (await self.read(queue, stream, max_wait=0))[1].position
        last = await self.remembered(queue, stream)
        await other.delete(stream)
        for each in (queue, other):
            for position in (START, middle, last):
                for wait in (0.0, 0.05):
                    found = await self.read(each, stream, position, max_records=1, max_wait=wait)
                    assert data_of(found) == []
            await self.has(each, stream, [])
        waiting = await self.blocked(self.read(queue, stream, last, max_wait=2 * self.patience))
        await other.append(stream, entries(*numbered(2, "new"), epoch=2))
        async with asyncio.timeout(self.patience):
            assert data_of(await waiting) in ([b"new0"], [b"new0", b"new1"])
        for each in (queue, other):
            await self.has(each, stream, [b"new0", b"new1"])
            for position in (middle, last):
                found = await self.read(each, stream, position)
                assert data_of(found) == [b"new0", b"new1"]

    @promises(
        "ChunkQueue.append",
        "An entry of the same epoch whose index is at or below the newest one is skipped",
        cause=_STALE,
    )
    @requires("fenced", "replay", "ordered")
    async def test_appends_of_two_connections_are_one_sequence(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A writer whose connection broke repeats on another one, and goes on with the first."""
        data = numbered(9)
        await queue.append(stream, entries(*data[:3]))
        await other.append(stream, entries(*data[1:6], first=1))
        await queue.append(stream, entries(*data[2:7], first=2))
        await other.append(stream, entries(*data[:8]))
        await queue.append(stream, entries(*data[:8]))
        await queue.append(stream, entries(data[8], first=20))
        # At or below the newest one, whether it was stored or not.
        await other.append(stream, entries(b"late", first=10))
        for each in (queue, other):
            await self.has(each, stream, data)
        await other.append(stream, entries(b"next", epoch=2))
        for first in (3, 21):
            with pytest.raises(FencedError):
                await queue.append(stream, entries(b"stale", first=first))
        await queue.append(stream, entries(b"more", epoch=2, first=1))
        await other.append(stream, entries(b"next", b"more", b"last", epoch=2))
        for each in (queue, other):
            await self.has(each, stream, [*data, b"next", b"more", b"last"])

    @needs("trim")
    @promises(
        "ChunkQueue.read",
        "If its record is no longer stored, reading continues with the oldest one after it",
        cause=_STALE,
    )
    @requires("replay", "ordered")
    async def test_trimmed_records_are_gone_for_connections_that_have_read_them(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Two readers of one stream must not get different texts."""
        data = numbered(8)
        await queue.append(stream, entries(*data))
        positions = [record.position for record in await self.read_many(queue, stream, 8)]
        for each in (queue, other):
            await self.remembered(each, stream)
        await backend.trim(stream, 3)
        for each in (queue, other):
            for position in (START, positions[1], positions[4]):
                found = await self.read(each, stream, position, max_records=2, max_wait=0)
                assert data_of(found) == data[5:7]
            newest = (await each.describe(stream, last=8)).last
            assert data_of(newest) == data[:4:-1]
        if queue.capabilities.fenced:
            await queue.append(stream, entries(*data))
        await queue.append(stream, entries(b"next", first=8))
        for each in (queue, other):
            assert data_of(await self.read(each, stream, max_wait=0)) == [*data[5:], b"next"]

    @promises(
        "ChunkQueue.streams",
        "A stream that is created or removed meanwhile may be left out, and is no error.",
    )
    async def test_listing_goes_on_while_streams_come_and_go(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """On a busy server a listing never sees the same streams twice, and must still end."""
        names = [f"{at:02}" for at in range(12)]
        streams = [StreamId(stream.tenant, name) for name in names]
        for each in streams:
            await queue.append(each, entries(b"x"))
        removed, new = streams[1::3], StreamId(stream.tenant, "new")
        listed = queue.streams(stream.tenant)
        found = [(await anext(listed)).stream]
        for each in removed:
            await other.delete(each)
        await other.append(new, entries(b"x"))
        found += [info.stream async for info in listed]
        assert len(found) == len(set(found)), "a stream is listed twice"
        assert set(streams) - set(found) <= set(removed), "a stream that stayed is left out"
        assert set(found) <= {*streams, new}
        again = {info.stream async for info in queue.streams(stream.tenant)}
        assert again == {*streams, new} - set(removed)

    @promises("ChunkQueue.commit", "The position alone has to suffice, in another process too")
    @promises("ChunkQueue.commit", "repeating it is harmless")
    async def test_acknowledgement_through_another_connection_counts(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The poll that acknowledges runs on another machine than the one that has read."""
        if queue.capabilities.replay:
            pytest.skip(f"{queue.backend} has replay: reading removes nothing")
        await queue.append(stream, entries(b"a"))
        (first,) = await self.read(queue, stream)
        for each in (other, queue, other):
            await each.commit(stream, first.position)
        await other.append(stream, entries(b"b", first=1))
        assert data_of(await self.read(other, stream)) == [b"b"]
