"""Checks of counting: what descriptions and listings say about how much there is."""

from __future__ import annotations

import random

from streamq.driver import ChunkQueue, FencedError, StreamId, StreamInfo

from ._base import Checks
from ._conditions import requires
from ._promises import promises
from ._records import entries
from ._verdicts import holds, refuses, same

_RECORD_BYTES = 3_000
_RECORDS = 24
_REPEATED = "entries are counted as they come, and not as they are stored"


class CountingChecks(Checks):
    """Descriptions and listings count what is stored, if they count."""

    group = "counting"

    @promises(
        "StreamInfo.size_bytes",
        "an estimate will do, from half of the bytes that were appended to four times as many",
        cause="one entry of an append is counted, or each in another unit; None is allowed",
    )
    @promises(
        "StreamInfo.records",
        "How many records are stored, if cheap to know; ``None`` rather than an estimate.",
    )
    @requires("replay")
    async def test_descriptions_and_listings_count_what_is_stored(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Operators look for the stream that fills the disk, and for one that has no records."""
        dice = random.Random(1)  # so that no server can make it smaller
        data = [dice.randbytes(_RECORD_BYTES) for _ in range(_RECORDS)]
        half = _RECORDS // 2
        await queue.append(stream, entries(*data[:half], epoch=2))
        await self.expect_counts(queue, stream, half, "after one append")
        await queue.append(stream, entries(*data[half:], epoch=2, first=half))
        await self.expect_counts(other, stream, _RECORDS, "after two appends")
        if not queue.capabilities.fenced:
            return
        for each in (queue, other):
            await each.append(stream, entries(*data[half:], epoch=2, first=half))
            await self.expect_counts(each, stream, _RECORDS, "after a repeat")
        more = entries(*data[-2:], b"x" * _RECORD_BYTES, epoch=2, first=_RECORDS - 2)
        await other.append(stream, more)
        await self.expect_counts(other, stream, _RECORDS + 1, "after a repeat with one more")
        with refuses(FencedError, "an append of epoch 1 after epoch 2"):
            await queue.append(stream, entries(data[0], first=_RECORDS))
        await self.expect_counts(queue, stream, _RECORDS + 1, "after an append that was fenced")
        await queue.delete(stream)
        await other.append(stream, entries(data[0]))
        await self.expect_counts(queue, stream, 1, "after the stream was deleted and began anew")

    async def expect_counts(
        self, queue: ChunkQueue, stream: StreamId, records: int, when: str
    ) -> None:
        """Fail unless a connection describes and lists so many records, if it counts them."""
        __tracebackhide__ = True
        described = await queue.describe(stream)
        listed = [info async for info in queue.streams(stream.tenant)]
        for info, where in ((described, "describe"), *((each, "streams") for each in listed)):
            _expect_count(info, records, f"by {where}(), {when}")


def _expect_count(info: StreamInfo, records: int, when: str) -> None:
    __tracebackhide__ = True
    if info.records is not None:
        same(info.records, records, f"StreamInfo.records {when}", cause=_REPEATED)
    size = records * _RECORD_BYTES
    holds(
        info.size_bytes is None or size // 2 <= info.size_bytes <= 4 * size,
        f"StreamInfo.size_bytes {when}",
        expected=f"{size // 2:,} to {4 * size:,}: the records have {size:,} bytes",
        seen=info.size_bytes,
    )
