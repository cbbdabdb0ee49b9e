"""Checks of limits: a value at each limit, and one above it."""

from __future__ import annotations

import dataclasses
import random

import pytest

from streamq import BufferFullError, ChunkTooLargeError, OnFull, StreamqError
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._queue_faults import Block
from streamq.testing._shown import shown

from ._conditions import requires
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._stream_names import TRICKY_NAMES
from ._streams import StreamChecks, delivered, values
from ._verdicts import holds, refuses, same, same_records

LARGEST_TRIED_BYTES = 64 * 2**20
_SMALL_RECORD_BYTES = 5_000


class LimitChecks(StreamChecks):
    """Each declared limit can be used; a value above it damages nothing."""

    group = "limits"

    @promises(
        "Capabilities.max_record_bytes",
        "An entry whose data has this many bytes is stored.",
    )
    @requires("max_record_bytes")
    async def test_largest_declared_record_fits(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core splits chunks by the declared limit; a smaller real one would block streams."""
        size = min(queue.capabilities.max_record_bytes, LARGEST_TRIED_BYTES)
        large = random.Random(1).randbytes(1024) * (size // 1024) + bytes(size % 1024)
        data = entries(b"before", large, b"after")
        await self.until_answered(lambda: queue.append(stream, data))
        found = await self.read_many(queue, stream, 3)
        same(
            sorted(len(record.data) for record in found),
            sorted([6, size, 5]),
            "the sizes of the records around one of max_record_bytes",
            cause="the limit of the backend is smaller than the declared one (it may count keys "
            "and headers as well), or the record is cut",
        )
        holds(
            large in data_of(found),
            f"the record of {size:,} bytes",
            expected="the bytes that were appended",
            seen="others, of the same number",
            cause="a large record is joined from parts in the wrong order",
        )

    @promises(
        "ChunkQueue.append",
        "An entry above ``capabilities.max_record_bytes`` is stored whole or refused with an "
        "error that is not.",
    )
    @requires("max_record_bytes")
    async def test_record_past_the_limit_is_stored_whole_or_refused(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A truncated record would be damage; a call without an answer would block the stream."""
        size = queue.capabilities.max_record_bytes + 1
        if size > LARGEST_TRIED_BYTES + 1:
            pytest.skip(f"a record of {size} bytes is more than this check tries")
        await queue.append(stream, entries(b"before"))
        refusal: StreamqError | None = None
        try:
            too_large = entries(bytes(size), first=1)
            await self.until_answered(lambda: queue.append(stream, too_large))
        except StreamqError as exc:
            refusal = exc
        holds(
            refusal is None or not refusal.retryable,
            f"the refusal of a record of {size:,} bytes, one more than declared",
            expected="an error that is not retryable, such as BackendError: streamq would repeat "
            "the append until its deadline",
            seen=refusal,
            cause="the client reports a message that is too large as a broken connection, or the "
            "error is mapped to BackendUnavailableError",
        )
        sizes = [5, 6, size] if refusal is None else [5, 6]
        await queue.append(stream, entries(b"after", first=2))
        found = await self.read_many(queue, stream, len(sizes))
        same(
            sorted(len(record.data) for record in found),
            sizes,
            "the sizes of the records around one that is larger than declared",
            cause="the record is cut, or refused after a part of it was stored",
        )

    @promises("StreamId.name", "1 to 1,536 bytes of UTF-8, any characters")
    async def test_any_allowed_name_works(self, queue: ChunkQueue) -> None:
        """Names come from workflow ids, which may contain anything; no two may collide."""
        tenant = new_stream().tenant
        for name in TRICKY_NAMES:
            await queue.append(StreamId(tenant, name), entries(name.encode()))
        for name in TRICKY_NAMES:
            same_records(
                data_of(await self.read(queue, StreamId(tenant, name))),
                [name.encode()],
                f"the records of the stream named {shown(name)}",
                cause="two names become one key: compared without case, normalised, trimmed, cut "
                "or badly escaped",
            )
        same(
            sorted([info.stream.name async for info in queue.streams(tenant)]),
            sorted(TRICKY_NAMES),
            "the names that are listed",
            cause="the name is not restored from the key as it was",
        )

    @promises(
        "StreamId.name",
        "1 to 1,536 bytes of UTF-8, any characters",
    )
    async def test_longest_tenant_and_name_work_and_longer_ones_are_refused(
        self, queue: ChunkQueue
    ) -> None:
        """Two long names that a backend truncates would share one stream."""
        start = new_stream().tenant
        longest = StreamId((start + "." * 64)[:64], "n" * 1535 + "1")
        other = StreamId(longest.tenant, "n" * 1535 + "2")
        await queue.append(longest, entries(b"a"))
        await queue.append(other, entries(b"b"))
        cause = "the backend cuts long names, so that two streams become one"
        for stream, data in ((longest, b"a"), (other, b"b")):
            found = data_of(await self.read(queue, stream))
            what = f"the records of the stream whose longest name ends in {stream.name[-1]}"
            same_records(found, [data], what, cause=cause)
        for tenant, name in [(start + "." * 64, "n"), (start, "n" * 1537), (start, "é" * 769)]:
            size = f"{len(tenant)} and {len(name.encode())} bytes"
            with refuses(ValueError, f"a tenant and a name of {size}", match="must be"):
                StreamId(tenant, name)

    @promises(
        "Entry.epoch",
        "Which run of the producer wrote it, 1 to 2**63-1.",
        cause="numbers pass through floating point (JSON, Lua, JavaScript) and lose digits",
    )
    @promises(
        "Entry.index",
        "Place within the epoch, 0 to 2**63-1",
    )
    @requires("ordered")
    async def test_largest_epoch_and_index_work(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A backend that stores numbers as floating point would order attempts wrongly."""
        ids = [(2**53, 0), (2**53 + 1, 0), (2**53 + 1, 2**53), (2**53 + 1, 2**53 + 1)]
        ids += [(2**53 + 1, 2**63 - 1), (2**63 - 1, 0), (2**63 - 1, 2**62), (2**63 - 1, 2**63 - 1)]
        for epoch, index in ids:
            await queue.append(stream, [Entry(epoch, index, b"%d.%d" % (epoch, index))])
        await self.expect(queue, stream, [b"%d.%d" % each for each in ids])

    @promises(
        "Capabilities.max_record_bytes",
        "An entry whose data has this many bytes is stored.",
    )
    @requires("writable", "replay")
    async def test_largest_chunk_passes_and_a_larger_one_is_refused(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A chunk at the limit arrives whole; a larger one leaves the stream unchanged."""
        settings = self.settings()
        limit = settings.max_chunk_bytes
        async with self.writer(queue, stream, settings=settings) as writer:
            await writer.send_chunk("x" * limit)
            with refuses(ChunkTooLargeError, f"a chunk of {limit + 1} bytes", match=str(limit)):
                await writer.send_chunk("x" * (limit + 1))
            await writer.send_chunk("after")
        sizes = [len(str(value)) for value in values(await self.read_all(queue, stream))]
        same(sizes, [limit, 5], "the sizes of the chunks that were read")

    @promises(
        "Capabilities.max_record_bytes",
        "streamq splits larger chunks by it.",
    )
    @requires("writable", "replay")
    async def test_chunk_larger_than_a_record_is_split_and_joined(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A chunk stays one chunk whatever the size of records: around one record, two and many,
        resumed at every place."""
        limit = _SMALL_RECORD_BYTES
        small = dataclasses.replace(queue.capabilities, max_record_bytes=limit)
        sizes = [limit + d for d in range(-80, 3, 8)] + [2 * limit - 64, 2 * limit, 9 * limit]
        texts = [chr(97 + i) * size for i, size in enumerate(sizes)]
        live = self.follow(other, stream)
        async with self.writer(FaultyQueue(queue, capabilities=small), stream) as writer:
            for text in texts:
                await writer.send_chunk(text)
        results = [await live, await self.read_all(queue, stream)]
        for events in results:
            found = [len(str(value)) for value in values(events)]
            same(found, sizes, "the sizes of chunks that were split into records and joined")
            same_records(values(events), texts, "the chunks that were split and joined")
        for place, cursor in enumerate(await self.cursors(queue, stream)):
            if place <= len(texts):
                rest = values(await self.read_all(other, stream, cursor))
                found = [len(str(value)) for value in rest]
                same(found, sizes[place:], f"the sizes of the chunks after event {place}")

    @promises(
        "ChunkQueue.append",
        "streamq has one append of a stream under way at a time.",
    )
    @requires("writable", "replay")
    async def test_full_buffer_blocks_refuses_or_drops_as_configured(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A slow backend must not fill the worker's memory; the user chooses the alternative."""
        settings = self.settings(buffer_bytes=100)
        for policy in OnFull:
            name = StreamId(stream.tenant, policy.value)
            faulty, block = FaultyQueue(queue), Block()
            async with self.writer(faulty, name, settings=settings, on_full=policy) as writer:
                faulty.script("append", block)
                await writer.send_chunk("a" * 90)
                await block.reached()
                if policy is OnFull.BLOCK:
                    waiting = await self.blocked(writer.send_chunk("b" * 90))
                    block.release()
                    await waiting
                elif policy is OnFull.ERROR:
                    with refuses(BufferFullError, "a chunk that finds no room in the buffer"):
                        await writer.send_chunk("b" * 90)
                else:
                    await writer.send_chunk("b" * 90)
                    same(writer.statistics().dropped_chunks, 1, "the chunks that were dropped")
                held = writer.statistics().buffered_bytes
                holds(held <= 100, "the bytes in the buffer", expected="at most 100", seen=held)
                block.release()
            kept = ["a" * 90, "b" * 90] if policy is OnFull.BLOCK else ["a" * 90]
            events = delivered(await self.read_all(queue, name))
            same_records(events, [*kept, "END"], f"the events with on_full={policy.name}")
