"""Checks of replay: reading again from any position, on any connection, by many readers."""

from __future__ import annotations

import asyncio

from streamq.driver import START, ChunkQueue, StreamId
from streamq.testing._harness import OpenQueue
from streamq.testing._shown import shown

from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._sentences import EVERY_READER
from ._streams import StreamChecks, values
from ._verdicts import holds, same_records

_POSITION = (
    "the position means the record itself instead of the place after it, or another connection "
    "understands it differently: reading continues after the record"
)
_WAKE_UP = (
    "a reader is not woken by an append and finds the records only when it polls, or the wake-up "
    "reaches one reader of a stream and not all"
)


class ReplayChecks(StreamChecks):
    """Reading can be repeated and resumed from any position, by any reader."""

    group = "replay"

    @promises(
        "ChunkQueue.read",
        "Return stored records after a position, oldest first, waiting if there are none.",
    )
    @promises(
        "ChunkQueue.read",
        "A position of this stream, or :data:`START`.",
    )
    @promises(
        "Stored.position",
        "The place after this record, where reading continues",
    )
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
            what = f"the records after the position of record {at + 1}"
            same_records(data_of(rest), data[at + 1 :], what, cause=_POSITION)

    @promises(
        "ChunkQueue.read",
        "Reading never removes anything and may be repeated (``capabilities.replay``).",
        cause="a record is acknowledged, or its place in a consumer group moves, when it is read",
    )
    @promises(
        "Capabilities.replay",
        "Reading removes nothing",
    )
    @requires("replay")
    async def test_reading_removes_nothing(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll that dies after reading must be able to read the same records again."""
        data = numbered(5)
        await queue.append(stream, entries(*data))
        for _ in range(3):
            await self.expect(queue, stream, data)

    @promises(
        "Stored.position",
        "meaningful to this driver only, valid later and in other processes",
    )
    @requires("replay", "ordered")
    async def test_position_is_valid_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The next poll, or the reconnected browser, often reaches another process."""
        await queue.append(stream, entries(*numbered(6)))
        found = await self.read_many(queue, stream, 6)
        rest = await self.read(await open_queue(), stream, found[2].position, max_wait=0)
        what = "the records after a position of another connection"
        same_records(list(rest), found[3:], what, cause=_POSITION)

    @promises(
        "ChunkQueue.read",
        "With ``capabilities.ordered`` no record is left out: if fewer are returned than both "
        "limits allow, they are all whose append had returned, in any process, when the call "
        "began.",
    )
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
            same_records(
                data_of(found),
                data[: first + 50],
                "a read without waiting, after appends on another connection have returned",
                cause="the read returns what has arrived so far instead of all that is stored: a "
                "tail in memory that lags behind, a page of the server taken for the end, or a "
                "snapshot of before the append",
            )

    @promises(
        "ChunkQueue.read",
        "With ``capabilities.ordered`` no record is left out: if fewer are returned than both "
        "limits allow, they are all whose append had returned, in any process, when the call "
        "began.",
    )
    @requires("replay", "ordered")
    async def test_read_at_once_goes_beyond_what_woke_the_read_before(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """What wakes a reader may be the first of many records; a takeover reads the rest."""
        data, position = numbered(400), START
        for first in range(0, len(data), 100):
            waiting = self.begin(self.read(queue, stream, position))
            await asyncio.wait({waiting}, timeout=0.02)  # nothing tells when it waits
            some = data[first : first + 100]
            await other.append(stream, entries(*some, first=first))
            found = [*await waiting]
            position = found[-1].position if found else position
            found += await self.read(queue, stream, position, max_wait=0)
            same_records(
                data_of(found),
                some,
                "a read that waited, and a read without waiting right after it",
                cause="a tail in memory, which still fills, is taken for all that is stored",
            )
            position = found[-1].position

    @promises(
        "Stored.position",
        "short, printable",
    )
    @promises(
        "Stored.position",
        "No two records of a stream have the same one.",
    )
    @promises(
        "Stored.position",
        "It has at most 1,024 characters, without ``capabilities.replay`` at most 16,384.",
    )
    async def test_positions_are_short_and_printable(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Positions travel in cursors, URLs and workflow history."""
        await queue.append(stream, entries(*numbered(3), epoch=2**62))
        positions = [record.position for record in await self.read_many(queue, stream, 3)]
        holds(
            len(set(positions)) == 3,
            "the positions of three records",
            expected="three different ones",
            seen=positions,
            cause="the position is that of the append or of the page instead of the record",
        )
        for position in positions:
            # Without replay, a position also acknowledges the records before it, elsewhere.
            most = 1_024 if queue.capabilities.replay else 16_384
            holds(
                0 < len(position) <= most and position.isprintable(),
                "a position",
                expected=f"1 to {most:,} printable characters",
                seen=f"{len(position):,} characters: {shown(position)}",
                cause="the position holds raw bytes or a whole token of the server: encode it",
            )

    @promises(
        *EVERY_READER,
        cause="a record goes to one of the readers that wait: they share a subscription, a "
        "consumer group or one future",
    )
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
        what = "ten reads that wait while records are appended"
        async with within(self.patience / 2, what, cause=_WAKE_UP):
            results = await asyncio.gather(*readers)
        for number, found in enumerate(results, 1):
            same_records(data_of(found), data, f"the records that reader {number} of ten got")

    @promises(*EVERY_READER)
    @requires("writable", "replay", "fan_out")
    async def test_ten_live_readers_each_get_everything(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Reading removes nothing, and an offset means the same event to every reader."""
        readers = [self.begin(self.read_all(used, stream)) for used in (queue, other) * 5]
        await asyncio.sleep(0)
        await self.write(queue, stream, *map(str, range(300)))
        results = await asyncio.gather(*readers)
        self.expect_same(results, [*map(str, range(300)), "END"])

    @promises(
        "Capabilities.replay",
        "every position stays valid, later, in other processes, and after its record was removed",
    )
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
            holds(
                reader.statistics().records < 12,
                "how streamq's writer has packed twelve chunks",
                expected="fewer than twelve records",
                seen=f"{reader.statistics().records} records",
                cause="records are returned twice",
            )
        for place, cursor in enumerate(cursors[:-1], 1):
            async with self.reader(other, stream, cursor) as reader:
                events = [event async for event in reader]
            same_records(
                values(events),
                [str(i) for i in range(place, 12)],
                f"the chunks after the cursor of event {place}",
                cause=_POSITION,
            )
