"""Checks of reading: fidelity, order, bounds and positions."""

from __future__ import annotations

import random

from streamq.driver import ChunkQueue, StreamId

from ._harness import Harness, OpenQueue, data_of, entries, numbered, require

_LARGE_BYTES = 8 * 2**20


class ReadingChecks(Harness):
    """What a read returns when there is something to return."""

    async def test_bytes_come_back_unchanged(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Records may be compressed or encrypted: every byte value counts, also none."""
        data = [b"", bytes(range(256)), b"\0", b"\r\n", b"\xff\xfe", b"' -- %s {}", b""]
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    async def test_largest_declared_record_fits(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core splits or refuses by the declared limit; a smaller real one would poison streams."""
        size = min(queue.capabilities.max_record_bytes, _LARGE_BYTES)
        large = random.Random(1).randbytes(size)
        await queue.append(stream, entries(b"before", large, b"after"))
        found = await self.read_many(queue, stream, 3)
        # Compared by hand: pytest would take minutes to explain a difference of megabytes.
        assert [6, size, 5] == [len(record.data) for record in found]
        assert large == found[1].data, "the large record was altered"

    async def test_order_holds_across_appends(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Tokens in the wrong order are not text."""
        data = numbered(30)
        for i, item in enumerate(data):
            await queue.append(stream, entries(item, first=i))
        await self.expect(queue, stream, data)

    async def test_many_entries_in_one_append(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A writer that outruns the backend sends large batches."""
        data = numbered(500)
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    async def test_indexes_may_have_gaps(self, queue: ChunkQueue, stream: StreamId) -> None:
        """An index counts chunks, not records: a packed record moves it on by more than one."""
        data = numbered(4)
        for i, item in enumerate(data):
            await queue.append(stream, entries(item, first=i * 17))
        await self.expect(queue, stream, data)

    async def test_read_goes_on_after_every_position(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser that reconnects with the last id it saw gets the next chunk, and only once."""
        require(queue, "replay", "ordered")
        data = numbered(8)
        await queue.append(stream, entries(*data))
        found = await self.read_many(queue, stream, len(data))
        for at, record in enumerate(found):
            rest = await self.read(queue, stream, record.position, max_wait=0)
            assert data[at + 1 :] == data_of(rest)

    async def test_reading_removes_nothing(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll that dies after reading must be able to read the same again."""
        require(queue, "replay")
        data = numbered(5)
        await queue.append(stream, entries(*data))
        for _ in range(3):
            await self.expect(queue, stream, data)

    async def test_position_is_valid_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The next poll, or the reconnected browser, often reaches another process."""
        require(queue, "replay", "ordered")
        await queue.append(stream, entries(*numbered(6)))
        found = await self.read_many(queue, stream, 6)
        rest = await self.read(await open_queue(), stream, found[2].position, max_wait=0)
        assert found[3:] == list(rest)

    async def test_positions_are_short_and_printable(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Positions travel in cursors, URLs and workflow history."""
        await queue.append(stream, entries(*numbered(3), epoch=2**62))
        positions = [record.position for record in await self.read_many(queue, stream, 3)]
        assert len(set(positions)) == 3
        for position in positions:
            assert 0 < len(position) <= 1024
            assert position.isprintable()

    async def test_position_of_a_vanished_record_leads_to_the_oldest_one(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader whose place is gone is shown what there is: core then sees the gap."""
        require(queue, "replay", "ordered")
        await queue.append(stream, entries(*numbered(3, "old")))
        gone = (await self.read_many(queue, stream, 3))[1].position
        await queue.delete(stream)
        await queue.append(stream, entries(*numbered(3, "new"), epoch=2))
        await self.expect(queue, stream, numbered(3, "new"), gone)

    async def test_max_records_is_obeyed(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll activity returns a bounded batch, and the next one goes on from there."""
        require(queue, "ordered")
        data = numbered(10)
        await queue.append(stream, entries(*data))
        found: list[bytes] = []
        position = ""
        while len(found) < len(data):
            batch = await self.read(queue, stream, position, max_records=3)
            assert 1 <= len(batch) <= 3
            found += data_of(batch)
            position = batch[-1].position
        assert data == found

    async def test_max_bytes_is_obeyed(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A batch has to fit into one Temporal payload."""
        require(queue, "ordered")
        data = [bytes([i]) * 100 for i in range(10)]
        await queue.append(stream, entries(*data))
        found: list[bytes] = []
        position = ""
        while len(found) < len(data):
            batch = await self.read(queue, stream, position, max_bytes=250)
            assert 1 <= len(batch) <= 2
            found += data_of(batch)
            position = batch[-1].position
        assert data == found

    async def test_one_record_is_returned_whatever_its_size(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A record above the caller's bound must not stop the stream for ever."""
        await queue.append(stream, entries(b"x" * 5000, b"y" * 5000))
        batch = await self.read(queue, stream, max_bytes=10)
        assert len(batch) == 1
