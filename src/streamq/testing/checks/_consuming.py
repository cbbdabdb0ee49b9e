"""Checks of backends without replay: one reader, whose acknowledgement removes the records."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from streamq import (
    CapabilityError,
    ChunkTooLargeError,
    CursorError,
    EventOrGap,
    FencedError,
    OnRetry,
    Reset,
    Seal,
)
from streamq.driver import ChunkQueue, StreamId

from ._streams import StreamChecks, delivered, values

_EMPTY_POLLS = 8
_NAME_SECONDS = 120.0  # SQS blocks the name of a deleted queue for one minute


class ConsumingChecks(StreamChecks):
    """Records disappear when they are acknowledged, and not before."""

    group = "consuming"

    @pytest.fixture
    def consumed(self, queue: ChunkQueue) -> ChunkQueue:
        """Return the queue; skip if it has replay."""
        if queue.capabilities.replay:
            pytest.skip(f"{queue.backend} has replay: reading removes nothing")
        return queue

    async def batch(
        self, queue: ChunkQueue, stream: StreamId, cursor: str, *, max_events: int = 1_000
    ) -> tuple[list[EventOrGap], str]:
        """Read one batch without acknowledging it, as a poll does; the next poll acknowledges."""
        async with self.reader(queue, stream, cursor, commits=False) as reader:
            events = await reader.read_batch(max_events=max_events, max_wait=self.patience)
            return events, reader.cursor

    async def poll_on(
        self,
        stream: StreamId,
        before: Sequence[EventOrGap],
        cursor: str,
        *queues: ChunkQueue,
        most: int,
        max_events: int = 1_000,
    ) -> list[EventOrGap]:
        """Poll the queues in turn until the seal, ``most`` events, or several empty polls.

        A faulty driver must not block the suite for ever.

        Returns:
            The events before, and those that arrived.
        """
        events = [*before]
        empty = 0
        for queue in itertools.cycle(queues):
            ended = bool(events) and isinstance(events[-1], Seal)
            if ended or len(events) > most or empty > _EMPTY_POLLS:
                break
            found, cursor = await self.batch(queue, stream, cursor, max_events=max_events)
            events += found
            empty = 0 if found else empty + 1
        return events

    async def test_stream_reaches_its_reader_once_and_in_order(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The minimum that users expect: every event, once, with an ending."""
        texts = [str(i) for i in range(60)]
        following = self.follow(other, stream)
        await self.write_apart(consumed, stream, *texts)
        events = await following
        assert delivered(events) == [*texts, "END"]
        assert [event.offset for event in events] == list(range(1, len(texts) + 2))

    async def test_polls_of_different_workers_hand_the_stream_over(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Each poll may run on another machine; it acknowledges what the previous one has read."""
        texts = [str(i) for i in range(45)]
        await self.write_apart(consumed, stream, *texts)
        events = await self.poll_on(stream, [], "beginning", consumed, other, most=len(texts) + 1)
        assert delivered(events) == [*texts, "END"]

    async def test_poll_that_died_before_its_result_was_stored_is_repeated(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Its records come again, perhaps late; nothing is lost and nothing delivered twice."""
        texts = [str(i) for i in range(30)]
        await self.write_apart(consumed, stream, *texts)
        first, cursor = await self.batch(consumed, stream, "beginning")
        dead = await self.reader(consumed, stream, cursor, commits=False)
        lost = await dead.read_batch(max_wait=self.patience)
        events = await self.poll_on(stream, first, cursor, other, most=len(texts) + 1)
        assert delivered(events) == [*texts, "END"]
        assert [event for event in lost if event not in events] == []

    async def test_rest_of_a_packed_record_goes_to_the_next_reader_at_once(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A full poll stops within a record, and the next one must not wait for the rest of it."""
        await self.write(consumed, stream, *"abcdef")
        async with self.reader(consumed, stream, commits=False) as reader:
            first = await reader.read_batch(max_events=2, max_wait=self.patience)
            cursor = reader.cursor
        rest, _ = await self.batch(other, stream, cursor)
        assert delivered([*first, *rest]) == [*"abcdef", "END"]
        assert [event.offset for event in rest] == [3, 4, 5, 6, 7]

    async def test_next_attempt_starts_over_and_its_reader_counts(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Only the reader knows which events it has had: its offsets continue without a gap."""
        following = self.follow(other, stream)
        first = await self.writer(consumed, stream, epoch=10)
        for text in ("a", "b"):
            await first.send_chunk(text)
            await first.flush()
        async with self.writer(other, stream, epoch=20) as second:
            assert second.attempt == 2
            for text in ("c", "d"):
                await second.send_chunk(text)
                await second.flush()
            with pytest.raises(FencedError):
                await first.finish()
        await first.aclose()
        events = await following
        resets = [event for event in events if isinstance(event, Reset)]
        assert [reset.attempt for reset in resets] == [2]
        assert values(events)[-2:] == ["c", "d"]
        assert [event.offset for event in events] == list(range(1, len(events) + 1))

    async def test_cursor_goes_on_within_a_later_attempt(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A cursor has to hold the start of the attempt, or its offsets are useless elsewhere."""
        first = await self.writer(consumed, stream, epoch=10)
        await first.send_chunk("a")
        await first.flush()
        await first.aclose()
        events, cursor = await self.batch(other, stream, "beginning")
        async with self.writer(other, stream, epoch=20) as second:
            for text in "bcd":
                await second.send_chunk(text)
                await second.flush()
        events = await self.poll_on(stream, events, cursor, consumed, most=6, max_events=1)
        assert delivered(events) == ["a", "RESET 2", "b", "c", "d", "END"]
        assert [event.offset for event in events] == [1, 2, 3, 4, 5, 6]

    async def test_cursor_of_a_stream_that_began_again_is_refused(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A new stream under the same name is not the rest of the old one, and loses nothing."""
        await self.write_apart(consumed, stream, "a", "b")
        cursors = await self.cursors(consumed, stream)
        await other.delete(stream)
        settings = self.settings(retry_seconds=_NAME_SECONDS)
        async with self.writer(other, stream, settings=settings) as writer:
            await writer.send_chunk("c")
        for cursor in cursors[1:]:
            async with self.reader(consumed, stream, cursor, commits=False) as reader:
                with pytest.raises(CursorError, match="began again"):
                    await reader.read_batch(max_wait=self.patience)
        assert delivered(await self.read_all(other, stream)) == ["c", "END"]

    @pytest.mark.parametrize("policy", [OnRetry.RESUME, OnRetry.REPLAY], ids=lambda p: p.value)
    async def test_attempt_that_resumes_or_replays_is_refused(
        self, consumed: ChunkQueue, stream: StreamId, policy: OnRetry
    ) -> None:
        """To continue where another attempt stopped, the backend must still have its records."""
        with pytest.raises(CapabilityError, match="replay"):
            await self.writer(consumed, stream, on_retry=policy)
        assert await self.is_gone(consumed, stream)

    async def test_tail_is_refused(self, consumed: ChunkQueue, stream: StreamId) -> None:
        """A second reader "from now on" would take records away from the active one."""
        await self.write(consumed, stream, "a")
        with pytest.raises(CapabilityError, match="replay"):
            await self.reader(consumed, stream, "tail")

    async def test_chunk_larger_than_a_record_is_refused(
        self, consumed: ChunkQueue, stream: StreamId
    ) -> None:
        """Its first part would have to be kept until the last one has arrived, and may be lost."""
        limit = consumed.capabilities.max_record_bytes
        settings = self.settings(max_chunk_bytes=4 * limit, buffer_bytes=8 * limit)
        async with self.writer(consumed, stream, settings=settings) as writer:
            with pytest.raises(ChunkTooLargeError, match="replay"):
                await writer.send_chunk(b"x" * limit)
            await writer.send_chunk(b"x" * (limit - 100))
        assert len((await self.read_all(consumed, stream))[0].data) == limit - 100  # type: ignore[union-attr]

    async def test_older_and_equal_epochs_are_refused(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that froze before its first chunk may resume while its successor writes."""
        async with self.writer(consumed, stream, epoch=20) as writer:
            for epoch in (10, 20):
                with pytest.raises(FencedError):
                    await self.writer(other, stream, epoch=epoch)
            await writer.send_chunk("a")
        assert delivered(await self.read_all(other, stream)) == ["a", "END"]
