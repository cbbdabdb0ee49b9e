"""Checks of listing: exactly the streams of a tenant and prefix are found."""

from __future__ import annotations

import asyncio
from functools import partial

from streamq.driver import ChunkQueue, StreamId
from streamq.testing._harness import BackendHarness, OpenQueue

from ._base import Checks
from ._records import entries, new_stream
from ._stream_names import TRICKY_NAMES

_PREFIXES = (
    *("a%", "a_", "a*", "a?", "a[", "a\\", "a'", "{", "a", " ", "P", "gr", "é"),
    "é" * 512,
)


class ListingChecks(Checks):
    """Exactly the streams of a tenant and prefix are found."""

    group = "listing"

    async def test_streams_lists_one_tenant_by_prefix(
        self, queue: ChunkQueue, open_queue: OpenQueue
    ) -> None:
        """`streamq ls` of one customer must never show another customer's streams."""
        mine, other = new_stream().tenant, new_stream().tenant
        longer = f"{mine}-2"
        for tenant, name in [(mine, "run/1"), (mine, "run/2"), (mine, "job"), (other, "run/3")]:
            await queue.append(StreamId(tenant, name), entries(b"x"))
        await queue.append(StreamId(longer, "run/4"), entries(b"x"))
        reader = await open_queue()
        for tenant, prefix, expected in [
            (mine, "", ["job", "run/1", "run/2"]),
            (mine, "run/", ["run/1", "run/2"]),
            (mine, "run/2", ["run/2"]),
            (mine, "nothing", []),
            (other, "", ["run/3"]),
            (longer, "", ["run/4"]),
        ]:
            listed = [info.stream async for info in reader.streams(tenant, prefix)]
            assert [StreamId(tenant, name) for name in expected] == sorted(
                listed, key=lambda stream: stream.name
            )

    async def test_prefix_is_taken_literally(self, queue: ChunkQueue) -> None:
        """`%`, `_`, `*`, `?` and `[` are ordinary characters of a name, not patterns."""
        tenant = new_stream().tenant
        for name in TRICKY_NAMES:
            await queue.append(StreamId(tenant, name), entries(b"x"))

        async def listed(prefix: str) -> list[str]:
            return sorted([info.stream.name async for info in queue.streams(tenant, prefix)])

        # In parallel, for backends whose listings wait for records that lag behind.
        for prefix, found in zip(
            _PREFIXES, await asyncio.gather(*map(listed, _PREFIXES)), strict=True
        ):
            assert sorted(name for name in TRICKY_NAMES if name.startswith(prefix)) == found

    async def test_listing_is_complete_beyond_one_page(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """A cleanup job that sees only the first thousand would leave the rest for ever."""
        tenant = new_stream().tenant
        names = [f"{i:04}" for i in range(backend.listing_page * 11 // 10)]
        for first in range(0, len(names), 20):
            await asyncio.gather(
                *(
                    self.until_answered(
                        partial(queue.append, StreamId(tenant, name), entries(b"x"))
                    )
                    for name in names[first : first + 20]
                )
            )
        listed = [info.stream.name async for info in queue.streams(tenant)]
        assert len(set(listed)) == len(names)
        assert sorted(set(listed)) == names
        assert len(listed) == len(names), "streams are listed twice"
