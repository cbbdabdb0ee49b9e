"""Checks of readers that come late: to a live stream, in the middle of a record, after the end."""

from __future__ import annotations

from streamq import Seal, SealState, open_reader, open_writer
from streamq.driver import ChunkQueue, StreamId

from ._checks import requires
from ._streams import StreamChecks, values


class LateJoinChecks(StreamChecks):
    """A reader that comes later gets what it asked for."""

    group = "late join"

    @requires("fenced", "replay")
    async def test_late_reader_gets_everything_and_the_end(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser opened after the end shows the same story."""
        await self.write(queue, stream, "a", "b", "c")
        events = await self.read_all(other, stream)
        assert values(events) == ["a", "b", "c"]
        assert events[-1] == Seal(4, 1, SealState.END)

    @requires("fenced", "replay")
    async def test_live_tail_misses_nothing_after_it(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """ "Live only" is resolved once, at open."""
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("old")
            await writer.flush()
            async with open_reader(
                stream, from_="tail", queue=other, idle_seconds=self.patience
            ) as reader:
                await writer.send_chunk("new")
                await writer.finish()
                events = [event async for event in reader]
        assert values(events) == ["new"]
        assert [event.offset for event in events] == [2, 3]
