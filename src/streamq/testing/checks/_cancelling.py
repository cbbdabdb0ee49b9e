"""Checks of cancelled calls: nothing is lost, and the next call works."""

from __future__ import annotations

import asyncio
import random

from streamq.driver import (
    START,
    ChunkQueue,
    StreamId,
)
from streamq.testing._cancellation import cancel_at_every_await
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._queue_faults import Block

from ._conditions import requires
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._sentences import CANCELLED, PREFIX, REPEATED_READ
from ._streams import StreamChecks, delivered
from ._verdicts import holds, same, same_records


def _tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks()


_TAKEN = (
    "the answer of a cancelled request is read by the next one, a lock stays held, or records that "
    "were received are dropped with the call"
)


class CancellingChecks(StreamChecks):
    """A cancelled call loses nothing and breaks nothing for the next one."""

    group = "cancelling"

    @promises(*PREFIX)
    @requires("fenced")
    async def test_cancelled_append_can_be_repeated(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that shuts down cancels appends at any point; repeating them must be safe."""
        dice = random.Random(20240607)
        data = numbered(240)
        for first in range(0, len(data), 4):
            batch = entries(*data[first : first + 4], first=first)
            append = self.begin(queue.append(stream, batch))
            if dice.random() < 0.5:
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
            else:
                await asyncio.wait({append}, timeout=dice.random() * 0.003)
            append.cancel()
            await asyncio.gather(append, return_exceptions=True)
            await queue.append(stream, batch)
        await self.expect(queue, stream, data)

    @promises(*REPEATED_READ)
    @requires("replay")
    async def test_cancelled_read_loses_nothing(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Browsers disconnect in the middle of a poll all the time."""
        position = START
        for i in range(10):
            waiting = self.begin(self.read(queue, stream, position))
            await asyncio.wait({waiting}, timeout=0.01)
            if i % 2:
                waiting.cancel()
            append = self.begin(queue.append(stream, entries(b"%d" % i, first=i)))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(append, waiting, return_exceptions=True)
            batch = await self.read(queue, stream, position)
            what = "the records after the last one that was read, when a read was cancelled"
            same_records(data_of(batch), [b"%d" % i], what, cause=_TAKEN)
            position = batch[-1].position

    @promises(*PREFIX)
    @promises(*CANCELLED)
    @requires("fenced")
    async def test_append_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Wherever a worker is stopped, repeating the append stores only the missing records."""
        data: list[bytes] = []

        async def append() -> None:
            first = len(data)
            await queue.append(stream, entries(b"%d" % first, b"%d+" % first, first=first))

        async def repeat() -> None:
            await append()
            data.extend((b"%d" % len(data), b"%d+" % len(data)))

        await cancel_at_every_await(append, repeat)
        await self.expect(queue, stream, data)

    @promises(*REPEATED_READ)
    @promises(*CANCELLED)
    @requires("replay", "ordered")
    async def test_read_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId, other: ChunkQueue
    ) -> None:
        """Wherever a poll is stopped, the next one finds everything the first would have found."""
        data = numbered(6)
        await queue.append(stream, entries(*data))
        places = [START, *(found.position for found in await self.read_many(queue, stream, 6))]
        for max_wait in (0.0, 0.05):
            for place in (0, 3, 6):
                after, rest = places[place], data[place:]

                async def read(after: str = after, max_wait: float = max_wait) -> None:
                    await self.read(other, stream, after, max_wait=max_wait)

                async def check(after: str = after, rest: list[bytes] = rest) -> None:
                    found = data_of(await self.read(other, stream, after, max_wait=0))
                    same_records(found, rest, "a read after one that was cancelled", cause=_TAKEN)

                await cancel_at_every_await(read, check)

    @promises(
        "ChunkQueue.describe",
        "Without ``capabilities.replay`` no records are returned: reading them would hide them.",
    )
    @promises(*CANCELLED)
    @promises(
        "ChunkQueue.describe",
        "it has changed nothing",
    )
    @promises(
        "ChunkQueue.delete",
        "repeating the call removes the rest",
    )
    @promises(
        "ChunkQueue.streams",
        "it has changed nothing",
    )
    async def test_describing_deleting_and_listing_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A cancelled request must not break the connection for the next one."""

        async def describe() -> None:
            await queue.describe(stream, last=5)

        async def delete() -> None:
            await queue.delete(new_stream())

        async def listing() -> None:
            listed = [info.stream async for info in queue.streams(stream.tenant)]
            same(listed, [stream], "the streams that are listed", cause=_TAKEN)

        async def works() -> None:
            last = data_of((await queue.describe(stream, last=5)).last)
            expected = [b"a"] if queue.capabilities.replay else []
            same_records(last, expected, "describe(last=5) after a cancelled call", cause=_TAKEN)

        await queue.append(stream, entries(b"a"))
        for call in (describe, delete, listing):
            await cancel_at_every_await(call, works)

    @promises(*PREFIX)
    @requires("writable", "replay")
    async def test_writer_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """An activity may be stopped at any point; its chunks come once and in order."""
        sent = 0
        async with self.writer(queue, stream) as writer:

            async def flush() -> None:
                await writer.flush()

            async def send_more() -> None:
                nonlocal sent
                await writer.send_chunk(str(sent))
                sent += 1

            await send_more()
            await cancel_at_every_await(flush, send_more)
            await cancel_at_every_await(writer.finish, writer.finish)
        events = delivered(await self.read_all(queue, stream))
        same_records(events, [*map(str, range(sent)), "END"], "the events, after cancelled calls")

    @promises(*CANCELLED)
    @promises(*PREFIX)
    @requires("writable", "replay")
    async def test_opening_a_writer_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """An attempt that is stopped during its takeover must look like one that wrote nothing."""
        epoch = 0

        async def take_over() -> None:
            nonlocal epoch
            epoch += 1
            await (await self.writer(queue, stream, epoch=epoch)).aclose()

        async def nothing_is_left() -> None:
            names = [task.get_name() for task in _tasks()]
            left = [name for name in names if name.startswith("streamq-writer")]
            same(left, [], "tasks of a writer whose opening was cancelled")

        await cancel_at_every_await(take_over, nothing_is_left)
        async with self.writer(queue, stream, epoch=epoch + 1) as writer:
            await writer.send_chunk("a")
        events = delivered(await self.read_all(queue, stream))
        same_records(events, ["a", "END"], "the events, after openings that were cancelled")

    @promises(*REPEATED_READ)
    @requires("writable", "replay")
    async def test_reader_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Subscribers put a deadline around every event; nothing may be lost or repeated."""
        events = []
        sent = 0
        async with self.writer(queue, stream) as writer:
            reader = await self.reader(other, stream)

            async def next_event() -> None:
                events.append(await anext(reader))

            async def send_more() -> None:
                nonlocal sent
                await writer.send_chunk(str(sent))
                await writer.flush()
                sent += 1

            await send_more()
            await cancel_at_every_await(next_event, send_more)
            await writer.finish()
            events += [event async for event in reader]
            await reader.aclose()
        story = [*map(str, range(sent)), "END"]
        same_records(delivered(events), story, "the events of a reader whose calls were cancelled")

    @promises(
        "ChunkQueue.append",
        "streamq has one append of a stream under way at a time.",
    )
    @requires("writable", "replay")
    async def test_writer_that_waits_for_room_can_be_cancelled(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A chunk whose `send_chunk` was cancelled is not in the stream, and blocks no other."""
        faulty, block = FaultyQueue(queue), Block()
        async with self.writer(faulty, stream, settings=self.settings(buffer_bytes=50)) as writer:
            faulty.always("append", block)
            await writer.send_chunk("a" * 60)
            await block.reached()
            waiting = await self.blocked(writer.send_chunk("never"))
            behind = await self.blocked(writer.send_chunk("b"))
            waiting.cancel()
            block.release()
            await behind
            (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
            what = "how a send_chunk that was cancelled ended"
            holds(outcome is not None, what, expected="CancelledError", seen="it returned")
        events = delivered(await self.read_all(queue, stream))
        same_records(events, ["a" * 60, "b", "END"], "the events, without the cancelled chunk")
