"""Checks of readers that join late: a live stream, within a record, after the end."""

from __future__ import annotations

from streamq import OnRetry, Seal, SealState
from streamq.driver import ChunkQueue, StreamId

from ._conditions import requires
from ._promises import promises
from ._sentences import NEWEST_FIRST, REFLECTED
from ._streams import StreamChecks, delivered, same_offsets, values
from ._verdicts import same, same_records

_TAIL = "describe(last=...) lags behind, or its positions mean another place than those of read()"


class LateJoinChecks(StreamChecks):
    """A reader that joins late gets every event that it requested."""

    group = "late join"

    @promises(
        "Capabilities.replay",
        "Reading removes nothing",
    )
    @requires("writable", "replay")
    async def test_late_reader_gets_everything_and_the_end(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser opened after the end shows the same text."""
        await self.write(queue, stream, "a", "b", "c")
        events = await self.read_all(other, stream)
        same_records(values(events), ["a", "b", "c"], "the chunks that a late reader got")
        same(events[-1], Seal(4, 1, SealState.END), "the ending that a late reader got")

    @promises(
        "Capabilities.ordered",
        "No reader gets a record before another one that it will get later, so a position never "
        "hides an earlier record.",
    )
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

    @promises(*NEWEST_FIRST)
    @promises(*REFLECTED)
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
            story = [*map(str, range(sent, 9)), "END"]
            what = f"the events of a reader that joined after {sent} chunks"
            same_records(delivered(events), story, what, cause=_TAIL)
            same_offsets(events, range(sent + 1, 11))

    @promises(*REFLECTED)
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
        same_records(values(events), ["new"], "the chunks after the tail", cause=_TAIL)
        same_offsets(events, [2, 3])

    @promises(*NEWEST_FIRST)
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
        what = "the events from the latest value on"
        same_records(delivered(events), ["c", "d", "END"], what, cause=_TAIL)
        same_offsets(events, [3, 4, 5])
        again = await self.read_all(other, stream, "last")
        same(again, events[1:], "the events from the latest value on, after the end", cause=_TAIL)

    @promises(*NEWEST_FIRST)
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
            what = "the events from the latest value on, which is the new attempt's"
            same_records(delivered(events), ["new", "END"], what, cause=_TAIL)
            same_offsets(events, [3, 4])
            await reader.aclose()
        await third.aclose()

    @promises(
        "Stored.position",
        "meaningful to this driver only, valid later and in other processes",
    )
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
            events = [event async for event in reader]
            what = f"the events after event {place}, which is within a record"
            same_records(delivered(events), [*"abcde"[place:], "END"], what)
            await reader.aclose()

    @promises(*REFLECTED)
    @requires("writable", "replay")
    async def test_joining_at_the_tail_after_the_end_gives_the_ending(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The stream has ended, and the reader must learn that at once."""
        await self.write(queue, stream, "a", "b")
        events = await self.read_all(other, stream, "tail")
        what = "the events from the tail of a stream that has ended"
        same(events, [Seal(3, 1, SealState.END)], what, cause=_TAIL)

    @promises(
        "ChunkQueue.describe",
        "The stream does not exist, or has expired.",
    )
    @requires("writable", "replay")
    async def test_joining_at_the_tail_of_a_missing_stream_gives_all_of_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Before the first record, "from now on" and "from the beginning" are the same."""
        async with self.reader(other, stream, "tail") as reader:
            await self.write(queue, stream, "a")
            events = [event async for event in reader]
            what = "the events of a reader that came before the stream"
            same_records(delivered(events), ["a", "END"], what)
