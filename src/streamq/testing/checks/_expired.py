"""Checks of expired streams: they are gone by every path, also for connections that know them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeAlias

from streamq.driver import (
    START,
    BackendUnavailableError,
    ChunkQueue,
    FencedError,
    StreamId,
    StreamNotFoundError,
)
from streamq.testing._harness import BackendHarness
from streamq.testing._shown import shown

from ._base import Checks
from ._conditions import needs, requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._verdicts import broken, holds, same, same_records

IsGone: TypeAlias = Callable[[], Awaitable[bool]]

_APPENDED_AT_ONCE = 500
_SHORTER = timedelta(seconds=60)
_RECORDS = 4
_ON_SOME_PATHS = "expiry is looked at on some paths only: look on each, also when a page is full"
_BEGUN_ANEW = "a stream that had expired and has begun anew"
_LATE_TTL = "the time to live is set with some appends only, or by what the connection remembers"


class ExpiredChecks(Checks):
    """A stream that has expired is gone by every path, and its name can be used anew."""

    group = "expired"

    async def followed(self, queue: ChunkQueue, *readers: ChunkQueue) -> tuple[StreamId, list[str]]:
        """Store a stream, and let connections follow it; return it, and its positions."""
        stream = new_stream()
        await queue.append(stream, entries(*numbered(_RECORDS), epoch=3))
        positions: list[str] = []
        for each in readers:
            found = await self.read(each, stream, max_wait=0)
            positions = [START, *(record.position for record in found)]
            await self.read(each, stream, positions[-1], max_wait=0.01)
        return stream, positions

    async def expire(
        self, queue: ChunkQueue, streams: Sequence[StreamId], backend: BackendHarness
    ) -> None:
        """Append the last record of some streams, with a short time to live, and let it pass."""
        last = entries(b"last", epoch=3, first=_RECORDS)
        await asyncio.gather(
            *(queue.append(stream, last, ttl=backend.short_ttl) for stream in streams)
        )
        await asyncio.sleep(backend.short_ttl.total_seconds())

    def path(self, name: str, queue: ChunkQueue, stream: StreamId, positions: list[str]) -> IsGone:
        """Return what tells by one path alone whether a stream is gone."""

        async def read(after: str, most: int, wait: float = 0.0) -> bool:
            return not await self.read(queue, stream, after, max_records=most, max_wait=wait)

        async def describe(last: int) -> bool:
            try:
                await queue.describe(stream, last=last)
            except StreamNotFoundError:
                return True
            return False

        async def listing() -> bool:
            return not [info async for info in queue.streams(stream.tenant)]

        return {
            "a read of all": lambda: read(START, 100),
            "a read of one record, with more behind it": lambda: read(START, 1),
            "a read after the second record": lambda: read(positions[2], 1),
            "a read that waits": lambda: read(positions[2], 1, 0.01),
            "a description": lambda: describe(0),
            "a description with records": lambda: describe(2),
            "a listing": listing,
        }[name]

    @promises("ChunkQueue.describe", "The stream does not exist, or has expired.")
    @promises("ChunkQueue.streams", "None of the streams has expired")
    @promises(
        "ChunkQueue.read",
        "A stream that does not exist yet, or has expired, is waited for like an empty one.",
        cause=_ON_SOME_PATHS,
    )
    @requires("expires", "replay", "ordered")
    async def test_expired_stream_is_gone_by_every_path(
        self, queue: ChunkQueue, other: ChunkQueue, backend: BackendHarness
    ) -> None:
        """Text that was to be kept for an hour must not be served later by one of the paths.

        Each path has a stream of its own, so that none is helped by another that has noticed.
        """
        names = (
            "a read of all",
            "a read of one record, with more behind it",
            "a read after the second record",
            "a read that waits",
            "a description",
            "a description with records",
            "a listing",
        )
        chosen = [(name, each) for name in names for each in (queue, other)]
        begun = [await self.followed(queue, queue, other) for _ in chosen]
        await self.expire(queue, [stream for stream, _ in begun], backend)
        late: list[str] = []

        async def watch(name: str, each: ChunkQueue, stream: StreamId, places: list[str]) -> None:
            is_gone = self.path(name, each, stream, places)
            clock = asyncio.get_running_loop().time
            give_up = clock() + self.patience
            while clock() < give_up:
                # A busy server may miss a deadline of one of so many calls.
                with contextlib.suppress(BackendUnavailableError):
                    if await is_gone():
                        return
                await asyncio.sleep(0.02)  # nothing tells
            late.append(f"{name} by {'the writer' if each is queue else 'another connection'}")

        await asyncio.gather(
            *(
                watch(name, each, stream, positions)
                for (name, each), (stream, positions) in zip(chosen, begun, strict=True)
            )
        )
        what = f"the paths by which a stream is found {self.patience:g} s after its time to live"
        same(late, [], what, cause=_ON_SOME_PATHS)

    @promises("ChunkQueue.append", "The first entry creates the stream.")
    @promises(
        "ChunkQueue.read",
        "A stream that does not exist yet, or has expired, is waited for like an empty one.",
        cause="a connection believes what it remembers of a stream that has expired since",
    )
    @requires("expires", "replay", "ordered")
    async def test_expired_stream_begins_anew_for_connections_that_know_it(
        self, queue: ChunkQueue, other: ChunkQueue, backend: BackendHarness
    ) -> None:
        """A name is used again after weeks; the fence and records of before must not come back."""
        (mine, _), (theirs, _), (awaited, places) = await asyncio.gather(
            *(self.followed(queue, queue, other) for _ in range(3))
        )
        await self.expire(queue, [mine, theirs, awaited], backend)
        for stream, writer in ((mine, queue), (theirs, other)):

            async def has_begun(stream: StreamId = stream, writer: ChunkQueue = writer) -> bool:
                try:
                    await writer.append(stream, entries(b"new"))
                except FencedError:  # not expired yet
                    return False
                return True

            await self.eventually(has_begun, "a stream that has expired begins with any epoch")
            await writer.append(stream, entries(b"more", first=1))
            for each in (queue, other):
                found = data_of(await self.read(each, stream, max_wait=0))
                same_records(found, [b"new", b"more"], f"a read of {_BEGUN_ANEW}")
                newest = data_of((await each.describe(stream, last=9)).last)
                same_records(newest, [b"more", b"new"], f"describe(last=9) of {_BEGUN_ANEW}")
        await self.eventually(
            self.path("a read of all", other, awaited, places), "the stream has expired"
        )
        waiting = [
            await self.blocked(self.read(each, awaited, after, max_wait=4 * self.patience))
            for each in (queue, other)
            for after in (START, places[1], places[-1])
        ]
        await other.append(awaited, entries(b"new", epoch=4))
        what = f"{len(waiting)} reads that wait while an expired stream begins anew"
        async with within(self.patience, what):
            batches = [data_of(await each) for each in waiting]
        for found in batches:
            same_records(found, [b"new"], f"a read that waited for {_BEGUN_ANEW}")

    @promises(
        "ChunkQueue.sweep",
        "Nothing of an expired one is left in the backend.",
        cause="a sweep works in steps, and forgets what a step has left of one stream as soon as "
        "another one is gone",
    )
    @needs("peek")
    @requires("expires", "replay")
    async def test_sweep_leaves_nothing_of_several_large_streams(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """What is left of a stream that nobody can list stays on the disk for ever."""
        large = [new_stream() for _ in range(2)]
        data = numbered(backend.read_page * 11 // 10)
        for stream in large:
            for first in range(0, len(data), _APPENDED_AT_ONCE):
                batch = entries(*data[first : first + _APPENDED_AT_ONCE], first=first)
                await queue.append(stream, batch)
            last = entries(b"last", first=len(data))
            await queue.append(stream, last, ttl=backend.short_ttl)
        for stream in large:
            await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")
        await queue.sweep()
        for stream in large:
            left = len(await backend.peek(stream))
            same(left, 0, f"the records that peek() shows of {len(data) + 1:,}, after a sweep")

    async def expires_in(self, queue: ChunkQueue, stream: StreamId) -> timedelta:
        """Return when a stream expires, as described and as listed."""
        left = (await queue.describe(stream)).expires_in
        if left is None:
            broken(
                "StreamInfo.expires_in of a backend that declares 'expires'",
                expected="the time until the stream expires",
                seen=None,
            )
        for info in [info async for info in queue.streams(stream.tenant)]:
            holds(
                info.expires_in is None or abs(info.expires_in - left) < _SHORTER / 2,
                "StreamInfo.expires_in of a listing",
                expected=f"about {shown(left)}, as described, or None",
                seen=info.expires_in,
            )
        return left

    async def expect_short(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Fail unless a stream expires within the shorter time to live."""
        __tracebackhide__ = True
        left = await self.expires_in(queue, stream)
        expected = f"at most {shown(_SHORTER)}: the last append was for so long"
        what = "StreamInfo.expires_in after an append with a shorter time to live"
        holds(left <= _SHORTER, what, expected=expected, seen=left, cause=_LATE_TTL)

    async def expect_long(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Fail unless a stream expires later than by the shorter time to live."""
        __tracebackhide__ = True
        left = await self.expires_in(queue, stream)
        expected = f"more than {shown(_SHORTER)}: the last append was for QueueOptions.ttl"
        what = "StreamInfo.expires_in after an append without a time to live"
        holds(left > _SHORTER, what, expected=expected, seen=left, cause=_LATE_TTL)

    @promises("ChunkQueue.append", "Time to live from now", cause=_LATE_TTL)
    @promises("ChunkQueue.append", "which every append renews", cause=_LATE_TTL)
    @requires("expires")
    async def test_last_append_sets_the_ttl_whichever_connection_makes_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """An attempt that ended a stream has shortened its life; the next one, on a worker that
        has written to it before, must not lose its text by that."""
        await queue.append(stream, entries(b"0"), ttl=_SHORTER)
        await self.expect_short(other, stream)
        rounds = ((queue, other), (queue, other), (other, queue), (queue, queue))
        for epoch, (longer, shorter) in enumerate(rounds, 2):
            for index in range(2):  # for the second, it may be known that nothing is to be done
                await longer.append(stream, entries(b"x", epoch=epoch, first=index))
                await self.expect_long(shorter, stream)
            await shorter.append(stream, entries(b"x", epoch=epoch, first=2), ttl=_SHORTER)
            await self.expect_short(longer, stream)
        await queue.append(stream, entries(b"last", epoch=9))
        await self.expect_long(other, stream)

    @promises("ChunkQueue.append", "A repeat sets it again", cause=_LATE_TTL)
    @requires("expires", "fenced")
    async def test_repeat_without_a_ttl_sets_the_usual_one(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A repeat that stores nothing is an append like any other."""
        await queue.append(stream, entries(b"a"))
        await queue.append(stream, entries(b"b", first=1), ttl=_SHORTER)
        for each in (queue, other):
            await each.append(stream, entries(b"b", first=1))
            await self.expect_long(other, stream)
            await other.append(stream, entries(b"b", first=1), ttl=_SHORTER)
            await self.expect_short(queue, stream)
