"""Checks of listing: exactly the streams of a tenant and prefix are found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from streamq.driver import ChunkQueue, Stored, StreamId
from streamq.testing._harness import BackendHarness, OpenQueue

from ._base import Checks
from ._conditions import needs
from ._records import data_of, entries, new_stream
from ._stream_names import TRICKY_NAMES

_PREFIXES = (
    *(
        "a%",
        "a_",
        "a*",
        "a?",
        "a[",
        "a\\",
        "a'",
        "{",
        "a",
        " ",
        "P",
        "gr",
        "é",
        "\0",
        "a\n",
        "~",
        ".",
    ),
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

    @needs("plant")
    async def test_foreign_entry_harms_no_stream(
        self, queue: ChunkQueue, open_queue: OpenQueue, backend: BackendHarness
    ) -> None:
        """One name that does not fit must not hide the streams of everybody else."""
        tenant = new_stream().tenant
        streams = [StreamId(tenant, name) for name in ("0", "m", "z")]
        for stream in streams:
            await queue.append(stream, entries(b"a"))
        live: asyncio.Task[Sequence[Stored]] | None = None
        reader = await open_queue()
        if queue.capabilities.replay:
            start = (await self.read(reader, streams[1]))[-1].position
            live = await self.blocked(self.read(reader, streams[1], start))
        await backend.plant(tenant)
        listed = [info.stream.name async for info in reader.streams(tenant)]
        assert sorted(listed) == ["0", "m", "z"]
        await queue.sweep()
        await queue.append(streams[1], entries(b"b", first=1))
        if live is not None:
            assert data_of(await live) == [b"b"]
        assert b"a" in data_of(await self.read(queue, streams[2]))

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
