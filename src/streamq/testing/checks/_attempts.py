"""Checks of attempts: the newest one wins, and all readers get the same reset."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamq import FencedError, OnRetry, ReplayError, Reset, StreamNotFoundError
from streamq.driver import ChunkQueue, StreamId
from streamq.testing._harness import OpenQueue

from ._conditions import requires
from ._records import data_of, entries
from ._streams import StreamChecks, delivered, valid_values, values

_POLICIES = pytest.mark.parametrize("policy", list(OnRetry), ids=lambda policy: policy.value)
_RESUMING = (OnRetry.RESUME, OnRetry.REPLAY)


class AttemptChecks(StreamChecks):
    """Attempts are visible, never blended; the newest one wins."""

    group = "attempts"

    @requires("fenced")
    async def test_stale_epoch_is_fenced(self, queue: ChunkQueue, stream: StreamId) -> None:
        """An attempt that stalled and resumes late must not write into its successor's text."""
        await queue.append(stream, entries(b"old-0"))
        await queue.append(stream, entries(b"new-0", epoch=2))
        with pytest.raises(FencedError) as caught:
            await queue.append(stream, entries(b"old-1", b"old-2", first=1))
        assert (queue.backend, str(stream)) == (caught.value.backend, caught.value.stream)
        await queue.append(stream, entries(b"new-1", epoch=2, first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0", b"new-1"])

    @requires("fenced")
    async def test_stale_epoch_is_fenced_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Attempts run on different workers, so only the backend can fence them."""
        await queue.append(stream, entries(b"old-0"))
        await (await open_queue()).append(stream, entries(b"new-0", epoch=2))
        with pytest.raises(FencedError):
            await queue.append(stream, entries(b"old-1", first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0"])

    @requires("fenced")
    async def test_older_epoch_is_fenced_even_if_it_never_wrote(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """The newer attempt can write first; then the older one must not open the stream."""
        await queue.append(stream, entries(b"new-0", epoch=7))
        with pytest.raises(FencedError):
            await queue.append(stream, entries(b"old-0", epoch=6))
        await self.expect(queue, stream, [b"new-0"])

    @requires("fenced", "ordered")
    async def test_takeover_leaves_nothing_of_the_old_epoch_behind_it(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Fencing and storing must be one atomic step: two racing attempts must never be mixed."""
        other = await open_queue()
        started = asyncio.Event()

        async def old_attempt() -> None:
            for i in range(100_000):
                await queue.append(stream, entries(b"old", first=i))
                if i == 10:
                    started.set()
                await asyncio.sleep(0)

        old = self.begin(old_attempt())
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

    async def test_epochs_are_known_before_their_records(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A backend that does not fence lets a stale writer learn this way that it is stale."""
        self.skip_if_fenced(queue)
        assert await other.newest_epoch(stream) == 0
        for epoch, newest in ((5, 5), (9, 9), (7, 9)):
            with contextlib.suppress(FencedError):
                await queue.append(stream, entries(b"opening", epoch=epoch))
            assert await other.newest_epoch(stream) == newest
            assert await queue.newest_epoch(stream) == newest
        await queue.delete(stream)
        assert await other.newest_epoch(stream) == 0

    @requires("writable")
    async def test_idle_stale_writer_is_stopped(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker whose activity was given to another worker should stop spending money on it."""
        self.skip_if_fenced(queue)
        first = await self.writer(queue, stream, epoch=10)
        async with self.writer(other, stream, epoch=20), asyncio.timeout(self.patience):
            assert isinstance(await first.wait_stopped(), FencedError)
        await first.aclose()

    @requires("writable")
    async def test_stale_attempt_cannot_end_the_stream(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A stale attempt must neither end its successor's stream nor report that it has."""
        first = await self.writer(queue, stream, epoch=10)
        async with self.writer(other, stream, epoch=20) as second:
            with pytest.raises(FencedError):
                await first.finish()
            assert not first.is_sealed
            await second.send_chunk("on and on")
        await first.aclose()
        self.expect_same([await self.read_all(queue, stream)], ["on and on", "END"])

    def skip_if_fenced(self, queue: ChunkQueue) -> None:
        """Skip a check that concerns only backends that do not fence."""
        if queue.capabilities.fenced or not queue.capabilities.writable:
            pytest.skip(f"{queue.backend} refuses stale attempts, or is not writable")

    @requires("writable", "replay")
    async def test_next_attempt_is_delivered_whole_after_a_reset(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker dies and another takes over: the first text is void, the second comes once."""
        first = await self.writer(queue, stream, epoch=10)
        await first.send_chunk("old")
        await first.flush()
        async with self.writer(other, stream, epoch=20) as second:
            await second.send_chunk("new")
            await second.flush()
            await first.send_chunk("too late")
            with pytest.raises(FencedError):
                await first.finish()
        await first.aclose()
        events = await self.read_all(queue, stream)
        assert values(events) == ["old", "new"]
        assert events[1] == Reset(2, 2)
        assert [event.offset for event in events] == [1, 2, 3, 4]

    async def die_after(
        self, queue: ChunkQueue, stream: StreamId, policy: OnRetry, texts: str
    ) -> None:
        """Write as an attempt that stops without sealing the stream."""
        writer = await self.writer(queue, stream, on_retry=policy, epoch=10)
        for text in texts:
            await writer.send_chunk(text)
        await writer.flush()
        await writer.aclose()

    @requires("writable", "replay")
    async def test_resuming_attempt_goes_on_after_the_last_durable_chunk(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """With resume, readers see one text that two attempts have written."""
        await self.die_after(queue, stream, OnRetry.RESUME, "abc")
        async with self.writer(other, stream, on_retry=OnRetry.RESUME, epoch=20) as second:
            assert second.position == 3
            await second.send_chunk("d")
        assert values(await self.read_all(queue, stream)) == ["a", "b", "c", "d"]

    @requires("writable", "replay")
    async def test_replaying_attempt_sends_everything_again_and_is_delivered_once(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A deterministic producer need not know where its predecessor stopped."""
        await self.die_after(queue, stream, OnRetry.REPLAY, "abc")
        async with self.writer(other, stream, on_retry=OnRetry.REPLAY, epoch=20) as second:
            for text in "abcde":
                await second.send_chunk(text)
        assert delivered(await self.read_all(queue, stream)) == [*"abcde", "END"]

    @requires("writable", "replay")
    async def test_replay_that_differs_is_refused_and_changes_nothing(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A text made of halves of two different answers is worse than an error."""
        await self.die_after(queue, stream, OnRetry.REPLAY, "abc")
        async with self.writer(other, stream, on_retry=OnRetry.REPLAY, epoch=20) as second:
            await second.send_chunk("a")
            with pytest.raises(ReplayError) as caught:
                await second.send_chunk("x")
            assert caught.value.seq == 1
            await second.send_chunk("b")
            await second.send_chunk("c")
        assert delivered(await self.read_all(queue, stream)) == [*"abc", "END"]

    @requires("writable", "replay")
    async def test_two_writers_cannot_hold_one_epoch(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Skipping repeats must not make a second writer's chunks vanish."""
        async with self.writer(queue, stream, epoch=5) as first:
            with pytest.raises(FencedError):
                await self.writer(other, stream, epoch=5)
            await first.send_chunk("a")
        assert values(await self.read_all(other, stream)) == ["a"]

    @requires("writable", "replay")
    async def test_older_attempt_that_opens_after_a_newer_one_is_refused(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that froze before its first chunk may resume while its successor writes."""
        async with self.writer(queue, stream, epoch=20) as newer:
            with pytest.raises(FencedError):
                await self.writer(other, stream, epoch=10)
            await newer.send_chunk("a")
            await newer.flush()
            with pytest.raises(FencedError):
                await self.writer(other, stream, epoch=10)
            await newer.send_chunk("b")
        self.expect_same([await self.read_all(other, stream)], ["a", "b", "END"])

    @_POLICIES
    @requires("writable", "replay", "fan_out")
    async def test_attempt_that_keeps_writing_during_the_takeover_is_not_blended_in(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, policy: OnRetry
    ) -> None:
        """A takeover fences, then reads the tail: chunks stored before the fence are counted, none
        is stored after it, and early and late readers agree on every offset."""
        early = [self.follow(each, stream) for each in (queue, other)]
        total = 60
        first = await self.writer(queue, stream, epoch=10, on_retry=policy)
        has_begun = asyncio.Event()

        async def keep_writing() -> None:
            for i in range(100_000):
                await first.send_chunk(str(i))
                await first.flush()
                if i == 5:
                    has_begun.set()

        stalled = self.begin(keep_writing())
        async with asyncio.timeout(self.patience):
            await has_begun.wait()
            second = await self.writer(other, stream, epoch=20, on_retry=policy)
            with pytest.raises(FencedError):
                await stalled
        await first.aclose()
        assert (second.resumed_from > 5) == (policy in _RESUMING)
        begin = second.position if policy is OnRetry.RESUME else 0
        for i in range(begin, max(total, second.resumed_from)):
            await second.send_chunk(str(i))
        await second.finish()
        await second.aclose()
        late = await self.read_all(queue, stream)
        assert valid_values(late) == [str(i) for i in range(max(total, second.resumed_from))]
        self.expect_same([late, *(await asyncio.gather(*early))], delivered(late))
        resets = sum(isinstance(event, Reset) for event in late)
        assert resets == (policy is OnRetry.RESTART)

    @requires("writable", "replay", "fan_out")
    async def test_offsets_are_dense_and_equal_through_many_takeovers(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """An offset serves as browser id, log entry and cursor, so it must mean one event."""
        early = [self.follow(each, stream) for each in (queue, other)]
        story: list[object] = []
        policies = [OnRetry.RESTART, OnRetry.RESUME, OnRetry.RESTART, OnRetry.RESUME]
        for attempt, policy in enumerate(policies, 1):
            writer = await self.writer(
                (queue, other)[attempt % 2], stream, epoch=attempt * 10, on_retry=policy
            )
            assert writer.attempt == attempt
            if policy is OnRetry.RESTART and attempt > 1:
                story.append(f"RESET {attempt}")
            for i in range(attempt):
                await writer.send_chunk(f"{attempt}.{i}")
                story.append(f"{attempt}.{i}")
            await writer.flush()
            early.append(self.follow(queue, stream))
            if attempt == len(policies):
                await writer.finish()
            await writer.aclose()
        late = await self.read_all(other, stream)
        self.expect_same([*(await asyncio.gather(*early)), late], [*story, "END"])

    @requires("writable", "replay")
    async def test_attempt_that_wrote_nothing_is_counted_without_a_reset(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that died before its first chunk leaves no trace in the text."""
        with pytest.raises(StreamNotFoundError):
            await queue.describe(stream)
        await (await self.writer(queue, stream, epoch=10)).aclose()
        async with self.writer(other, stream, epoch=20) as second:
            assert second.attempt == 2
            await second.send_chunk("a")
        self.expect_same([await self.read_all(queue, stream)], ["a", "END"])
