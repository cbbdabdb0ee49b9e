"""Checks of order: records come as they were appended, and a repeated append adds nothing."""

from __future__ import annotations

import asyncio
from functools import partial

from streamq._retry import RetryPolicy
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.testing._harness import OpenQueue

from ._base import Checks
from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._verdicts import same_records


class OrderingChecks(Checks):
    """Records are read in the order in which they were appended, each once."""

    group = "ordering"

    @promises(
        "Capabilities.ordered",
        "For the appends of one writer, it is the order of the calls.",
    )
    @requires("ordered")
    async def test_order_holds_across_appends(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Tokens in the wrong order make no text."""
        data = numbered(30)
        for i, item in enumerate(data):
            await queue.append(stream, entries(item, first=i))
        await self.expect(queue, stream, data)

    @promises(
        "Entry",
        "``(epoch, index)`` identifies it within its stream and orders it: entries of one epoch "
        "have a growing index, and a larger epoch supersedes every smaller one.",
    )
    @promises(
        "Entry.epoch",
        "Epochs are compared as numbers.",
        cause="10 is sorted before 9: numbers are compared as text; write them with leading zeros",
    )
    @promises(
        "Entry.index",
        "Indexes are compared as numbers.",
    )
    @requires("ordered")
    async def test_epochs_and_indexes_are_compared_as_numbers(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """As text, 10 sorts before 9, and a stream would break at its tenth record."""
        ids = [(9, 0), (9, 9), (9, 10), (9, 100), (10, 0), (10, 9), (10, 10), (2**62, 3)]
        ids.append((2**63 - 1, 0))
        for epoch, index in ids:
            await queue.append(stream, [Entry(epoch, index, f"{epoch}.{index}".encode())])
        found = await self.expect(queue, stream, [f"{e}.{i}".encode() for e, i in ids])
        if not queue.capabilities.replay:
            return
        for at, record in enumerate(found):
            rest = await self.read(queue, stream, record.position, max_wait=0)
            same_records(
                data_of(rest),
                data_of(found[at + 1 :]),
                f"the records after the position of record {at + 1}",
                cause="positions are compared as text, or lose digits of a large number",
            )

    @promises(
        "ChunkQueue.append",
        "An entry of the same epoch whose index is at or below the newest one is skipped without "
        "error: an append whose acknowledgement was lost is repeated that way.",
        cause="the entry is stored again: compare (epoch, index) with the newest entry within "
        "the step that stores, as new_entries() of streamq.driver does",
    )
    @requires("fenced")
    async def test_repeated_append_is_skipped(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core repeats an append whose acknowledgement is lost; readers must see the text once."""
        data = numbered(3)
        for _ in range(3):
            await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    @promises(
        "ChunkQueue.append",
        "An entry of the same epoch whose index is at or below the newest one is skipped without "
        "error",
        cause="a batch is skipped or stored as a whole: compare each entry, not only the first "
        "or the last one",
    )
    @requires("fenced")
    async def test_repeat_continues_where_a_prefix_was_stored(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A connection may break within a batch; the repeat must add only the missing records."""
        data = numbered(5)
        await queue.append(stream, entries(*data[:2]))
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    @promises(
        "ChunkQueue.append",
        "With ``capabilities.fenced`` every entry is compared with the newest one that is stored",
        cause="the newest entry is taken from a cache of the connection, which does not know "
        "what others have stored",
    )
    @requires("fenced")
    async def test_repeat_through_another_connection_is_skipped(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """A repeat often uses a new connection, which must know what the old one stored."""
        data = numbered(4)
        await queue.append(stream, entries(*data[:3]))
        await (await open_queue()).append(stream, entries(*data[1:], first=1))
        await self.expect(queue, stream, data)

    @promises(
        "ChunkQueue",
        "Safe to use from many tasks of one event loop.",
    )
    @promises(
        "Capabilities.ordered",
        "Every reader gets the records of a stream in one order, that in which they were stored.",
    )
    async def test_interleaved_writers_of_many_streams(
        self, queue: ChunkQueue, open_queue: OpenQueue
    ) -> None:
        """A worker runs many activities; their records must not leak into each other."""
        queues = (queue, await open_queue())
        streams = [new_stream() for _ in range(20)]

        async def write(at: int) -> None:
            for i in range(25):
                record = entries(b"%d.%d" % (at, i), first=i)
                if not queue.capabilities.fenced:
                    await queues[at % 2].append(streams[at], record)
                    continue
                # A busy server may miss a deadline; core repeats the append, which adds nothing.
                append = partial(queues[at % 2].append, streams[at], record)
                await RetryPolicy(deadline_seconds=self.patience).run(append)

        what = "20 writers that append 25 records each, over two connections"
        async with within(4 * self.patience, what), asyncio.TaskGroup() as group:
            for at in range(len(streams)):
                group.create_task(write(at))
        for at, stream in enumerate(streams):
            await self.expect(queue, stream, [b"%d.%d" % (at, i) for i in range(25)])
