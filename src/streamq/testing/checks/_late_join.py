"""Checks of readers that join late: a live stream, within a record, after the end."""

from __future__ import annotations

from streamq import OnRetry, Seal, SealState
from streamq.driver import ChunkQueue, StreamId

from ._conditions import requires
from ._streams import StreamChecks, delivered, values


class LateJoinChecks(StreamChecks):
    """A reader that joins late gets every event that it requested."""

    group = "late join"

    @requires("writable", "replay")
    async def test_late_reader_gets_everything_and_the_end(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser opened after the end shows the same text."""
        await self.write(queue, stream, "a", "b", "c")
        events = await self.read_all(other, stream)
        assert values(events) == ["a", "b", "c"]
        assert events[-1] == Seal(4, 1, SealState.END)

    @requires("writable", "replay", "fan_out")
    async def test_joining_a_live_stream_at_any_moment_gives_all_of_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A page that is opened at any moment shows the run from its first word."""
        readers = [self.follow(other, stream)]
        async with self.writer(queue, stream) as writer:
            for i in range(12):
                await writer.send_chunk(str(i))
                if i % 3 == 2:
                    await writer.flush()
                readers.append(self.follow((queue, other)[i % 2], stream))
        story = [*map(str, range(12)), "END"]
        self.expect_same([await reader for reader in readers], story)

    @requires("writable", "replay", "fan_out")
    async def test_joining_at_the_tail_gives_exactly_what_comes_after(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Joining at the tail starts exactly there, with offsets that count all earlier events."""
        readers = []
        async with self.writer(queue, stream) as writer:
            for i in range(9):
                await writer.send_chunk(str(i))
                if i % 2:
                    await writer.flush()
                    reader = await self.reader(other, stream, "tail")
                    readers.append((i + 1, reader))
        for sent, reader in readers:
            events = [event async for event in reader]
            await reader.aclose()
            assert delivered(events) == [*map(str, range(sent, 9)), "END"]
            assert [event.offset for event in events] == list(range(sent + 1, 11))

    @requires("writable", "replay")
    async def test_live_tail_misses_nothing_after_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The tail is located once, at open: events before the first read are delivered."""
        async with self.writer(queue, stream) as writer:
            await writer.send_chunk("old")
            await writer.flush()
            async with self.reader(other, stream, "tail") as reader:
                await writer.send_chunk("new")
                await writer.finish()
                events = [event async for event in reader]
        assert values(events) == ["new"]
        assert [event.offset for event in events] == [2, 3]

    @requires("writable", "replay")
    async def test_joining_at_the_latest_value_gives_it_and_all_after_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A dashboard shows the current value at once, misses nothing after it, and learns of the
        end."""
        async with self.writer(queue, stream) as writer:
            await writer.send_chunk("a")
            await writer.flush()
            for text in "bc":  # in one record
                await writer.send_chunk(text)
            await writer.flush()
            async with self.reader(other, stream, "last") as reader:
                await writer.send_chunk("d")
                await writer.finish()
                events = [event async for event in reader]
        assert delivered(events) == ["c", "d", "END"]
        assert [event.offset for event in events] == [3, 4, 5]
        assert await self.read_all(other, stream, "last") == events[1:]

    @requires("writable", "replay")
    async def test_latest_value_is_never_one_that_a_reset_has_voided(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """After a reset there is no value until the new attempt sends one; an attempt that resumes
        keeps the value of its predecessor."""
        first = await self.writer(queue, stream)
        await first.send_chunk("old")
        await first.aclose()
        second = await self.writer(other, stream)
        await second.flush()
        early = await self.reader(queue, stream, "last")
        await second.send_chunk("new")
        await second.flush()
        third = await self.writer(queue, stream, on_retry=OnRetry.RESUME)
        late = await self.reader(other, stream, "last")
        await second.aclose()
        await third.finish()
        for reader in (early, late):
            events = [event async for event in reader]
            assert delivered(events) == ["new", "END"]
            assert [event.offset for event in events] == [3, 4]
            await reader.aclose()
        await third.aclose()

    @requires("writable", "replay")
    async def test_joining_inside_a_packed_record_of_a_live_stream(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader that moves to another process mid-record repeats nothing and skips nothing."""
        async with self.writer(queue, stream) as writer:
            for text in "abcd":
                await writer.send_chunk(text)
            await writer.flush()
            cursors = []
            async with self.reader(queue, stream) as reader:
                for _ in "abc":
                    await anext(reader)
                    cursors.append(reader.cursor)
            moved = [await self.reader(other, stream, cursor) for cursor in cursors]
            await writer.send_chunk("e")
        for place, reader in enumerate(moved, 1):
            assert delivered([event async for event in reader]) == [*"abcde"[place:], "END"]
            await reader.aclose()

    @requires("writable", "replay")
    async def test_joining_at_the_tail_after_the_end_gives_the_ending(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The stream has ended, and the reader must learn that at once."""
        await self.write(queue, stream, "a", "b")
        assert await self.read_all(other, stream, "tail") == [Seal(3, 1, SealState.END)]

    @requires("writable", "replay")
    async def test_joining_at_the_tail_of_a_missing_stream_gives_all_of_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Before the first record, "from now on" and "from the beginning" are the same."""
        async with self.reader(other, stream, "tail") as reader:
            await self.write(queue, stream, "a")
            assert delivered([event async for event in reader]) == ["a", "END"]
