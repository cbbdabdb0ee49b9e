"""Checks of attempts: the newest one wins, and readers are told so, all alike."""

from __future__ import annotations

import asyncio

import pytest

from streamq import FencedError, OnRetry, Reset, open_writer
from streamq.driver import ChunkQueue, StreamId

from ._checks import data_of, entries, requires
from ._harness import OpenQueue
from ._streams import StreamChecks, values


class AttemptChecks(StreamChecks):
    """Attempts are visible, never blended; the newest one wins."""

    group = "attempts"

    @requires("fenced")
    async def test_stale_epoch_is_fenced(self, queue: ChunkQueue, stream: StreamId) -> None:
        """An attempt that stalled and wakes up late must not write into its successor's text."""
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
        """Attempts run on different workers, so only the backend can do the fencing."""
        await queue.append(stream, entries(b"old-0"))
        await (await open_queue()).append(stream, entries(b"new-0", epoch=2))
        with pytest.raises(FencedError):
            await queue.append(stream, entries(b"old-1", first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0"])

    @requires("fenced")
    async def test_older_epoch_is_fenced_even_if_it_never_wrote(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """The newer attempt can be first; the older one must then not open the stream behind it."""
        await queue.append(stream, entries(b"new-0", epoch=7))
        with pytest.raises(FencedError):
            await queue.append(stream, entries(b"old-0", epoch=6))
        await self.expect(queue, stream, [b"new-0"])

    @requires("fenced", "ordered")
    async def test_takeover_leaves_nothing_of_the_old_epoch_behind_it(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Fencing has to be one step with storing: two racing attempts must never be blended."""
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

    @requires("fenced", "replay")
    async def test_next_attempt_is_told_as_a_reset_and_whole(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker dies, another takes over: the second story once, the first marked as void."""
        first = await open_writer(stream, queue=queue, epoch=10)
        await first.send_chunk("old")
        await first.flush()
        async with open_writer(stream, queue=other, epoch=20) as second:
            await second.send_chunk("new")
            await second.flush()
            await first.send_chunk("too late")
            with pytest.raises(FencedError):
                await first.flush()
        await first.aclose()
        events = await self.read_all(queue, stream)
        assert values(events) == ["old", "new"]
        assert events[1] == Reset(2, 2)
        assert [event.offset for event in events] == [1, 2, 3, 4]

    @requires("fenced", "replay")
    async def test_resuming_attempt_goes_on_after_the_last_durable_chunk(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """With resume, readers see one story told by two attempts."""
        first = await open_writer(stream, queue=queue, on_retry=OnRetry.RESUME, epoch=10)
        for text in "abc":
            await first.send_chunk(text)
        await first.flush()
        await first.aclose()
        async with open_writer(stream, queue=other, on_retry=OnRetry.RESUME, epoch=20) as second:
            assert second.position == 3
            await second.send_chunk("d")
        assert values(await self.read_all(queue, stream)) == ["a", "b", "c", "d"]

    @requires("fenced", "replay")
    async def test_two_writers_cannot_hold_one_epoch(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Skipping repeats must not make a second writer's chunks vanish."""
        async with open_writer(stream, queue=queue, epoch=5) as first:
            with pytest.raises(FencedError):
                await open_writer(stream, queue=other, epoch=5)
            await first.send_chunk("a")
        assert values(await self.read_all(other, stream)) == ["a"]
