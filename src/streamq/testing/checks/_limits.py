"""Checks of limits: a value at each limit, and one above it."""

from __future__ import annotations

import dataclasses
import random

import pytest

from streamq import BufferFullError, ChunkTooLargeError, OnFull, StreamqError
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._queue_faults import Block

from ._conditions import requires
from ._records import data_of, entries, new_stream
from ._stream_names import TRICKY_NAMES
from ._streams import StreamChecks, delivered, values

_LARGEST_TRIED_BYTES = 64 * 2**20
_SMALL_RECORD_BYTES = 5_000


class LimitChecks(StreamChecks):
    """Each declared limit can be used; a value above it damages nothing."""

    group = "limits"

    @requires("max_record_bytes")
    async def test_largest_declared_record_fits(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Core splits chunks by the declared limit; a smaller real one would block streams."""
        size = min(queue.capabilities.max_record_bytes, _LARGEST_TRIED_BYTES)
        large = random.Random(1).randbytes(1024) * (size // 1024) + bytes(size % 1024)
        data = entries(b"before", large, b"after")
        await self.until_answered(lambda: queue.append(stream, data))
        found = await self.read_many(queue, stream, 3)
        # Not compared by pytest, which would take minutes to explain a difference of megabytes.
        assert sorted([6, size, 5]) == sorted(len(record.data) for record in found)
        assert large in data_of(found), "the large record was altered"

    @requires("max_record_bytes")
    async def test_record_past_the_limit_is_stored_whole_or_refused(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A truncated record would be damage; a call without an answer would block the stream."""
        size = queue.capabilities.max_record_bytes + 1
        if size > _LARGEST_TRIED_BYTES + 1:
            pytest.skip(f"a record of {size} bytes is more than this check tries")
        await queue.append(stream, entries(b"before"))
        refusal: StreamqError | None = None
        try:
            too_large = entries(bytes(size), first=1)
            await self.until_answered(lambda: queue.append(stream, too_large))
        except StreamqError as exc:
            refusal = exc
        assert refusal is None or not refusal.retryable, "core would retry it until its deadline"
        sizes = [5, 6, size] if refusal is None else [5, 6]
        await queue.append(stream, entries(b"after", first=2))
        found = await self.read_many(queue, stream, len(sizes))
        assert sizes == sorted(len(record.data) for record in found)

    async def test_any_allowed_name_works(self, queue: ChunkQueue) -> None:
        """Names come from workflow ids, which may contain anything; no two may collide."""
        tenant = new_stream().tenant
        for name in TRICKY_NAMES:
            await queue.append(StreamId(tenant, name), entries(name.encode()))
        for name in TRICKY_NAMES:
            assert [name.encode()] == data_of(await self.read(queue, StreamId(tenant, name)))
        assert sorted(TRICKY_NAMES) == sorted(
            [info.stream.name async for info in queue.streams(tenant)]
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
        assert data_of(await self.read(queue, longest)) == [b"a"]
        assert data_of(await self.read(queue, other)) == [b"b"]
        for tenant, name in [(start + "." * 64, "n"), (start, "n" * 1537), (start, "é" * 769)]:
            with pytest.raises(ValueError, match="must be"):
                StreamId(tenant, name)

    @requires("ordered")
    async def test_largest_epoch_and_index_work(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A backend that stores numbers as floating point would order attempts wrongly."""
        ids = [(2**53, 0), (2**53 + 1, 0), (2**53 + 1, 2**53), (2**53 + 1, 2**53 + 1)]
        ids += [(2**53 + 1, 2**63 - 1), (2**63 - 1, 0), (2**63 - 1, 2**62), (2**63 - 1, 2**63 - 1)]
        for epoch, index in ids:
            await queue.append(stream, [Entry(epoch, index, b"%d.%d" % (epoch, index))])
        await self.expect(queue, stream, [b"%d.%d" % each for each in ids])

    @requires("writable", "replay")
    async def test_largest_chunk_passes_and_a_larger_one_is_refused(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A chunk at the limit arrives whole; a larger one leaves the stream unchanged."""
        settings = self.settings()
        limit = settings.max_chunk_bytes
        async with self.writer(queue, stream, settings=settings) as writer:
            await writer.send_chunk("x" * limit)
            with pytest.raises(ChunkTooLargeError, match=str(limit)):
                await writer.send_chunk("x" * (limit + 1))
            await writer.send_chunk("after")
        sizes = [len(str(value)) for value in values(await self.read_all(queue, stream))]
        assert sizes == [limit, 5]

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
        # Not compared by pytest: a difference of megabytes is of no help.
        for events in results:
            assert [len(str(value)) for value in values(events)] == sizes
            assert values(events) == texts, "a chunk was put together wrongly"
        for place, cursor in enumerate(await self.cursors(queue, stream)):
            if place <= len(texts):
                rest = values(await self.read_all(other, stream, cursor))
                assert [len(str(value)) for value in rest] == sizes[place:]

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
                    with pytest.raises(BufferFullError):
                        await writer.send_chunk("b" * 90)
                else:
                    await writer.send_chunk("b" * 90)
                    assert writer.statistics().dropped_chunks == 1
                assert writer.statistics().buffered_bytes <= 100
                block.release()
            kept = ["a" * 90, "b" * 90] if policy is OnFull.BLOCK else ["a" * 90]
            assert delivered(await self.read_all(queue, name)) == [*kept, "END"]
