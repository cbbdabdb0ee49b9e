"""Checks of trimming: records that are no longer stored cause an error or an explicit gap."""

from __future__ import annotations

import dataclasses

from streamq import Gap, OnRetry, TrimmedError
from streamq.driver import ChunkQueue, StreamId
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._harness import BackendHarness

from ._conditions import needs, requires
from ._promises import promises
from ._records import data_of, entries, numbered
from ._sentences import NEWEST_FIRST, OLDEST_LEFT
from ._streams import StreamChecks, delivered, same_offsets
from ._verdicts import refuses, same, same_records

_OLDEST = (
    "a position whose record is gone leads to the newest record, to nothing or to an error: "
    "reading continues with the oldest record after it"
)


class TrimmingChecks(StreamChecks):
    """Records that are no longer stored are reported, never skipped silently."""

    group = "trimming"

    @promises(
        *OLDEST_LEFT,
        cause="the position of a record of the deleted stream is compared with those of the new "
        "one by place instead of by epoch and index",
    )
    @requires("replay", "ordered")
    async def test_position_of_a_vanished_record_leads_to_the_oldest_one(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader whose record is gone gets the oldest one, from which core detects the gap."""
        await queue.append(stream, entries(*numbered(3, "old")))
        gone = (await self.read_many(queue, stream, 3))[1].position
        await queue.delete(stream)
        await queue.append(stream, entries(*numbered(3, "new"), epoch=2))
        await self.expect(queue, stream, numbered(3, "new"), gone)

    @promises(
        *OLDEST_LEFT,
        cause="a position whose record is gone leads to the newest record, to nothing or to an "
        "error",
    )
    @needs("trim")
    @requires("replay", "ordered")
    async def test_position_of_a_trimmed_record_leads_to_the_oldest_one(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Retention may remove records before a reader has reached them."""
        data = numbered(8)
        await queue.append(stream, entries(*data))
        positions = [record.position for record in await self.read_many(queue, stream, 8)]
        await backend.trim(stream, 3)
        for position in positions[:5]:
            await self.expect(queue, stream, data[5:], position)
        await self.expect(queue, stream, data[7:], positions[6])
        newest = (await queue.describe(stream, last=10)).last
        what = "describe(last=10) of the three records that are left, newest first"
        same_records(data_of(newest), data[:4:-1], what)

    @promises(*OLDEST_LEFT)
    @needs("trim")
    @requires("writable", "replay", "ordered")
    async def test_reader_from_the_beginning_is_refused_with_the_oldest_offset(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A reader must not get the middle of a text as its beginning."""
        await self.write_apart(queue, stream, *"abcdef")
        await backend.trim(stream, 3)  # e, f and the seal
        async with self.reader(queue, stream) as reader:
            for _ in range(2):
                with refuses(TrimmedError, "reading a trimmed stream from its beginning") as caught:
                    await anext(reader)
                same(caught.value.oldest, 5, "the oldest event that is left, in the error")

    @promises(*OLDEST_LEFT)
    @needs("trim")
    @requires("writable", "replay", "ordered")
    async def test_gap_is_one_event_for_readers_that_ask_for_it(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A dashboard may prefer to show the rest, with a mark where events are missing."""
        await self.write_apart(queue, stream, *"abcdef")
        await backend.trim(stream, 3)
        events = await self.read_all(queue, stream, gaps_as_events=True)
        same(events[0], Gap(1, 4, 1), "the first event of a trimmed stream")
        same_records(delivered(events), ["GAP 1-4", "e", "f", "END"], "the events that are left")

    @promises(*OLDEST_LEFT)
    @needs("trim")
    @requires("writable", "replay", "ordered")
    async def test_cursors_before_the_head_are_refused_and_later_ones_work(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A browser that was away too long must get an error, and others must not."""
        await self.write_apart(queue, stream, *"abcdef")
        cursors = await self.cursors(queue, stream)
        await backend.trim(stream, 3)
        for place, cursor in enumerate(cursors[:6]):
            async with self.reader(other, stream, cursor) as reader:
                if place < 4:
                    what = f"reading after event {place}, when events 1 to 4 were removed"
                    with refuses(TrimmedError, what, cause=_OLDEST) as caught:
                        await anext(reader)
                    same(caught.value.oldest, 5, "the oldest event that is left, in the error")
                else:
                    same_records(
                        delivered([event async for event in reader]),
                        [*"abcdef"[place:], "END"],
                        f"the events after event {place}, which is still stored",
                    )
            if place < 4:
                events = await self.read_all(other, stream, cursor, gaps_as_events=True)
                story = [f"GAP {place + 1}-4", "e", "f", "END"]
                what = f"the events after event {place}, with gaps as events"
                same_records(delivered(events), story, what, cause=_OLDEST)

    @promises(
        "Capabilities.replay",
        "every position stays valid, later, in other processes, and after its record was removed",
        cause="a waiting read looks its position up by number of records, or fails when the "
        "record before it is gone",
    )
    @needs("trim")
    @requires("writable", "replay", "ordered")
    async def test_reader_past_the_trimmed_records_is_not_affected(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A reader that has read the trimmed records loses nothing, even while it waits."""
        async with self.writer(queue, stream) as writer, self.reader(queue, stream) as reader:
            for text in "abc":
                await writer.send_chunk(text)
                await writer.flush()
            first = [await anext(reader) for _ in "abc"]
            same_records(delivered(first), [*"abc"], "the first three events")
            waiting = await self.blocked(reader.read_batch(max_wait=self.patience))
            await backend.trim(stream, 1)
            await writer.send_chunk("d")
            what = "the events after those that were removed, which the reader has read"
            same_records(delivered(await waiting), ["d"], what)
            await writer.finish()
            same_records(delivered([event async for event in reader]), ["END"], "the ending")

    @promises(*OLDEST_LEFT)
    @needs("trim")
    @requires("writable", "replay", "ordered")
    async def test_chunk_that_lost_its_first_part_is_reported_as_missing(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Half of a document must never be delivered as the whole document."""
        small = dataclasses.replace(queue.capabilities, max_record_bytes=5_000)
        await self.write_apart(FaultyQueue(queue, capabilities=small), stream, "x" * 15_000, "b")
        await backend.trim(stream, 4)  # the last parts of it, b and the seal
        what = "reading a chunk whose first part was removed"
        with refuses(TrimmedError, what, cause=_OLDEST) as caught:
            await self.read_all(queue, stream)
        same(caught.value.oldest, 2, "the oldest event that is left, in the error")
        events = await self.read_all(queue, stream, gaps_as_events=True)
        same_records(delivered(events), ["GAP 1-1", "b", "END"], "the events that are left")

    @promises(*NEWEST_FIRST)
    @needs("trim")
    @requires("writable", "replay", "ordered")
    async def test_next_attempt_counts_on_from_what_is_left(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Offsets are kept in browsers and logs, so trimming must not restart them."""
        first = await self.writer(queue, stream, epoch=1, on_retry=OnRetry.RESUME)
        for text in "abc":
            await first.send_chunk(text)
            await first.flush()
        await first.aclose()
        await backend.trim(stream, 1)
        async with self.writer(other, stream, epoch=2, on_retry=OnRetry.RESUME) as second:
            same(
                second.position,
                3,
                "how many chunks the resuming attempt takes for stored",
                cause="describe(last=...) does not return the newest record of a trimmed stream",
            )
            await second.send_chunk("d")
        events = await self.read_all(queue, stream, gaps_as_events=True)
        story = ["GAP 1-2", "c", "d", "END"]
        same_records(delivered(events), story, "the events of both attempts that are left")
        same_offsets(events, [2, 3, 4, 5])
