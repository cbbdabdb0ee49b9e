"""Checks of attempts: the newest one wins, and all readers get the same reset."""

from __future__ import annotations

import asyncio

import pytest

from streamq import FencedError, OnRetry, ReplayError, Reset
from streamq.driver import ChunkQueue, StreamId

from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._sentences import FENCED, NOT_COMPARED, ONE_STEP, REFLECTED, TWO_STEPS
from ._streams import StreamChecks, delivered, same_offsets, valid_values, values
from ._verdicts import holds, refuses, same, same_records

_POLICIES = pytest.mark.parametrize("policy", list(OnRetry), ids=lambda policy: policy.value)
_RESUMING = (OnRetry.RESUME, OnRetry.REPLAY)


_TAIL = "describe(last=...) or read() leaves out, on another connection, what was stored just now"


class AttemptChecks(StreamChecks):
    """Attempts are visible, never blended; the newest one wins."""

    group = "attempts"

    @promises(*FENCED)
    @promises(
        "ChunkQueue.append",
        "Without it entries are stored as they come, and readers drop stale ones.",
    )
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
            with refuses(FencedError, "a stale attempt that ends the stream", cause=NOT_COMPARED):
                await first.finish()
        await first.aclose()
        events = await self.read_all(queue, stream)
        same_records(values(events), ["old", "new"], "the chunks of two attempts")
        same(events[1], Reset(2, 2), "the event between the chunks of two attempts")
        same_offsets(events, [1, 2, 3, 4])

    async def die_after(
        self, queue: ChunkQueue, stream: StreamId, policy: OnRetry, texts: str
    ) -> None:
        """Write as an attempt that stops without sealing the stream."""
        writer = await self.writer(queue, stream, on_retry=policy, epoch=10)
        for text in texts:
            await writer.send_chunk(text)
        await writer.flush()
        await writer.aclose()

    @promises(*REFLECTED)
    @requires("writable", "replay")
    async def test_resuming_attempt_goes_on_after_the_last_durable_chunk(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """With resume, readers see one text that two attempts have written."""
        await self.die_after(queue, stream, OnRetry.RESUME, "abc")
        async with self.writer(other, stream, on_retry=OnRetry.RESUME, epoch=20) as second:
            what = "how many chunks the resuming attempt takes for stored"
            same(second.position, 3, what, cause=_TAIL)
            await second.send_chunk("d")
        found = values(await self.read_all(queue, stream))
        same_records(found, ["a", "b", "c", "d"], "the chunks of two attempts that make one text")

    @promises(*REFLECTED)
    @requires("writable", "replay")
    async def test_replaying_attempt_sends_everything_again_and_is_delivered_once(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A deterministic producer need not know where its predecessor stopped."""
        await self.die_after(queue, stream, OnRetry.REPLAY, "abc")
        async with self.writer(other, stream, on_retry=OnRetry.REPLAY, epoch=20) as second:
            for text in "abcde":
                await second.send_chunk(text)
        events = delivered(await self.read_all(queue, stream))
        same_records(events, [*"abcde", "END"], "the events after an attempt replayed", cause=_TAIL)

    @promises(
        "ChunkQueue.read",
        "With ``capabilities.ordered`` no record is left out: if fewer are returned than both "
        "limits allow, they are all whose append had returned, in any process, when the call "
        "began.",
    )
    @requires("writable", "replay")
    async def test_replay_that_differs_is_refused_and_changes_nothing(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A text made of halves of two different answers is worse than an error."""
        await self.die_after(queue, stream, OnRetry.REPLAY, "abc")
        async with self.writer(other, stream, on_retry=OnRetry.REPLAY, epoch=20) as second:
            await second.send_chunk("a")
            what = "a replaying attempt that sends another second chunk than its predecessor"
            with refuses(ReplayError, what, cause=_TAIL) as caught:
                await second.send_chunk("x")
            same(caught.value.seq, 1, "the number of the chunk in the error")
            await second.send_chunk("b")
            await second.send_chunk("c")
        events = delivered(await self.read_all(queue, stream))
        same_records(events, [*"abc", "END"], "the events after a replay that differed")

    @promises(
        "ChunkQueue.append",
        "An entry of the same epoch whose index is at or below the newest one is skipped without "
        "error",
    )
    @requires("writable", "replay")
    async def test_two_writers_cannot_hold_one_epoch(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Skipping repeats must not make a second writer's chunks vanish."""
        async with self.writer(queue, stream, epoch=5) as first:
            what = "a writer with epoch 5, where another one has epoch 5"
            with refuses(FencedError, what, cause=_TAIL):
                await self.writer(other, stream, epoch=5)
            await first.send_chunk("a")
        found = values(await self.read_all(other, stream))
        same_records(found, ["a"], "the chunks of the writer that was first")

    @promises(*FENCED)
    @requires("writable", "replay")
    async def test_older_attempt_that_opens_after_a_newer_one_is_refused(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that froze before its first chunk may resume while its successor writes."""
        async with self.writer(queue, stream, epoch=20) as newer:
            what = "a writer with epoch 10, where epoch 20 writes"
            with refuses(FencedError, what, cause=NOT_COMPARED):
                await self.writer(other, stream, epoch=10)
            await newer.send_chunk("a")
            await newer.flush()
            with refuses(FencedError, what, cause=NOT_COMPARED):
                await self.writer(other, stream, epoch=10)
            await newer.send_chunk("b")
        self.expect_same([await self.read_all(other, stream)], ["a", "b", "END"])

    @promises(*ONE_STEP)
    @promises(*FENCED)
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
        async with within(self.patience, "a takeover while the older attempt writes"):
            await has_begun.wait()
            second = await self.writer(other, stream, epoch=20, on_retry=policy)
            with refuses(FencedError, "an attempt that writes on and on", cause=NOT_COMPARED):
                await stalled
        await first.aclose()
        holds(
            (second.resumed_from > 5) == (policy in _RESUMING),
            f"how many chunks of its predecessor an attempt with on_retry={policy.name} keeps",
            expected="more than 5" if policy in _RESUMING else "none",
            seen=second.resumed_from,
            cause=_TAIL,
        )
        begin = second.position if policy is OnRetry.RESUME else 0
        for i in range(begin, max(total, second.resumed_from)):
            await second.send_chunk(str(i))
        await second.finish()
        await second.aclose()
        late = await self.read_all(queue, stream)
        story = [str(i) for i in range(max(total, second.resumed_from))]
        what = "the valid chunks after a takeover while the older attempt wrote"
        same_records(valid_values(late), story, what, cause=TWO_STEPS)
        self.expect_same([late, *(await asyncio.gather(*early))], delivered(late))
        resets = sum(isinstance(event, Reset) for event in late)
        what = f"the number of resets with on_retry={policy.name}"
        same(resets, int(policy is OnRetry.RESTART), what)

    @promises(
        "Capabilities.ordered",
        "Every reader gets the records of a stream in one order, that in which they were stored.",
    )
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
            same(writer.attempt, attempt, "the number of the attempt", cause=_TAIL)
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

    @promises(*REFLECTED)
    @requires("writable", "replay")
    async def test_attempt_that_wrote_nothing_is_counted_without_a_reset(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that died before its first chunk leaves no trace in the text."""
        await self.expect_missing(queue, stream, "a stream that does not exist")
        await (await self.writer(queue, stream, epoch=10)).aclose()
        async with self.writer(other, stream, epoch=20) as second:
            same(second.attempt, 2, "the number of the second attempt", cause=_TAIL)
            await second.send_chunk("a")
        self.expect_same([await self.read_all(queue, stream)], ["a", "END"])
