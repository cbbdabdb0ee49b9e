"""Checks of backends without replay: one reader, whose acknowledgement removes the records."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from streamq import (
    CapabilityError,
    Chunk,
    ChunkTooLargeError,
    CursorError,
    EventOrGap,
    FencedError,
    OnRetry,
    Reset,
    Seal,
)
from streamq.driver import ChunkQueue, StreamId

from ._promises import promises
from ._streams import StreamChecks, delivered, same_offsets, values
from ._verdicts import refuses, same, same_records

_EMPTY_POLLS = 8
_NAME_SECONDS = 120.0  # SQS blocks the name of a deleted queue for one minute


_COMMIT = (
    "commit() acknowledges more or less than the records up to the position, or needs something "
    "that only the connection that read them has"
)
_EPOCH = "newest_epoch() on another connection does not know an epoch that has been opened"
_AGAIN = (
    "positions do not say which stream they are of, so that a new one seems to go on after them"
)


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

    @promises(
        "ChunkQueue.read",
        "records that were read are hidden until they are committed",
    )
    @promises(
        "ChunkQueue.commit",
        "Acknowledge records up to ``upto``: no reader will request them again.",
    )
    async def test_stream_reaches_its_reader_once_and_in_order(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The minimum that users expect: every event, once, with an ending."""
        texts = [str(i) for i in range(60)]
        following = self.follow(other, stream)
        await self.write_apart(consumed, stream, *texts)
        events = await following
        same_records(delivered(events), [*texts, "END"], "the events that the only reader got")
        same_offsets(events, range(1, len(texts) + 2))

    @promises(
        "ChunkQueue.commit",
        "The position alone has to suffice, in another process too",
    )
    async def test_polls_of_different_workers_hand_the_stream_over(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Each poll may run on another machine; it acknowledges what the previous one has read."""
        texts = [str(i) for i in range(45)]
        await self.write_apart(consumed, stream, *texts)
        events = await self.poll_on(stream, [], "beginning", consumed, other, most=len(texts) + 1)
        what = "the events of polls on two connections in turn"
        same_records(delivered(events), [*texts, "END"], what, cause=_COMMIT)

    @promises(
        "ChunkQueue.read",
        "if they are released or a time-out of the backend passes first, they are delivered again",
    )
    @promises(
        "ChunkQueue.release",
        "Records that are not released come again later, after at most :attr:`hidden_seconds`.",
    )
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
        what = "the events of all polls, of which one died"
        same_records(delivered(events), [*texts, "END"], what, cause=_COMMIT)
        missing = [event for event in lost if event not in events]
        same(missing, [], "the events of the poll that died and that did not come again")

    @promises(
        "ChunkQueue.release",
        "Release records that were read after a position and that this reader will not commit.",
    )
    async def test_rest_of_a_packed_record_goes_to_the_next_reader_at_once(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A full poll stops within a record, and the next one must not wait for the rest of it."""
        await self.write(consumed, stream, *"abcdef")
        async with self.reader(consumed, stream, commits=False) as reader:
            first = await reader.read_batch(max_events=2, max_wait=self.patience)
            cursor = reader.cursor
        rest, _ = await self.batch(other, stream, cursor)
        what = "the events of a full poll and of the next one"
        cause = "release() does not give back what was read: the next reader waits for the time-out"
        same_records(delivered([*first, *rest]), [*"abcdef", "END"], what, cause=cause)
        same_offsets(rest, [3, 4, 5, 6, 7])

    @promises(
        "StreamInfo.attempts",
        "How many epochs have been opened, if the backend counts them; needed only without "
        "``capabilities.replay``, where streamq cannot count them.",
    )
    @promises(
        "ChunkQueue.newest_epoch",
        "An epoch is returned here, in every process, before the entry with its index 0 can be "
        "read.",
    )
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
            cause = "StreamInfo.attempts does not count the epochs that were opened"
            same(second.attempt, 2, "the number of the second attempt", cause=cause)
            for text in ("c", "d"):
                await second.send_chunk(text)
                await second.flush()
            what = "the first attempt ends the stream after the second has begun"
            with refuses(FencedError, what, cause=_EPOCH):
                await first.finish()
        await first.aclose()
        events = await following
        resets = [event.attempt for event in events if isinstance(event, Reset)]
        same(resets, [2], "the attempts that a reset announces")
        same_records(values(events)[-2:], ["c", "d"], "the last two chunks")
        same_offsets(events, range(1, len(events) + 1))

    @promises(
        "ChunkQueue.commit",
        "The position alone has to suffice, in another process too",
    )
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
        story = ["a", "RESET 2", "b", "c", "d", "END"]
        same_records(delivered(events), story, "the events of polls of one event", cause=_COMMIT)
        same_offsets(events, [1, 2, 3, 4, 5, 6])

    @promises(
        "ChunkQueue.commit",
        "If the stream was deleted and began again under the same name, nothing of the new one "
        "is removed.",
    )
    @promises(
        "ChunkQueue.commit",
        "``upto`` is of a stream that was deleted since.",
    )
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
                what = "reading on after a cursor of a deleted stream, in its successor"
                with refuses(CursorError, what, match="began again", cause=_AGAIN):
                    await reader.read_batch(max_wait=self.patience)
        events = delivered(await self.read_all(other, stream))
        what = "the events of a stream that began again, after old cursors were refused"
        same_records(events, ["c", "END"], what, cause=_AGAIN)

    @promises(
        "Capabilities.replay",
        "a stream has one reader, which cannot begin at the tail, and attempts cannot resume or "
        "replay",
    )
    @pytest.mark.parametrize("policy", [OnRetry.RESUME, OnRetry.REPLAY], ids=lambda p: p.value)
    async def test_attempt_that_resumes_or_replays_is_refused(
        self, consumed: ChunkQueue, stream: StreamId, policy: OnRetry
    ) -> None:
        """To continue where another attempt stopped, the backend must still have its records."""
        with refuses(CapabilityError, f"a writer with on_retry={policy.name}", match="replay"):
            await self.writer(consumed, stream, on_retry=policy)
        await self.expect_missing(consumed, stream, "a stream whose only writer was refused")

    @promises(
        "Capabilities.replay",
        "a stream has one reader, which cannot begin at the tail, and attempts cannot resume or "
        "replay",
    )
    async def test_tail_is_refused(self, consumed: ChunkQueue, stream: StreamId) -> None:
        """A second reader "from now on" would take records away from the active one."""
        await self.write(consumed, stream, "a")
        with refuses(CapabilityError, "a reader at the tail", match="replay"):
            await self.reader(consumed, stream, "tail")

    @promises(
        "Capabilities.max_record_bytes",
        "streamq splits larger chunks by it.",
    )
    async def test_chunk_larger_than_a_record_is_refused(
        self, consumed: ChunkQueue, stream: StreamId
    ) -> None:
        """Its first part would have to be kept until the last one has arrived, and may be lost."""
        limit = consumed.capabilities.max_record_bytes
        settings = self.settings(max_chunk_bytes=4 * limit, buffer_bytes=8 * limit)
        async with self.writer(consumed, stream, settings=settings) as writer:
            what = f"a chunk of {limit} bytes, more than fits into one record"
            with refuses(ChunkTooLargeError, what, match="replay"):
                await writer.send_chunk(b"x" * limit)
            await writer.send_chunk(b"x" * (limit - 100))
        first = (await self.read_all(consumed, stream))[0]
        what = "the size of the largest chunk that fits"
        same(len(first.data) if isinstance(first, Chunk) else first, limit - 100, what)

    @promises(
        "ChunkQueue.newest_epoch",
        "Return the largest epoch that has been opened or is about to be; 0 if there is none.",
    )
    async def test_older_and_equal_epochs_are_refused(
        self, consumed: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that froze before its first chunk may resume while its successor writes."""
        async with self.writer(consumed, stream, epoch=20) as writer:
            for epoch in (10, 20):
                what = f"a writer with epoch {epoch}, where epoch 20 writes"
                with refuses(FencedError, what, cause=_EPOCH):
                    await self.writer(other, stream, epoch=epoch)
            await writer.send_chunk("a")
        events = delivered(await self.read_all(other, stream))
        same_records(events, ["a", "END"], "the events of the newest attempt")
