"""Checks of limits: each one at the limit, and one past it."""

from __future__ import annotations

import random

from streamq import load_settings
from streamq.driver import ChunkQueue, StreamId

from ._checks import data_of, entries, new_stream, requires
from ._names import TRICKY_NAMES
from ._streams import StreamChecks, values

_LARGE_BYTES = 8 * 2**20


class LimitChecks(StreamChecks):
    """Each declared limit holds at the limit; past it, nothing is damaged."""

    group = "limits"

    async def test_largest_declared_record_fits(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core splits or refuses by the declared limit; a smaller real one would poison streams."""
        size = min(queue.capabilities.max_record_bytes, _LARGE_BYTES)
        large = random.Random(1).randbytes(size)
        await queue.append(stream, entries(b"before", large, b"after"))
        found = await self.read_many(queue, stream, 3)
        # Compared by hand: pytest would take minutes to explain a difference of megabytes.
        assert [6, size, 5] == [len(record.data) for record in found]
        assert large == found[1].data, "the large record was altered"

    async def test_any_allowed_name_works(self, queue: ChunkQueue) -> None:
        """Names come from workflow ids, which hold anything; none may collide with another."""
        tenant = new_stream().tenant
        for name in TRICKY_NAMES:
            await queue.append(StreamId(tenant, name), entries(name.encode()))
        for name in TRICKY_NAMES:
            assert [name.encode()] == data_of(await self.read(queue, StreamId(tenant, name)))
        assert sorted(TRICKY_NAMES) == sorted(
            [info.stream.name async for info in queue.streams(tenant)]
        )

    @requires("fenced", "replay")
    async def test_largest_chunk_passes(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A chunk at the default limit arrives whole."""
        text = "x" * load_settings().max_chunk_bytes
        await self.write(queue, stream, text)
        assert values(await self.read_all(queue, stream)) == [text]
