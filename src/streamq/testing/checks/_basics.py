"""Checks of the basics: stored records can be read, described and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from streamq import CorruptRecordError, Seal, SealState, describe
from streamq.driver import ChunkQueue, Entry, Stored, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness, OpenQueue
from streamq.testing._shown import shown

from ._conditions import needs, requires
from ._promises import promises
from ._records import data_of, entries, numbered
from ._sentences import NEWEST_FIRST, REFLECTED
from ._streams import StreamChecks, values
from ._verdicts import holds, refuses, same, same_records


def _within_page(batch: Sequence[Stored], bounds: str, most: int) -> None:
    """Fail unless a read has returned at least one record, and no more than its bounds allow."""
    __tracebackhide__ = True
    least = min(most, 1)
    holds(
        least <= len(batch) <= most,
        f"a read with {bounds}",
        expected=f"{least} to {most} records" if most > least else f"{most} record",
        seen=f"{len(batch)} records: {shown(data_of(batch))}",
        cause="the bound is not applied to what the backend returned, or it is applied to the "
        "first record as well: within_bounds() of streamq.driver does both",
    )


def _same_pages(queue: ChunkQueue, found: list[bytes], data: list[bytes]) -> None:
    """Fail unless these records came, in order if the backend keeps it."""
    __tracebackhide__ = True
    if not queue.capabilities.ordered:
        found = sorted({*found})  # it may deliver some twice
    same_records(found, data, "the records of all pages")


class BasicChecks(StreamChecks):
    """Stored records come back unchanged, within bounds, and can be described and deleted."""

    group = "basics"

    @promises(
        "ChunkQueue.append",
        "The first entry creates the stream.",
    )
    @promises("Stored.data", "Exactly the bytes that were appended.")
    async def test_bytes_come_back_unchanged(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Records may be compressed or encrypted, so every byte value matters, and empty ones."""
        data = [b"", bytes(range(256)), b"\0", b"\r\n", b"\xff\xfe", b"' -- %s {}", b""]
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    @promises(
        "ChunkQueue.append",
        "Store entries, in order",
        cause="the backend limits the size of a batch or of a pipeline, and the rest is left "
        "out; or entries are stored concurrently",
    )
    async def test_many_entries_in_one_append(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A writer that is faster than the backend sends large batches."""
        data = numbered(500)
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    @promises(
        "Entry.index",
        "it grows, not always by one",
        cause="the next index is computed as the newest plus one, or the number of records",
    )
    async def test_indexes_may_have_gaps(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A driver may rely on growing indexes, but not on dense ones."""
        data = numbered(4)
        for i, item in enumerate(data):
            await queue.append(stream, entries(item, first=i * 17))
        await self.expect(queue, stream, data)

    @promises(
        "ChunkQueue.append",
        "a call with none has no effect",
        cause="an append of no entries creates the stream or renews its time to live: return "
        "before the first request",
    )
    async def test_append_of_nothing_has_no_effect(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        open_queue: OpenQueue,
        backend: BackendHarness,
    ) -> None:
        """An empty append must neither create a stream nor bring back an expired one."""
        await queue.append(stream, [])
        await self.expect_missing(queue, stream, "after an append of nothing")
        if not queue.capabilities.expires:
            return
        brief = await open_queue(ttl=backend.short_ttl)
        await brief.append(stream, entries(b"a", epoch=9))
        await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")
        await brief.append(stream, [])
        await self.expect_missing(queue, stream, "an expired stream after an append of nothing")

    @promises(
        "ChunkQueue.read",
        "Most records to return, at least 1.",
    )
    async def test_max_records_is_obeyed(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A poll activity returns a bounded batch, and the next one continues after it."""
        data = numbered(10)
        await queue.append(stream, entries(*data))
        found: list[bytes] = []
        position = ""
        while len(found) < len(data):
            batch = await self.read(queue, stream, position, max_records=3)
            _within_page(batch, "max_records=3", 3)
            found += data_of(batch)
            position = batch[-1].position
        _same_pages(queue, found, data)

    @promises(
        "ChunkQueue.read",
        "Stop before exceeding this many bytes of data, but always return one record.",
    )
    async def test_max_bytes_is_obeyed(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A batch has to fit into one Temporal payload."""
        data = [bytes([i]) * 100 for i in range(10)]
        await queue.append(stream, entries(*data))
        found: list[bytes] = []
        position = ""
        while len(found) < len(data):
            batch = await self.read(queue, stream, position, max_bytes=250)
            _within_page(batch, "max_bytes=250, of records of 100 bytes", 2)
            found += data_of(batch)
            position = batch[-1].position
        _same_pages(queue, found, data)

    @promises(
        "ChunkQueue.read",
        "Stop before exceeding this many bytes of data, but always return one record.",
    )
    async def test_one_record_is_returned_whatever_its_size(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A record larger than the caller's bound must not block the stream for ever."""
        await queue.append(stream, entries(b"x" * 5000, b"y" * 5000))
        batch = await self.read(queue, stream, max_bytes=10)
        _within_page(batch, "max_bytes=10, of records of 5,000 bytes", 1)

    @promises(
        "ChunkQueue.describe",
        "The stream does not exist, or has expired.",
    )
    @promises(
        "ChunkQueue",
        "Each error has the driver's name as ``backend`` and, if the call has one, the stream as "
        "``stream``.",
    )
    async def test_describe_of_a_missing_stream_raises(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A command with a mistyped name has to report it, not show an empty stream."""
        with refuses(StreamNotFoundError, "describe of a stream that does not exist") as caught:
            await queue.describe(stream)
        same(
            (caught.value.backend, caught.value.stream),
            (queue.backend, str(stream)),
            "backend and stream of the error",
            cause="the error is raised without backend=self.backend, stream=str(stream)",
        )

    @promises(*NEWEST_FIRST)
    @promises(
        "StreamInfo.records",
        "How many records are stored, if cheap to know; ``None`` rather than an estimate.",
    )
    @requires("replay")
    async def test_describe_returns_the_newest_records_first(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A new attempt learns from the tail where its predecessor stopped."""
        data = numbered(6)
        await queue.append(stream, entries(*data))
        info = await queue.describe(stream, last=2)
        same(info.stream, stream, "StreamInfo.stream")
        same_records(
            data_of(info.last),
            [data[5], data[4]],
            "describe(last=2) of six records",
            cause="the oldest instead of the newest records, or the newest one at the end: "
            "StreamInfo.last begins with the newest",
        )
        if info.records is not None:
            same(
                info.records,
                len(data),
                "StreamInfo.records",
                cause="appends, or another thing than records, are counted; None is allowed",
            )
        same(
            list((await queue.describe(stream)).last),
            [],
            "StreamInfo.last of describe(), without last=",
            cause="the default of last is 0: no record is requested",
        )
        if queue.capabilities.ordered:
            found = await self.read(queue, stream, info.last[1].position, max_wait=0)
            same_records(
                data_of(found),
                [data[5]],
                "the records after the position of the last but one, which describe returned",
                cause="positions of describe and of read are made in different ways",
            )

    @promises(
        "ChunkQueue.describe",
        "If fewer records are stored, all of them are returned.",
    )
    @promises(
        "ChunkQueue.describe",
        "A stream that exists has a record, so ``last`` of 1 or more never gives none.",
    )
    @requires("replay")
    async def test_describe_returns_all_when_more_are_requested(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Core requests a fixed number of records, and most streams are short at first."""
        await queue.append(stream, entries(b"a", b"b"))
        same_records(
            data_of((await queue.describe(stream, last=50)).last),
            [b"b", b"a"],
            "describe(last=50) of two records",
            cause="the request fails or is cut where there are fewer records than requested",
        )

    @promises(*REFLECTED)
    @promises(
        "ChunkQueue.append",
        "When it returns, every entry can be read and described, in every process.",
    )
    @requires("replay")
    async def test_describe_reflects_every_append_that_returned(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """A new attempt fences, then reads the tail; a stale answer would make it repeat text."""
        queues = (queue, await open_queue())
        for i in range(40):
            await queues[i % 2].append(stream, entries(b"%d" % i, first=i))
            info = await queues[(i + 1) % 2].describe(stream, last=1)
            same_records(
                data_of(info.last),
                [b"%d" % i],
                "describe(last=1) right after an append on another connection",
                cause="describe asks a replica, a cache or an index that lags behind the append",
            )

    @promises(
        "ChunkQueue.delete",
        "When it returns, the stream can no longer be read, listed or described, in any process.",
    )
    @promises(
        "ChunkQueue.delete",
        "Remove a stream and everything in it",
    )
    async def test_delete_removes_the_stream_for_everyone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Users delete data that they must not keep, so nothing may remain."""
        await queue.append(stream, entries(b"secret"))
        other = await open_queue()
        await queue.delete(stream)
        for each in (queue, other):
            which = "the connection that deleted it" if each is queue else "another connection"
            await self.expect_missing(each, stream, f"a deleted stream, on {which}")
            cause = "what is deleted stays in a cache of the connection, or an index entry is left"
            left = list(await self.read(each, stream, max_wait=0))
            same(left, [], f"the records of a deleted stream, on {which}", cause=cause)
            listed = [info.stream async for info in each.streams(stream.tenant)]
            same(
                listed, [], f"the streams that are listed after the delete, on {which}", cause=cause
            )

    @promises(
        "ChunkQueue.delete",
        "no error if it does not exist",
        cause="the error of the backend for a missing stream is passed on: it means that there "
        "is nothing to do",
    )
    async def test_delete_is_idempotent(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Cleanup jobs run twice, and race with expiry."""
        await queue.delete(stream)
        await queue.append(stream, entries(b"a"))
        await queue.delete(stream)
        await queue.delete(stream)

    @promises(
        "ChunkQueue.delete",
        "Its name can be used again, with any epoch: the fence is removed as well.",
        cause="the fence, a counter or a cached newest entry outlives the delete",
    )
    async def test_deleted_stream_can_be_created_anew(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A name can be used again after a delete; its old fence and records are gone."""
        await queue.append(stream, entries(b"old-0", b"old-1", epoch=5))
        await queue.delete(stream)
        await queue.append(stream, entries(b"new-0"))
        await self.expect(queue, stream, [b"new-0"])

    @promises(
        "ChunkQueue.describe",
        "Return what is known of a stream, with its ``last`` newest records.",
    )
    @requires("writable", "replay")
    async def test_status_reports_offset_attempt_and_seal(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Gateway and command line request the status before they read."""
        with refuses(StreamNotFoundError, "streamq.describe of a stream that does not exist"):
            await describe(stream, queue=other, settings=self.settings())
        await self.write(queue, stream, "a", "b")
        status = await describe(stream, queue=other, settings=self.settings())
        cause = "describe(last=4) leaves out the newest record, or returns stale ones"
        same(
            (status.offset, status.attempt), (3, 1), "offset and attempt of the status", cause=cause
        )
        same(status.seal, Seal(3, 1, SealState.END), "the seal in the status", cause=cause)

    @promises(
        "Entry.data",
        "The bytes to store, opaque to the driver: any bytes, also none.",
    )
    @promises(
        "Stored.data",
        "Exactly the bytes that were appended.",
    )
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
            same_records(values([await anext(reader)]), ["good"], "the first event")
            with refuses(
                CorruptRecordError,
                "reading a record that is no record of streamq",
                cause="the driver interprets, repairs or leaves out bytes that it should return",
            ):
                await anext(reader)

    @promises(
        "ChunkQueue.append",
        "What is stored is exactly the bytes of the entries, one record for each.",
        cause="the driver adds a header, encodes the bytes or joins records; or peek() returns "
        "keys and other fields with them",
    )
    @needs("peek")
    async def test_backend_holds_exactly_what_was_appended(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Another tool that inspects the backend finds exactly the bytes that were sent."""
        data = [b"", bytes(range(256)), b"\0\r\n", b"last"]
        await queue.append(stream, entries(*data[:2]))
        await queue.append(stream, entries(*data[2:], first=2))
        same_records(await backend.peek(stream), data, "peek(): what the backend holds")
        await self.expect(queue, stream, data)
        if queue.capabilities.replay:
            held = await backend.peek(stream)
            same_records(held, data, "peek(): what the backend holds after reading")

    @promises(
        "Capabilities.erases",
        "When a delete has returned, the backend holds none of the bytes that were appended: no "
        "tombstone, older version or segment has them.",
    )
    @requires("erases")
    @needs("peek")
    async def test_delete_leaves_nothing_in_the_backend(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Deletion may be required by law: hiding the stream is not enough."""
        await queue.append(stream, entries(b"secret"))
        await queue.delete(stream)
        same(
            await backend.peek(stream),
            [],
            "peek(): what the backend holds of a deleted stream",
            cause="the stream is only marked as deleted: remove its bytes, or declare erases=False",
        )
