"""Checks of the fence: a stale attempt adds nothing, and learns that it is stale."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamq import FencedError
from streamq.driver import ChunkQueue, StreamId
from streamq.testing._harness import OpenQueue

from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries
from ._sentences import FENCED, NOT_COMPARED, ONE_STEP, TWO_STEPS
from ._streams import StreamChecks
from ._verdicts import holds, refuses, same, same_records

_LATE_APPEND = "append of epoch 1 after an entry of epoch 2"
_KNOWN = (
    "the epoch is noted in the process or connection that appends, or only after the entry with "
    "index 0 is stored: note it where every process looks, and before"
)


class FencingChecks(StreamChecks):
    """A stale attempt adds nothing to the stream, and learns that it is stale."""

    group = "fencing"

    @promises(*FENCED)
    @promises(
        "ChunkQueue.append",
        "A newer epoch has been opened; nothing was added after that.",
    )
    @requires("fenced")
    async def test_stale_epoch_is_fenced(self, queue: ChunkQueue, stream: StreamId) -> None:
        """An attempt that stalled and resumes late must not write into its successor's text."""
        await queue.append(stream, entries(b"old-0"))
        await queue.append(stream, entries(b"new-0", epoch=2))
        with refuses(FencedError, _LATE_APPEND, cause=NOT_COMPARED) as caught:
            await queue.append(stream, entries(b"old-1", b"old-2", first=1))
        same(
            (caught.value.backend, caught.value.stream),
            (queue.backend, str(stream)),
            "backend and stream of the error",
            cause="the error is raised without backend=self.backend, stream=str(stream)",
        )
        await queue.append(stream, entries(b"new-1", epoch=2, first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0", b"new-1"])

    @promises(*FENCED)
    @requires("fenced", "replay", "ordered")
    async def test_newest_entry_of_an_append_fences_whatever_came_before_it(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Of several entries the newest is the one that later appends are compared with."""
        await queue.append(stream, [*entries(b"old-0"), *entries(b"new-0", b"new-1", epoch=2)])
        cause = "the epoch of the first entry of an append is noted, and not that of the last one"
        with refuses(FencedError, "append of epoch 1 after one of epochs 1 and 2", cause=cause):
            await queue.append(stream, entries(b"old-1", first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0", b"new-1"], cause=cause)

    @promises(*FENCED)
    @promises(
        "Capabilities.fenced",
        "After an entry of an epoch is stored, no entry of an older epoch is, whichever process, "
        "on whichever connection, appends it, however late",
    )
    @requires("fenced")
    async def test_stale_epoch_is_fenced_in_another_connection(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Attempts run on different workers, so only the backend can fence them."""
        await queue.append(stream, entries(b"old-0"))
        await (await open_queue()).append(stream, entries(b"new-0", epoch=2))
        cause = (
            "the newest epoch is remembered by each connection, and the other one has changed it"
        )
        with refuses(FencedError, f"{_LATE_APPEND}, of another connection", cause=cause):
            await queue.append(stream, entries(b"old-1", first=1))
        await self.expect(queue, stream, [b"old-0", b"new-0"], cause=cause)

    @promises(*FENCED)
    @promises(
        "Entry.epoch",
        "Which run of the producer wrote it",
    )
    @requires("fenced")
    async def test_older_epoch_is_fenced_even_if_it_never_wrote(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """The newer attempt can write first; then the older one must not open the stream."""
        await queue.append(stream, entries(b"new-0", epoch=7))
        with refuses(FencedError, "append of epoch 6, index 0, after epoch 7", cause=NOT_COMPARED):
            await queue.append(stream, entries(b"old-0", epoch=6))
        await self.expect(queue, stream, [b"new-0"], cause=NOT_COMPARED)

    @promises(*ONE_STEP)
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
            async with within(self.patience, "a takeover while the older attempt appends"):
                await started.wait()
                for i in range(10):
                    await other.append(stream, entries(b"new", epoch=2, first=i))
                with refuses(FencedError, "an attempt that appends on and on", cause=NOT_COMPARED):
                    await old
        finally:
            old.cancel()
        newest = (await queue.describe(stream, last=20)).last
        what = "describe(last=20), newest first, after a takeover while the older attempt appended"
        same_records(data_of(newest), [b"new"] * 10 + [b"old"] * 10, what, cause=TWO_STEPS)

    @promises(
        "ChunkQueue.append",
        "Before an entry with index 0 is stored, its epoch is made known to :meth:`newest_epoch`.",
    )
    @promises(
        "ChunkQueue.newest_epoch",
        "Return the largest epoch that has been opened or is about to be; 0 if there is none.",
    )
    @promises(
        "ChunkQueue.newest_epoch",
        "A deleted stream has none: 0.",
    )
    async def test_epochs_are_known_before_their_records(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A backend that does not fence lets a stale writer learn this way that it is stale."""
        self.skip_if_fenced(queue)
        same(await other.newest_epoch(stream), 0, "newest_epoch() of a stream that does not exist")
        for epoch, newest in ((5, 5), (9, 9), (7, 9)):
            with contextlib.suppress(FencedError):
                await queue.append(stream, entries(b"opening", epoch=epoch))
            what = f"newest_epoch() after the opening of epoch {epoch}, on"
            same(
                await other.newest_epoch(stream), newest, f"{what} another connection", cause=_KNOWN
            )
            same(await queue.newest_epoch(stream), newest, f"{what} the same one", cause=_KNOWN)
        await queue.delete(stream)
        cause = "the note of the newest epoch outlives the stream"
        same(await other.newest_epoch(stream), 0, "newest_epoch() of a deleted stream", cause=cause)

    @promises(
        "ChunkQueue.newest_epoch",
        "An epoch is returned here, in every process, before the entry with its index 0 can be "
        "read.",
    )
    @requires("writable")
    async def test_idle_stale_writer_is_stopped(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker whose activity was given to another worker should stop spending money on it."""
        self.skip_if_fenced(queue)
        first = await self.writer(queue, stream, epoch=10)
        what = "an idle writer learns that a newer attempt has begun"
        async with self.writer(other, stream, epoch=20), within(self.patience, what, cause=_KNOWN):
            error = await first.wait_stopped()
        holds(
            isinstance(error, FencedError),
            "what has stopped an idle writer whose stream another attempt took over",
            expected="FencedError",
            seen=error,
            cause=_KNOWN,
        )
        await first.aclose()

    @promises(
        "ChunkQueue.newest_epoch",
        "So a writer whose seal is stored, and that finds no larger epoch afterwards, has ended "
        "the stream.",
    )
    @promises(*FENCED)
    @requires("writable")
    async def test_stale_attempt_cannot_end_the_stream(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A stale attempt must neither end its successor's stream nor report that it has."""
        first = await self.writer(queue, stream, epoch=10)
        async with self.writer(other, stream, epoch=20) as second:
            with refuses(FencedError, "a stale attempt that ends the stream", cause=NOT_COMPARED):
                await first.finish()
            what = "whether a stale attempt takes the stream for sealed"
            holds(not first.is_sealed, what, expected="no", seen="yes", cause=NOT_COMPARED)
            await second.send_chunk("on and on")
        await first.aclose()
        self.expect_same([await self.read_all(queue, stream)], ["on and on", "END"])

    def skip_if_fenced(self, queue: ChunkQueue) -> None:
        """Skip a check that concerns only backends that do not fence."""
        if queue.capabilities.fenced or not queue.capabilities.writable:
            pytest.skip(f"{queue.backend} refuses stale attempts, or is not writable")
