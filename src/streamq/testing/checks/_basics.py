"""Checks of the basics: stored records can be read, described and deleted."""

from __future__ import annotations

from functools import partial

import pytest

from streamq import CorruptRecordError, Seal, SealState, describe
from streamq.driver import ChunkQueue, Entry, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness, OpenQueue

from ._conditions import needs, requires
from ._promises import promises
from ._records import data_of, entries, numbered
from ._streams import StreamChecks, values


class BasicChecks(StreamChecks):
    """Stored records come back unchanged, within bounds, and can be described and deleted."""

    group = "basics"

    @promises("Stored.data", "Exactly the bytes that were appended.")
    async def test_bytes_come_back_unchanged(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Records may be compressed or encrypted, so every byte value matters, and empty ones."""
        data = [b"", bytes(range(256)), b"\0", b"\r\n", b"\xff\xfe", b"' -- %s {}", b""]
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    async def test_many_entries_in_one_append(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A writer that is faster than the backend sends large batches."""
        data = numbered(500)
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    async def test_indexes_may_have_gaps(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A driver may rely on growing indexes, but not on dense ones."""
        data = numbered(4)
        for i, item in enumerate(data):
            await queue.append(stream, entries(item, first=i * 17))
        await self.expect(queue, stream, data)

    async def test_append_of_nothing_has_no_effect(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        open_queue: OpenQueue,
        backend: BackendHarness,
    ) -> None:
        """An empty append must neither create a stream nor bring back an expired one."""
        await queue.append(stream, [])
        with pytest.raises(StreamNotFoundError):
            await queue.describe(stream)
        if not queue.capabilities.expires:
            return
        brief = await open_queue(ttl=backend.short_ttl)
        await brief.append(stream, entries(b"a", epoch=9))
        await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")
        await brief.append(stream, [])
        with pytest.raises(StreamNotFoundError):
            await queue.describe(stream)

    @requires("ordered")
    async def test_max_records_is_obeyed(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll activity returns a bounded batch, and the next one continues after it."""
        data = numbered(10)
        await queue.append(stream, entries(*data))
        found: list[bytes] = []
        position = ""
        while len(found) < len(data):
            batch = await self.read(queue, stream, position, max_records=3)
            assert 1 <= len(batch) <= 3
            found += data_of(batch)
            position = batch[-1].position
        assert data == found

    @requires("ordered")
    async def test_max_bytes_is_obeyed(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A batch has to fit into one Temporal payload."""
        data = [bytes([i]) * 100 for i in range(10)]
        await queue.append(stream, entries(*data))
        found: list[bytes] = []
        position = ""
        while len(found) < len(data):
            batch = await self.read(queue, stream, position, max_bytes=250)
            assert 1 <= len(batch) <= 2
            found += data_of(batch)
            position = batch[-1].position
        assert data == found

    async def test_one_record_is_returned_whatever_its_size(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A record larger than the caller's bound must not block the stream for ever."""
        await queue.append(stream, entries(b"x" * 5000, b"y" * 5000))
        batch = await self.read(queue, stream, max_bytes=10)
        assert len(batch) == 1

    async def test_describe_of_a_missing_stream_raises(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A command with a mistyped name has to report it, not show an empty stream."""
        with pytest.raises(StreamNotFoundError) as caught:
            await queue.describe(stream)
        assert (queue.backend, str(stream)) == (caught.value.backend, caught.value.stream)

    @requires("replay")
    async def test_describe_returns_the_newest_records_first(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A new attempt learns from the tail where its predecessor stopped."""
        data = numbered(6)
        await queue.append(stream, entries(*data))
        info = await queue.describe(stream, last=2)
        assert (stream, [data[5], data[4]]) == (info.stream, data_of(info.last))
        if info.records is not None:
            assert len(data) == info.records
        assert (await queue.describe(stream)).last == ()
        if queue.capabilities.ordered:
            assert [data[5]] == data_of(
                await self.read(queue, stream, info.last[1].position, max_wait=0)
            )

    @requires("replay")
    async def test_describe_returns_all_when_more_are_requested(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Core requests a fixed number of records, and most streams are short at first."""
        await queue.append(stream, entries(b"a", b"b"))
        assert data_of((await queue.describe(stream, last=50)).last) == [b"b", b"a"]

    @requires("replay")
    async def test_describe_reflects_every_append_that_returned(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """A new attempt fences, then reads the tail; a stale answer would make it repeat text."""
        queues = (queue, await open_queue())
        for i in range(40):
            await queues[i % 2].append(stream, entries(b"%d" % i, first=i))
            info = await queues[(i + 1) % 2].describe(stream, last=1)
            assert [b"%d" % i] == data_of(info.last)

    async def test_delete_removes_the_stream_for_everyone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Users delete data that they must not keep, so nothing may remain."""
        await queue.append(stream, entries(b"secret"))
        other = await open_queue()
        await queue.delete(stream)
        for each in (queue, other):
            with pytest.raises(StreamNotFoundError):
                await each.describe(stream)
            assert list(await self.read(each, stream, max_wait=0)) == []
            assert [info async for info in each.streams(stream.tenant)] == []

    async def test_delete_is_idempotent(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Cleanup jobs run twice, and race with expiry."""
        await queue.delete(stream)
        await queue.append(stream, entries(b"a"))
        await queue.delete(stream)
        await queue.delete(stream)

    async def test_deleted_stream_can_be_created_anew(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A name can be used again after a delete; its old fence and records are gone."""
        await queue.append(stream, entries(b"old-0", b"old-1", epoch=5))
        await queue.delete(stream)
        await queue.append(stream, entries(b"new-0"))
        await self.expect(queue, stream, [b"new-0"])

    @requires("writable", "replay")
    async def test_status_reports_offset_attempt_and_seal(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Gateway and command line request the status before they read."""
        with pytest.raises(StreamNotFoundError):
            await describe(stream, queue=other, settings=self.settings())
        await self.write(queue, stream, "a", "b")
        status = await describe(stream, queue=other, settings=self.settings())
        assert (status.offset, status.attempt) == (3, 1)
        assert status.seal == Seal(3, 1, SealState.END)

    @requires("writable", "replay")
    async def test_damaged_record_is_an_error_after_what_was_intact(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """If stored bytes are damaged, a reader must never show altered text."""
        writer = await self.writer(queue, stream, epoch=5)
        await writer.send_chunk("good")
        await writer.aclose()
        await queue.append(stream, [Entry(5, 99, b"\x01\x07 not a record")])
        async with self.reader(queue, stream) as reader:
            assert values([await anext(reader)]) == ["good"]
            with pytest.raises(CorruptRecordError):
                await anext(reader)

    @needs("peek")
    async def test_backend_holds_exactly_what_was_appended(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Another tool that inspects the backend finds exactly the bytes that were sent."""
        data = [b"", bytes(range(256)), b"\0\r\n", b"last"]
        await queue.append(stream, entries(*data[:2]))
        await queue.append(stream, entries(*data[2:], first=2))
        assert await backend.peek(stream) == data
        await self.expect(queue, stream, data)
        if queue.capabilities.replay:
            assert await backend.peek(stream) == data

    @requires("erases")
    @needs("peek")
    async def test_delete_leaves_nothing_in_the_backend(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Deletion may be required by law: hiding the stream is not enough."""
        await queue.append(stream, entries(b"secret"))
        await queue.delete(stream)
        assert await backend.peek(stream) == []
