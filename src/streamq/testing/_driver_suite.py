"""The conformance suite: one test per guarantee of :mod:`streamq.driver`."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from streamq.driver import (
    ChunkQueue,
    ClosedError,
    Entry,
    FencedError,
    StreamId,
    StreamNotFoundError,
)

from ._harness import OpenQueue, data_of, entries, new_stream, numbered, require
from ._reading import ReadingChecks
from ._streams import StreamChecks
from ._waiting import WaitingChecks

TRICKY_NAMES = (
    "plain",
    "Plain",
    "a%b",
    "a_b",
    "aXb",
    "a*b",
    "a?b",
    "a[b]c",
    "a\\b",
    "a'b\"c",
    "{a}b",
    "a:b",
    "a/b/c",
    "/a",
    "a/",
    " a  b ",
    "größe 流れ 🌊",
    "n" * 1024,
    "é" * 512,
)


class DriverSuite(ReadingChecks, WaitingChecks, StreamChecks):
    """Everything that :mod:`streamq.driver` demands, as tests; subclass it in a driver's own tests.

    Capabilities that the opened queue declares are mandatory; tests of others are skipped with the
    reason. Every test uses streams of its own, so that a shared server needs no cleaning.

    Example:
        ::

            class TestMemory(DriverSuite):
                @pytest.fixture
                async def open_queue(self) -> AsyncIterator[OpenQueue]:
                    settings = MemorySettings(store=uuid.uuid4().hex)
                    async with queue_factory(MemoryDriver, settings) as open_queue:
                        yield open_queue
    """

    @staticmethod
    async def is_gone(queue: ChunkQueue, stream: StreamId) -> bool:
        """Whether the stream does not exist."""
        try:
            await queue.describe(stream)
        except StreamNotFoundError:
            return True
        return False

    # -- append: repeats and fencing ---------------------------------------------------------

    async def test_append_of_nothing_has_no_effect(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """It must neither create a stream nor bring an expired one back."""
        await queue.append(stream, [])
        with pytest.raises(StreamNotFoundError):
            await queue.describe(stream)
        brief = await open_queue(ttl=self.short_ttl)
        await brief.append(stream, entries(b"a", epoch=9))
        await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")
        await brief.append(stream, [])
        with pytest.raises(StreamNotFoundError):
            await queue.describe(stream)

    async def test_repeated_append_is_skipped(self, queue: ChunkQueue, stream: StreamId) -> None:
        """A lost acknowledgement makes core append again; readers must not see the text twice."""
        data = numbered(3)
        for _ in range(3):
            await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    async def test_repeat_continues_where_a_prefix_was_stored(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A connection may break in the middle of a batch; the repeat adds just what is missing."""
        data = numbered(5)
        await queue.append(stream, entries(*data[:2]))
        await queue.append(stream, entries(*data))
        await self.expect(queue, stream, data)

    async def test_repeat_through_another_connection_is_skipped(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """The repeat often comes over a new connection, which must know what the old one stored."""
        data = numbered(4)
        await queue.append(stream, entries(*data[:3]))
        await (await open_queue()).append(stream, entries(*data[1:], first=1))
        await self.expect(queue, stream, data)

    async def test_stale_epoch_is_fenced(self, queue: ChunkQueue, stream: StreamId) -> None:
        """An attempt that stalled and wakes up late must not write into its successor's text."""
        require(queue, "fenced")
        await queue.append(stream, entries(b"old-0"))
        await queue.append(stream, entries(b"new-0", epoch=2))
        with pytest.raises(FencedError) as caught:
            await queue.append(stream, entries(b"old-1", b"old-2", first=1))
        assert (queue.backend, str(stream)) == (caught.value.backend, caught.value.stream)
        await queue.append(stream, entries(b"new-1", epoch=2, first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0", b"new-1"])

    async def test_stale_epoch_is_fenced_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Attempts run on different workers, so only the backend can do the fencing."""
        require(queue, "fenced")
        await queue.append(stream, entries(b"old-0"))
        await (await open_queue()).append(stream, entries(b"new-0", epoch=2))
        with pytest.raises(FencedError):
            await queue.append(stream, entries(b"old-1", first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0"])

    async def test_older_epoch_is_fenced_even_if_it_never_wrote(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """The newer attempt can be first; the older one must then not open the stream behind it."""
        require(queue, "fenced")
        await queue.append(stream, entries(b"new-0", epoch=7))
        with pytest.raises(FencedError):
            await queue.append(stream, entries(b"old-0", epoch=6))
        await self.expect(queue, stream, [b"new-0"])

    async def test_epochs_and_indexes_are_compared_as_numbers(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Compared as text, 10 comes before 9: a stream would break at its tenth record."""
        ids = [(9, 9), (9, 10), (9, 100), (10, 0), (10, 9), (10, 10), (2**62, 3), (2**63 - 1, 0)]
        for epoch, index in ids:
            await queue.append(stream, [Entry(epoch, index, f"{epoch}.{index}".encode())])
        found = await self.expect(queue, stream, [f"{e}.{i}".encode() for e, i in ids])
        require(queue, "replay")
        for at, record in enumerate(found):
            rest = await self.read(queue, stream, record.position, max_wait=0)
            assert data_of(found[at + 1 :]) == data_of(rest)

    async def test_takeover_leaves_nothing_of_the_old_epoch_behind_it(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Fencing has to be one step with storing: two racing attempts must never be blended."""
        require(queue, "fenced", "ordered")
        other = await open_queue()
        started = asyncio.Event()

        async def old_attempt() -> None:
            for i in range(100_000):
                await queue.append(stream, entries(b"old", first=i))
                if i == 10:
                    started.set()
                await asyncio.sleep(0)

        old = asyncio.ensure_future(old_attempt())
        try:
            async with asyncio.timeout(self.patience):
                await started.wait()
                for i in range(10):
                    await other.append(stream, entries(b"new", epoch=2, first=i))
                with pytest.raises(FencedError):
                    await old
        finally:
            old.cancel()
        newest = (await queue.describe(stream, last=20)).last
        assert data_of(newest) == [b"new"] * 10 + [b"old"] * 10

    # -- append: cancellation and concurrency ------------------------------------------------

    async def test_cancelled_append_can_be_repeated(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that shuts down cancels appends anywhere; the repeat must heal it."""
        dice = random.Random(20240607)
        data = numbered(240)
        for first in range(0, len(data), 4):
            batch = entries(*data[first : first + 4], first=first)
            append = asyncio.ensure_future(queue.append(stream, batch))
            if dice.random() < 0.5:
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
            else:
                await asyncio.wait({append}, timeout=dice.random() * 0.003)
            append.cancel()
            await asyncio.gather(append, return_exceptions=True)
            await queue.append(stream, batch)
        await self.expect(queue, stream, data)

    async def test_interleaved_writers_of_many_streams(
        self, queue: ChunkQueue, open_queue: OpenQueue
    ) -> None:
        """A worker runs many activities; their records must not leak into each other."""
        queues = (queue, await open_queue())
        streams = [new_stream() for _ in range(20)]

        async def write(at: int) -> None:
            for i in range(25):
                await queues[at % 2].append(streams[at], entries(b"%d.%d" % (at, i), first=i))

        async with asyncio.timeout(4 * self.patience), asyncio.TaskGroup() as group:
            for at in range(len(streams)):
                group.create_task(write(at))
        for at, stream in enumerate(streams):
            await self.expect(queue, stream, [b"%d.%d" % (at, i) for i in range(25)])

    # -- describe, delete, list ----------------------------------------------------------------

    async def test_describe_of_a_missing_stream_raises(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """`streamq describe` of a mistyped name has to say so, not show an empty stream."""
        with pytest.raises(StreamNotFoundError) as caught:
            await queue.describe(stream)
        assert (queue.backend, str(stream)) == (caught.value.backend, caught.value.stream)

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
        require(queue, "replay", "ordered")
        assert [data[5]] == data_of(
            await self.read(queue, stream, info.last[1].position, max_wait=0)
        )

    async def test_describe_returns_all_when_more_are_asked_for(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Core asks for a fixed number of records, and most streams are young."""
        await queue.append(stream, entries(b"a", b"b"))
        assert data_of((await queue.describe(stream, last=50)).last) == [b"b", b"a"]

    async def test_describe_reflects_every_append_that_returned(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Fence first, then read the tail: a stale answer would make an attempt repeat its text."""
        queues = (queue, await open_queue())
        for i in range(40):
            await queues[i % 2].append(stream, entries(b"%d" % i, first=i))
            info = await queues[(i + 1) % 2].describe(stream, last=1)
            assert [b"%d" % i] == data_of(info.last)

    async def test_delete_removes_the_stream_for_everyone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Deleting is how users get rid of data they must not keep: nothing may remain."""
        await queue.append(stream, entries(b"secret"))
        other = await open_queue()
        await queue.delete(stream)
        for each in (queue, other):
            with pytest.raises(StreamNotFoundError):
                await each.describe(stream)
            assert list(await self.read(each, stream, max_wait=0)) == []
            assert [info async for info in each.streams(stream.tenant)] == []

    async def test_delete_is_idempotent(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Cleaning jobs run twice, and race with expiry."""
        await queue.delete(stream)
        await queue.append(stream, entries(b"a"))
        await queue.delete(stream)
        await queue.delete(stream)

    async def test_deleted_stream_can_be_created_anew(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A name may be used again after a delete; the old fence and the old records are gone."""
        await queue.append(stream, entries(b"old-0", b"old-1", epoch=5))
        await queue.delete(stream)
        await queue.append(stream, entries(b"new-0"))
        await self.expect(queue, stream, [b"new-0"])

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

    async def test_prefix_is_taken_literally(self, queue: ChunkQueue) -> None:
        """`%`, `_`, `*`, `?`, `[` are letters of a name, whatever the backend's patterns."""
        tenant = new_stream().tenant
        for name in TRICKY_NAMES:
            await queue.append(StreamId(tenant, name), entries(b"x"))
        for prefix in (
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
            "é" * 512,
        ):
            assert sorted(name for name in TRICKY_NAMES if name.startswith(prefix)) == sorted(
                [info.stream.name async for info in queue.streams(tenant, prefix)]
            )

    # -- expiry --------------------------------------------------------------------------------

    async def test_stream_expires_after_its_ttl(
        self, open_queue: OpenQueue, stream: StreamId
    ) -> None:
        """Streams nobody deletes must not fill the backend."""
        queue = await open_queue(ttl=self.short_ttl)
        require(queue, "expires")
        await queue.append(stream, entries(b"old-0", b"old-1", epoch=3))
        left = (await queue.describe(stream)).expires_in
        assert left is not None
        assert left <= self.short_ttl
        await self.eventually(partial(self.is_gone, queue, stream), "the stream has expired")
        assert list(await self.read(queue, stream, max_wait=0)) == []
        assert [info async for info in queue.streams(stream.tenant)] == []
        await queue.append(stream, entries(b"new-0"))
        assert data_of(await self.read(queue, stream)) == [b"new-0"]

    async def test_append_renews_the_ttl(self, open_queue: OpenQueue, stream: StreamId) -> None:
        """A producer that runs for hours must not lose the beginning of its own stream."""
        queue = await open_queue(ttl=self.short_ttl)
        require(queue, "expires")
        ttl = self.short_ttl.total_seconds()
        clock = asyncio.get_running_loop().time
        ends = clock() + 2 * ttl
        sent = 0
        while clock() < ends:
            await queue.append(stream, entries(b"%d" % sent, first=sent))
            sent += 1
            await asyncio.sleep(ttl / 6)
        assert [b"%d" % i for i in range(sent)] == data_of(await self.read(queue, stream))

    async def test_long_ttl_is_reported(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Users are told how long a stream can still be read."""
        require(queue, "expires")
        await queue.append(stream, entries(b"x"))
        left = (await queue.describe(stream)).expires_in
        assert left is not None
        assert left.total_seconds() > self.patience

    # -- closing -------------------------------------------------------------------------------

    async def test_aclose_is_idempotent(self, queue: ChunkQueue) -> None:
        """Nested cleanups close twice."""
        await queue.aclose()
        await asyncio.gather(queue.aclose(), queue.aclose())

    async def test_aclose_ends_blocked_reads_at_once(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A shutdown must not take as long as the longest poll, whatever is being waited for."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        reads = [
            await self.blocked(self.read(queue, stream, tail)),
            await self.blocked(self.read(queue, new_stream())),
        ]
        async with asyncio.timeout(2):
            await queue.aclose()
            results = await asyncio.gather(*reads, return_exceptions=True)
        assert [ClosedError, ClosedError] == [type(result) for result in results]

    async def test_closed_queue_refuses_everything(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Using a closed queue is a bug in the caller, and must not look like a broken network."""
        await queue.append(stream, entries(b"a"))
        await queue.aclose()
        with pytest.raises(ClosedError):
            await queue.append(stream, entries(b"b", first=1))
        with pytest.raises(ClosedError):
            await self.read(queue, stream, max_wait=0)
        with pytest.raises(ClosedError):
            await queue.describe(stream)
        with pytest.raises(ClosedError):
            await queue.delete(stream)
        with pytest.raises(ClosedError):
            _ = [info async for info in queue.streams(stream.tenant)]

    async def test_closing_one_queue_leaves_others_alone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Gateway and worker may share a process; one going away must not stop the other."""
        other = await open_queue()
        waiting = await self.blocked(self.read(other, stream))
        await queue.aclose()
        await other.append(stream, entries(b"a"))
        assert data_of(await waiting) == [b"a"]

    async def test_records_outlive_the_connections(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """What was acknowledged is still there when every client has been restarted."""
        require(queue, "durable")
        await queue.append(stream, entries(b"a", b"b"))
        await queue.aclose()
        await self.expect(await open_queue(), stream, [b"a", b"b"])
