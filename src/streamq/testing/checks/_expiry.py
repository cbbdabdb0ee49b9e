"""Checks of expiry: streams expire after their time to live, neither earlier nor later."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from streamq.driver import ChunkQueue, FencedError, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness, OpenQueue
from streamq.testing._shown import shown

from ._conditions import requires
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._streams import StreamChecks, delivered
from ._verdicts import holds, refuses, same, same_records

_SHORTER = timedelta(seconds=60)
_SWEEPS = 3
_STAYS = (
    "the time to live that an append sets is rounded up, in another unit, or not looked at when a "
    "stream is described; describe raises StreamNotFoundError once it has passed"
)
_IGNORED = "the ttl= of the append is ignored where the entries are repeats, or altogether"


class ExpiryChecks(StreamChecks):
    """Streams expire after their time to live, neither earlier nor later."""

    group = "expiry"

    @promises(
        "Capabilities.expires",
        "A stream to which nothing is appended for its time to live is gone then: it cannot be "
        "read, listed or described, though no process of streamq runs.",
    )
    @promises(
        "QueueOptions.ttl",
        "How long a stream is kept after its last append, unless the append sets another time.",
    )
    @promises(
        "ChunkQueue.streams",
        "None of the streams has expired; ``last`` may be empty.",
    )
    @requires("expires")
    async def test_stream_expires_after_its_ttl(
        self, open_queue: OpenQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Streams that are never deleted must not fill the backend."""
        queue = await open_queue(ttl=backend.short_ttl)
        await queue.append(stream, entries(b"old-0", b"old-1", epoch=3))
        left = (await queue.describe(stream)).expires_in
        holds(
            left is not None and left <= backend.short_ttl,
            "StreamInfo.expires_in of a stream that was appended to just now",
            expected=f"at most {shown(backend.short_ttl)}, the time to live of the queue",
            seen=left,
            cause="QueueOptions.ttl is not used, or in another unit",
        )
        await self.expect_expired(queue, stream)
        cause = "expiry is looked at in describe only; every call has to"
        left_over = list(await self.read(queue, stream, max_wait=0))
        same(left_over, [], "the records of an expired stream", cause=cause)
        listed = [info.stream async for info in queue.streams(stream.tenant)]
        same(listed, [], "the streams that are listed after the only one has expired", cause=cause)
        await queue.append(stream, entries(b"new-0"))
        found = data_of(await self.read(queue, stream))
        what = "the records of a stream that began again after it had expired"
        same_records(found, [b"new-0"], what, cause="the records or the fence outlive the stream")

    @promises(
        "Capabilities.expires",
        "It is not gone earlier.",
    )
    @promises(
        "ChunkQueue.append",
        "From then on it has a time to live (``capabilities.expires``), which every append renews",
    )
    @requires("expires")
    async def test_append_renews_the_ttl(
        self, open_queue: OpenQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A producer that runs for hours must not lose the beginning of its own stream."""
        queue = await open_queue(ttl=backend.short_ttl)
        ttl = backend.short_ttl.total_seconds()
        clock = asyncio.get_running_loop().time
        ends = clock() + 2 * ttl
        sent = 0
        while clock() < ends:
            await queue.append(stream, entries(b"%d" % sent, first=sent))
            sent += 1
            await asyncio.sleep(ttl / 6)
        same_records(
            data_of(await self.read(queue, stream)),
            [b"%d" % i for i in range(sent)],
            f"the records of a stream that was appended to for {2 * ttl:g} s, twice its time to "
            "live, without a pause of that length",
            cause="the time to live is set by the first append only, or is that of each record: "
            "every append renews it for the whole stream",
        )

    @promises(
        "ChunkQueue.append",
        "The first entry creates the stream. From then on it has a time to live",
        cause="the time to live is set where a writer begins; what it appends after another "
        "process has deleted the stream creates one that stays for ever",
    )
    @requires("expires", "fenced")
    async def test_stream_that_an_append_brings_back_has_a_time_to_live(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A writer that does not know of the deletion goes on, and then dies."""
        await queue.append(stream, entries(b"0", b"1"))
        await other.delete(stream)
        await queue.append(stream, entries(b"2", first=2))
        await self.expect_expiry(queue, stream, timedelta(seconds=self.patience), after=True)

    @promises(
        "Capabilities.expires",
        "``StreamInfo.expires_in`` has the time left.",
    )
    @promises(
        "StreamInfo.expires_in",
        "Time until the stream expires",
    )
    @requires("expires")
    async def test_long_ttl_is_reported(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Users can see how long a stream can still be read."""
        await queue.append(stream, entries(b"x"))
        await self.expect_expiry(queue, stream, timedelta(seconds=self.patience), after=True)

    async def expect_expired(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Wait until a stream has expired; fail if that takes longer than the patience."""
        __tracebackhide__ = True
        is_gone = partial(self.is_gone, queue, stream)
        await self.eventually(is_gone, "the stream has expired", cause=_STAYS)

    async def expect_expiry(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        ttl: timedelta,
        *,
        after: bool = False,
        cause: str = "",
    ) -> None:
        """Fail unless a stream will have expired at this time from now, or ``after`` it."""
        __tracebackhide__ = True
        left = (await queue.describe(stream)).expires_in
        holds(
            left is not None and (left > ttl) == after,
            "StreamInfo.expires_in",
            expected=f"{'more than' if after else 'at most'} {shown(ttl)}",
            seen=left,
            cause=cause
            or "expires_in does not follow the append: it is not known, is in another "
            "unit, or an append without ttl= does not set QueueOptions.ttl again",
        )

    @promises(
        "ChunkQueue.append",
        "Time to live from now, by default ``QueueOptions.ttl``.",
    )
    @requires("expires")
    async def test_append_can_shorten_the_ttl_and_the_next_one_restores_it(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """The append that ends a stream also shortens its time to live."""
        ending = new_stream()
        await queue.append(stream, entries(b"a"))
        await queue.append(stream, entries(b"b", first=1), ttl=_SHORTER)
        await self.expect_expiry(queue, stream, _SHORTER, cause=_IGNORED)
        await queue.append(stream, entries(b"c", first=2))
        await self.expect_expiry(queue, stream, _SHORTER, after=True)
        await queue.append(ending, entries(b"a"))
        await queue.append(ending, entries(b"b", first=1), ttl=backend.short_ttl)
        await self.expect_expired(queue, ending)

    @promises(
        "ChunkQueue.append",
        "A repeat sets it again",
    )
    @requires("expires", "fenced")
    async def test_repeated_append_sets_the_shorter_ttl_again(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """The acknowledgement of the last record can be lost like any other."""
        await queue.append(stream, entries(b"a"))
        last = entries(b"b", first=1)
        for _ in range(2):
            await queue.append(stream, last, ttl=_SHORTER)
            await self.expect_expiry(queue, stream, _SHORTER, cause=_IGNORED)
        await queue.append(stream, last, ttl=backend.short_ttl)
        await self.expect_expired(queue, stream)

    @promises(
        "ChunkQueue.append",
        "an append that is refused does not shorten it",
    )
    @requires("expires", "fenced")
    async def test_refused_append_shortens_nothing(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A stale attempt that ends late must not expire the stream of its successor."""
        await queue.append(stream, entries(b"old-0"))
        await queue.append(stream, entries(b"new-0", epoch=2))
        with refuses(FencedError, "append of epoch 1 after epoch 2, with a shorter time to live"):
            await other.append(stream, entries(b"old-1", first=1), ttl=_SHORTER)
        await self.expect_expiry(
            queue,
            stream,
            _SHORTER,
            after=True,
            cause="the time to live is set before the entries are compared, or in a request of its "
            "own that is sent all the same",
        )

    @promises(
        "ChunkQueue.append",
        "streamq passes a shorter one with the record that ends the stream.",
    )
    @requires("expires", "writable", "replay")
    async def test_sealed_stream_expires_by_its_own_ttl(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Thousands of finished runs must not be kept for as long as one that still runs."""
        settings = self.settings(sealed_ttl_seconds=_SHORTER.total_seconds())
        async with self.writer(queue, stream, settings=settings) as writer:
            await writer.send_chunk("a")
            await writer.flush()
            await self.expect_expiry(queue, stream, _SHORTER, after=True)
            await writer.finish()
        await self.expect_expiry(queue, stream, _SHORTER, cause=_IGNORED)
        events = delivered(await self.read_all(queue, stream))
        same_records(events, ["a", "END"], "the events of a sealed stream")
        brief = self.settings(sealed_ttl_seconds=backend.short_ttl.total_seconds())
        ending = new_stream()
        async with self.writer(queue, ending, settings=brief) as writer:
            await writer.send_chunk("a")
        await self.expect_expired(queue, ending)

    @promises(
        "ChunkQueue.delete",
        "When it returns, the stream can no longer be read, listed or described, in any process.",
    )
    @requires("expires", "writable", "replay")
    async def test_reader_of_a_deleted_stream_gets_an_error(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader must not wait for ever for a stream that no longer exists."""
        writer = await self.writer(queue, stream)
        await writer.send_chunk("a")
        await writer.flush()
        await writer.aclose()
        async with self.reader(other, stream) as reader:
            same_records(delivered([await anext(reader)]), ["a"], "the first event")
            await queue.delete(stream)
            cause = "describe still knows a stream that another connection has deleted"
            what = "reading on in a stream that was deleted meanwhile"
            with refuses(StreamNotFoundError, what, cause=cause):
                await reader.read_batch(max_wait=0.1)

    @promises(
        "ChunkQueue.sweep",
        "Remove expired streams that still take room; return how many were removed.",
    )
    @promises(
        "ChunkQueue.sweep",
        "A stream that has not expired is not touched",
    )
    @promises(
        "ChunkQueue.sweep",
        "Any number of processes may call it at the same time.",
    )
    @promises(
        "ChunkQueue.sweep",
        "Nothing of an expired one is left in the backend.",
    )
    async def test_sweep_removes_expired_streams_only(
        self, open_queue: OpenQueue, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Cleanup jobs run on several machines at once, while producers write."""
        brief = await open_queue(ttl=backend.short_ttl)
        await queue.append(stream, entries(b"a"))
        counts: list[str] = []
        for _ in range(_SWEEPS):
            gone = [new_stream() for _ in range(6)]
            for each in gone:
                await brief.append(each, entries(b"old"))
            if queue.capabilities.expires:
                # Only the last one is looked at: looking may remove it.
                await self.expect_expired(queue, gone[-1])
            left = await self._held(backend, gone) if queue.capabilities.expires else 0
            swept = await asyncio.gather(queue.sweep(), brief.sweep(), queue.sweep())
            found = data_of(await self.read(queue, stream))
            cause = "sweep removes what has not expired: look again in the step that removes"
            same_records(found, [b"a"], "the records of a stream that has not expired", cause=cause)
            if not queue.capabilities.expires:
                return
            what = "the number of expired streams whose records peek() shows after a sweep"
            cause = (
                "the backend keeps what has expired, and sweep() is not written, or removes a part"
            )
            same(await self._held(backend, gone), 0, what, cause=cause)
            counts.append(f"{sum(swept)} of {left}")
            # More are what others have left on this server, fewer what the backend has removed
            # by itself meanwhile: the next sweep decides.
            if left <= sum(swept) <= len(gone):
                return
        holds(
            False,
            f"what three sweeps at the same time returned together, {_SWEEPS} times",
            expected=f"once the number of the expired streams that are there, at most {len(gone)}",
            seen=counts,
            cause="a sweep counts streams that another one removes, or records instead of streams",
        )

    async def _held(self, backend: BackendHarness, streams: list[StreamId]) -> int:
        """Return how many streams take room, as far as the harness can tell."""
        if not backend.supplies("peek"):
            return 0
        return sum([bool(await backend.peek(each)) for each in streams])
