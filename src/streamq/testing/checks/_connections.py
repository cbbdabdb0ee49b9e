"""Checks of several connections: what one does counts for all, whatever they remember."""

from __future__ import annotations

import pytest

from streamq.driver import START, ChunkQueue, FencedError, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness

from ._base import Checks
from ._conditions import needs, requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, numbered
from ._verdicts import refuses, same, same_records

_MOVED = "a page begins at a place that was counted, and what is before it has changed"
_AGAIN = "a read of a stream that another connection has deleted and begun anew"
_FOLLOWED = (
    "a connection that follows a stream keeps its newest records, and serves them to a read that "
    "begins below them: let it only wait for what comes, and read the rest from the backend"
)
_STALE = "a connection believes what it remembers of a stream: ask the backend, which others change"


class ConnectionChecks(Checks):
    """What one connection does counts for every other, whatever that one remembers."""

    group = "connections"

    async def has(self, queue: ChunkQueue, stream: StreamId, expected: list[bytes]) -> None:
        """Fail unless a connection finds these records, and no others, by each of its calls."""
        __tracebackhide__ = True
        if not queue.capabilities.replay:
            await self.expect(queue, stream, expected)
            return
        for most in (1, 1_000):
            found = data_of(await self.read(queue, stream, max_records=most, max_wait=0))
            same_records(found, expected[:most], f"a read with max_records={most}", cause=_STALE)
        listed = [info.stream async for info in queue.streams(stream.tenant)]
        same(listed, [stream] if expected else [], "the streams that are listed", cause=_STALE)
        if not expected:
            for last in (1, 0):
                what = f"describe(last={last}) of a stream that was deleted"
                with refuses(StreamNotFoundError, what, cause=_STALE):
                    await queue.describe(stream, last=last)
            return
        last = len(expected) + 5
        info = await queue.describe(stream, last=last)
        what = f"describe(last={last}), newest first"
        same_records(data_of(info.last), expected[::-1], what, cause=_STALE)
        if info.records is not None:
            cause = "what was removed or skipped is counted as well"
            same(info.records, len(expected), "StreamInfo.records", cause=cause)

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
                    what = f"a read after {position!r} of a stream that was deleted"
                    same_records(data_of(found), [], what, cause=_STALE)
            await self.has(each, stream, [])
        waiting = await self.blocked(self.read(queue, stream, last, max_wait=2 * self.patience))
        await other.append(stream, entries(*numbered(2, "new"), epoch=2))
        async with within(self.patience, "a read that waits while a deleted stream begins anew"):
            woken = data_of(await waiting)
        same_records(woken, [b"new0", b"new1"][: max(1, len(woken))], _AGAIN, cause=_STALE)
        for each in (queue, other):
            await self.has(each, stream, [b"new0", b"new1"])
            for position in (middle, last):
                found = await self.read(each, stream, position)
                same_records(data_of(found), [b"new0", b"new1"], _AGAIN, cause=_STALE)

    @promises(
        "ChunkQueue.delete",
        "When it returns, the stream can no longer be read, listed or described, in any process.",
        cause=_FOLLOWED,
    )
    @promises("ChunkQueue.read", "Return stored records after a position, oldest first")
    @requires("replay", "ordered")
    @pytest.mark.parametrize("is_begun_anew", [False, True], ids=["gone", "begun anew"])
    async def test_what_a_reader_has_followed_is_gone_with_the_stream(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, is_begun_anew: bool
    ) -> None:
        """A reader that waits must not hand out again what a user has deleted elsewhere, or mix it
        with the next run."""
        await other.append(stream, entries(b"old-0"))
        positions = [(await self.read(queue, stream))[-1].position]
        for index in (1, 2):
            waiting = await self.blocked(self.read(queue, stream, positions[-1]))
            await other.append(stream, entries(b"old-%d" % index, first=index))
            positions.append((await waiting)[-1].position)
        await other.delete(stream)
        if is_begun_anew:
            data, position = numbered(3, "new-"), START
            await other.append(stream, entries(*data))
            for expected in data:
                found = await self.read(queue, stream, position, max_records=1)
                same_records(data_of(found), [expected], _AGAIN, cause=_FOLLOWED)
                position = found[-1].position
        else:
            found = await self.read(queue, stream, positions[0], max_wait=0.05)
            what = "a read from the middle of a stream that another connection has deleted"
            same_records(data_of(found), [], what, cause=_FOLLOWED)

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
            what = "an append of epoch 1, after another connection has opened epoch 2"
            with refuses(FencedError, what, cause=_STALE):
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
                what = f"a read with max_records=2 after {position!r}, when five records are gone"
                same_records(data_of(found), data[5:7], what, cause=_STALE)
            newest = (await each.describe(stream, last=8)).last
            what = "describe(last=8), newest first, of a stream with three records left"
            same_records(data_of(newest), data[:4:-1], what, cause=_STALE)
        if queue.capabilities.fenced:
            await queue.append(stream, entries(*data))
        await queue.append(stream, entries(b"next", first=8))
        for each in (queue, other):
            found = await self.read(each, stream, max_wait=0)
            what = "the records of a stream that was trimmed, and appended to"
            same_records(data_of(found), [*data[5:], b"next"], what, cause=_STALE)

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
        names_found = sorted(each.name for each in found)
        same(names_found, sorted({*names_found}), "a listing, in which no stream comes twice")
        stayed = [each.name for each in streams if each not in removed]
        left_out = [name for name in stayed if name not in names_found]
        same(left_out, [], "the streams that stayed and that a listing has left out", cause=_MOVED)
        foreign = [name for name in names_found if name not in [*names, new.name]]
        same(foreign, [], "the streams in a listing that were never there")
        again = sorted([info.stream.name async for info in queue.streams(stream.tenant)])
        same(again, sorted([*stayed, new.name]), "a listing after streams came and went")
