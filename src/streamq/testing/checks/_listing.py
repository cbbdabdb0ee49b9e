"""Checks of listing: exactly the streams of a tenant and prefix are found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from streamq.driver import ChunkQueue, Stored, StreamId
from streamq.testing._harness import BackendHarness, OpenQueue

from ._base import Checks
from ._conditions import needs
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._stream_names import TRICKY_NAMES
from ._verdicts import holds, same, same_records

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


_FOREIGN = (
    "an entry whose name is none ends the listing, the sweep or the task that wakes readers: make "
    "names with stored_stream() of streamq.driver, and skip None"
)
_PLANTED = (
    "plant() of the harness has stored what is a stream, with a name that streamq takes and sound "
    "content; or the driver lists an entry whose name or content it has not looked at"
)


class ListingChecks(Checks):
    """Exactly the streams of a tenant and prefix are found."""

    group = "listing"

    @promises(
        "ChunkQueue.streams",
        "Iterate over the streams of a tenant whose name starts with ``prefix``, in any order.",
    )
    @promises(
        "ChunkQueue.streams",
        "No stream of another tenant is among them.",
    )
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
            listed = [str(info.stream) async for info in reader.streams(tenant, prefix)]
            same(
                sorted(listed),
                sorted(str(StreamId(tenant, name)) for name in expected),
                f"the streams of tenant {tenant!r} whose name starts with {prefix!r}",
                cause="tenant and name are joined to one key, and the tenant is compared as a "
                "prefix: end it with a character that no tenant has; or the prefix is ignored",
            )

    @promises(
        "ChunkQueue.streams",
        "The prefix is taken literally.",
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
            same(
                found,
                sorted(name for name in TRICKY_NAMES if name.startswith(prefix)),
                f"the names that start with {prefix!r}",
                cause="the prefix is passed to a pattern language of the backend without escaping "
                "(%, _, *, ?, [), or compared without regard to case or to bytes",
            )

    @promises(
        "ChunkQueue.streams",
        "Neither is an entry that streamq did not store, or whose name it does not take: it is "
        "skipped with one line in the log",
    )
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
        what = "the names that are listed beside foreign entries"
        sound = [stream.name for stream in streams]
        cause = _PLANTED if set(listed) > set(sound) else _FOREIGN
        same(sorted(listed), sound, what, cause=cause)
        await queue.sweep()
        await queue.append(streams[1], entries(b"b", first=1))
        if live is not None:
            what = "what a read that waited returned, after foreign entries were stored"
            same_records(data_of(await live), [b"b"], what, cause=_FOREIGN)
        found = data_of(await self.read(queue, streams[2]))
        what = "the records of a stream that sorts after foreign entries"
        holds(b"a" in found, what, expected="b'a' is among them", seen=found, cause=_FOREIGN)

    @promises(
        "ChunkQueue.streams",
        "Each stream comes once, however many there are.",
    )
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
        what = f"the names of {len(names):,} streams, on pages of {backend.listing_page:,}"
        cause = (
            "the listing ends with the first page of the backend, or goes on after the wrong name"
        )
        same(sorted(set(listed)), names, what, cause=cause)
        cause = "a page begins with the last stream of the page before"
        same(len(listed), len(names), "how many streams are listed, repeats included", cause=cause)
