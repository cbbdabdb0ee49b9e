"""Checks of pages: a backend's own limits are not limits of a call, and bounds hold to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from streamq.driver import START, ChunkQueue, Stored, StreamId
from streamq.testing._harness import BackendHarness

from ._base import Checks
from ._conditions import requires
from ._promises import promises
from ._records import data_of, entries, numbered
from ._verdicts import broken, holds, same, same_records

_APPENDED_AT_ONCE = 500
_LONGEST_COMPARED = 20


class PageChecks(Checks):
    """One call returns all that it has to, however many requests that takes."""

    group = "pages"

    async def filled(self, queue: ChunkQueue, stream: StreamId, page: int) -> list[bytes]:
        """Store two and a half pages of records; return their data."""
        data = numbered(page * 5 // 2)
        for first in range(0, len(data), _APPENDED_AT_ONCE):
            batch = entries(*data[first : first + _APPENDED_AT_ONCE], first=first)
            if queue.capabilities.fenced:
                await self.until_answered(partial(queue.append, stream, batch))
            else:
                await queue.append(stream, batch)
        return data

    def compare(self, expected: list[bytes], found: Sequence[Stored], what: str) -> None:
        """Fail unless these are the records; show where they differ, not thousands of them."""
        __tracebackhide__ = True
        got = data_of(found)
        if got == expected:
            return
        pairs = enumerate(zip(expected, got, strict=False))
        least = min(len(expected), len(got))
        place = next((at for at, (one, two) in pairs if one != two), least)
        broken(
            what,
            expected=f"{len(expected)} records, from record {place} on {_short(expected, place)}",
            seen=f"{len(got)} records, from record {place} on {_short(got, place)}",
        )

    @promises(
        "ChunkQueue.read",
        "With ``capabilities.ordered`` no record is left out: if fewer are returned than both"
        " limits allow, they are all",
        cause="a page of the server was taken for the end: request pages until one is not full",
    )
    @requires("replay", "ordered")
    async def test_read_returns_more_than_a_page_of_the_server(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A takeover reads to the end; if it stops early, two chunks get the same number."""
        page = backend.read_page
        data = await self.filled(queue, stream, page)
        size = sum(map(len, data))
        for reader in (other, queue):
            found = await self.read(reader, stream, max_records=2 * len(data), max_wait=0)
            self.compare(data, found, "a read without a bound")
        # A read that may wait must not stop earlier.
        waited = await self.read(other, stream, max_records=len(data), max_wait=self.patience)
        self.compare(data, waited, "a read that may wait")
        for at in (page - 1, page):
            rest = await self.read(other, stream, found[at - 1].position, max_records=10 * page)
            self.compare(data[at:], rest, f"a read after record {at}")
        for most in (page + 1, len(data) - 1):
            some = await self.read(other, stream, max_records=most, max_wait=0)
            self.compare(data[:most], some, f"a read with max_records={most}")
        for most in (page + 1, len(data) - 1):
            bound = sum(map(len, data[:most]))
            some = await self.read(
                other, stream, max_records=len(data), max_bytes=bound, max_wait=0
            )
            self.compare(data[:most], some, f"a read with max_bytes={bound} of {size}")

    @promises(
        "ChunkQueue.read",
        "With ``capabilities.ordered`` no record is left out: if fewer are returned than both"
        " limits allow, they are all",
        cause="a server's limit of bytes was taken for the end: request pages until one is empty",
    )
    @requires("replay", "ordered")
    async def test_read_returns_more_bytes_than_a_page_of_the_server(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Images and documents fill a page with a handful of records."""
        size = min(backend.read_page_bytes // 10, queue.capabilities.max_record_bytes)
        count = backend.read_page_bytes * 5 // 2 // size
        for index in range(count):
            record = entries(_large(index, size), first=index)
            if queue.capabilities.fenced:
                await self.until_answered(partial(queue.append, stream, record))
            else:
                await queue.append(stream, record)
        for room in (count * size, count * size - 1, size, size - 1):
            found = await self.read(other, stream, max_bytes=room, max_wait=0)
            expected = max(1, room // size)
            got = [int(record.data[:8]) for record in found]
            what = f"the indexes that a read returns with max_bytes={room}, records of {size}"
            same(got, list(range(expected)), what)
            altered = [at for at, item in enumerate(found) if item.data != _large(at, size)]
            same(altered, [], "the indexes of records that came back altered")

    @promises("ChunkQueue.delete", "Remove a stream and everything in it")
    @promises(
        "StreamInfo.last",
        "The newest records, newest first, as many as were requested and exist.",
        cause="one page of the server was taken for the whole stream",
    )
    @requires("replay")
    async def test_describe_and_delete_go_beyond_a_page_of_the_server(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A takeover that gets fewer records than it requested takes them for the whole stream."""
        data = await self.filled(queue, stream, backend.read_page)
        for last in (51, backend.read_page + 1, len(data) - 1, len(data) + 1):
            newest = (await other.describe(stream, last=last)).last
            self.compare(data[: -last - 1 : -1], newest, f"a description with last={last}")
        await other.delete(stream)
        holds(
            await self.is_gone(queue, stream),
            "a stream of several pages",
            expected="it is gone after delete",
            seen="it can be described",
        )
        if queue.capabilities.erases and backend.supplies("peek"):
            left = len(await backend.peek(stream))
            same(left, 0, "the number of records that peek() shows after delete")

    @promises(
        "ChunkQueue.read",
        "Stop before exceeding this many bytes of data, but always return one record.",
    )
    @promises("ChunkQueue.read", "Most records to return, at least 1.")
    @requires("replay", "ordered")
    async def test_bounds_of_a_read_hold_to_the_record_and_to_the_byte(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Callers count with the bounds: a record more does not fit, one less looks like the
        end."""
        sizes = [5, 1, 1, 300, 7, 2, 70_000, 1, 3, 1, 9]
        data = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
        await queue.append(stream, entries(b"first"))
        start = (await self.read(queue, stream))[-1].position
        # From now on this connection follows the stream, and may answer reads by itself.
        following = await self.blocked(self.read(queue, stream, start))
        await other.append(stream, entries(*data, first=1))
        woken = data_of(await following)
        same_records(woken, data[: len(woken)], "what a read that waited returned")
        everything = await self.read(other, stream, start, max_wait=0)
        self.compare(data, everything, "a read without a bound")
        positions = [start, *(record.position for record in everything)]

        async def compare(at: int, most: int, room: int, reader: ChunkQueue, wait: float) -> None:
            found = await self.read(
                reader, stream, positions[at], max_records=most, max_bytes=room, max_wait=wait
            )
            bounds = f"max_records={most}, max_bytes={room}, max_wait={wait:g}"
            expected = _fitting(data[at:], most, room)
            self.compare(expected, found, f"a read after record {at} with {bounds}")

        for at in (0, 3, 6):
            rooms = {sum(sizes[at : at + count]) - less for count in (2, 4, 8) for less in (0, 1)}
            for reader, wait in ((other, 0.0), (queue, self.patience)):
                for room in sorted(rooms):
                    await compare(at, len(data), max(1, room), reader, wait)
                for most in (1, 2, 4):
                    await compare(at, most, 10**6, reader, wait)

    @promises("ChunkQueue", "Safe to use from many tasks of one event loop.")
    @requires("replay", "ordered")
    async def test_reads_of_one_connection_do_not_disturb_each_other(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A gateway reads for hundreds of browsers at once, each at a place of its own."""
        data = numbered(_LONGEST_COMPARED)
        away = StreamId(stream.tenant, stream.name + "+")
        await queue.append(stream, entries(*data))
        await queue.append(away, entries(*numbered(3, "away")))
        found = await self.read_many(queue, stream, len(data))
        places = [START, *(record.position for record in found)]
        reads = [
            self.read(queue, stream, place, max_records=1 + at % 4, max_wait=0.2 * (at % 2))
            for at, place in enumerate(places[:-1])
        ]
        reads += [self.read(queue, away, max_wait=0), self.read(queue, away, max_records=2)]
        *mine, all_away, two_away = await asyncio.gather(*reads)
        for at, batch in enumerate(mine):
            self.compare(data[at : at + 1 + at % 4], batch, f"the read after record {at}")
        self.compare(numbered(3, "away"), all_away, "a read of another stream")
        self.compare(numbered(2, "away"), two_away, "a read of two records of another stream")


def _short(data: list[bytes], place: int) -> str:
    return str([item[:20] for item in data[place : place + 3]])


def _large(index: int, size: int) -> bytes:
    return b"%08d" % index + bytes([index % 256]) * (size - 8)


def _fitting(data: list[bytes], most: int, room: int) -> list[bytes]:
    found: list[bytes] = []
    for item in data[:most]:
        room -= len(item)
        if found and room < 0:
            break
        found.append(item)
    return found
