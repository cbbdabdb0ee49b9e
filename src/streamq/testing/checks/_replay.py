"""Checks of replay: reading again from any position, on any connection, by many readers."""

from __future__ import annotations

import asyncio

from streamq.driver import ChunkQueue, StreamId
from streamq.testing._harness import OpenQueue

from ._conditions import requires
from ._records import data_of, entries, new_stream, numbered
from ._streams import StreamChecks, values


class ReplayChecks(StreamChecks):
    """Reading can be repeated and resumed from any position, by any reader."""

    group = "replay"

    @requires("replay", "ordered")
    async def test_read_goes_on_after_every_position(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser that reconnects with its last id gets the next chunk, once."""
        data = numbered(8)
        await queue.append(stream, entries(*data))
        found = await self.read_many(queue, stream, len(data))
        for at, record in enumerate(found):
            rest = await self.read(queue, stream, record.position, max_wait=0)
            assert data[at + 1 :] == data_of(rest)

    @requires("replay")
    async def test_reading_removes_nothing(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll that dies after reading must be able to read the same records again."""
        data = numbered(5)
        await queue.append(stream, entries(*data))
        for _ in range(3):
            await self.expect(queue, stream, data)

    @requires("replay", "ordered")
    async def test_position_is_valid_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The next poll, or the reconnected browser, often reaches another process."""
        await queue.append(stream, entries(*numbered(6)))
        found = await self.read_many(queue, stream, 6)
        rest = await self.read(await open_queue(), stream, found[2].position, max_wait=0)
        assert found[3:] == list(rest)

    @requires("replay", "ordered")
    async def test_read_at_once_leaves_out_nothing_that_is_stored(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """A takeover reads all stored records and continues their numbering; if a record were left
        out, two chunks would get the same number."""
        other, noise, data = await open_queue(), new_stream(), numbered(300)
        for first in range(0, len(data), 50):
            await other.append(stream, entries(*data[first : first + 50], first=first))
            await other.append(noise, entries(*data[first : first + 50], first=first))
            found = await self.read(queue, stream, max_records=1_000, max_wait=0)
            assert data[: first + 50] == data_of(found)

    async def test_positions_are_short_and_printable(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Positions travel in cursors, URLs and workflow history."""
        await queue.append(stream, entries(*numbered(3), epoch=2**62))
        positions = [record.position for record in await self.read_many(queue, stream, 3)]
        assert len(set(positions)) == 3
        for position in positions:
            # Without replay, a position also acknowledges the records before it, elsewhere.
            assert 0 < len(position) <= (1_024 if queue.capabilities.replay else 16_384)
            assert position.isprintable()

    @requires("fan_out")
    async def test_ten_readers_each_see_everything(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Several people watch the same run; no reader takes chunks away from another."""
        other = await open_queue()
        data = numbered(40)
        readers = [
            self.begin(self.read_many((queue, other)[i % 2], stream, len(data))) for i in range(10)
        ]
        for first in range(0, len(data), 4):
            await queue.append(stream, entries(*data[first : first + 4], first=first))
        # Half of the time that a read waits: a reader that is not woken, but polls, is too late.
        async with asyncio.timeout(self.patience / 2):
            results = await asyncio.gather(*readers)
        for found in results:
            assert data == data_of(found)

    @requires("writable", "replay", "fan_out")
    async def test_ten_live_readers_each_get_everything(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Reading removes nothing, and an offset means the same event to every reader."""
        readers = [self.begin(self.read_all(used, stream)) for used in (queue, other) * 5]
        await asyncio.sleep(0)
        await self.write(queue, stream, *map(str, range(300)))
        results = await asyncio.gather(*readers)
        assert all(result == results[0] for result in results)
        assert [event.offset for event in results[0]] == list(range(1, 302))

    @requires("writable", "replay")
    async def test_cursor_goes_on_with_exactly_the_next_chunk(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Packing is invisible: a reader can resume at every event, over another connection."""
        await self.write(queue, stream, *map(str, range(12)))
        cursors = []
        async with self.reader(queue, stream) as reader:
            async for _ in reader:
                cursors.append(reader.cursor)
            assert reader.statistics().records < 12, "the chunks should be packed for this test"
        for place, cursor in enumerate(cursors[:-1], 1):
            async with self.reader(other, stream, cursor) as reader:
                events = [event async for event in reader]
            assert values(events) == [str(i) for i in range(place, 12)]
