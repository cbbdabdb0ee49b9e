"""Checks of trimming: what is no longer stored is an error or an explicit gap, never silence."""

from __future__ import annotations

from streamq.driver import ChunkQueue, StreamId

from ._checks import entries, numbered, requires
from ._streams import StreamChecks


class TrimmingChecks(StreamChecks):
    """What is no longer stored is told, never skipped in silence."""

    group = "trimming"

    @requires("replay", "ordered")
    async def test_position_of_a_vanished_record_leads_to_the_oldest_one(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader whose place is gone is shown what there is: core then sees the gap."""
        await queue.append(stream, entries(*numbered(3, "old")))
        gone = (await self.read_many(queue, stream, 3))[1].position
        await queue.delete(stream)
        await queue.append(stream, entries(*numbered(3, "new"), epoch=2))
        await self.expect(queue, stream, numbered(3, "new"), gone)
