"""Checks of backends without replay: what a reader has taken is hidden, given back, or removed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamq.driver import START, ChunkQueue, Stored, StreamId, StreamqError

from ._base import Checks
from ._promises import promises
from ._records import data_of, entries, numbered
from ._verdicts import holds, same_records

_LATE_SECONDS = 0.5


class HidingChecks(Checks):
    """What a reader has taken is hidden from others until it is committed or given back."""

    group = "hiding"

    @pytest.fixture
    def taking(self, queue: ChunkQueue) -> ChunkQueue:
        """Return the queue; skip if it has replay."""
        if queue.capabilities.replay:
            pytest.skip(f"{queue.backend} has replay: reading removes nothing")
        return queue

    async def take(self, queue: ChunkQueue, stream: StreamId, count: int) -> list[Stored]:
        """Take some records without acknowledging any."""
        found: list[Stored] = []
        async with asyncio.timeout(2 * self.patience):
            while len(found) < count:
                found += await queue.read(
                    stream, START, max_records=10, max_bytes=10**6, max_wait=self.patience
                )
        return found

    async def within(self, queue: ChunkQueue, stream: StreamId, seconds: float) -> list[bytes]:
        """Return all that a reader gets within a time, without acknowledging it."""
        clock = asyncio.get_running_loop().time
        until, found = clock() + seconds, list[Stored]()
        while (left := until - clock()) > 0:
            found += await queue.read(stream, START, max_records=10, max_bytes=10**6, max_wait=left)
        return data_of(found)

    @promises(
        "ChunkQueue.read",
        "records that were read are hidden until they are committed",
        cause="a record is not hidden, or not at once, when it is given to a reader",
    )
    @promises("ChunkQueue.read", "a time-out of the backend passes first, they are delivered again")
    async def test_taken_record_is_hidden_and_comes_again_if_its_reader_dies(
        self, taking: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Two readers with the same text would show it twice; a dead one must not keep it."""
        await taking.append(stream, entries(b"a"))
        await self.take(taking, stream, 1)
        at_once = await self.within(other, stream, min(0.1, taking.hidden_seconds / 4))
        same_records(at_once, [], "what another reader gets of a record that was taken")
        clock = asyncio.get_running_loop().time
        started = clock()
        # It waits before the record becomes visible, which no append announces.
        again = await self.take(other, stream, 1)
        same_records(data_of(again), [b"a"], "what another reader gets after hidden_seconds")
        waited = clock() - started
        longest = taking.hidden_seconds + self.patience / 2
        holds(
            waited < longest,
            "how long a blocked reader waits for a record whose reader has died",
            expected=f"hidden_seconds, {taking.hidden_seconds:g} s, and little more",
            seen=f"{waited:.2f} s",
            cause="hidden_seconds is too small, or a blocked read does not look again",
        )

    @promises("ChunkQueue.release", "Release records that were read after a position")
    async def test_released_records_go_to_the_next_reader_at_once(
        self, taking: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The next poll waits for what the last one could not deliver; a user watches meanwhile."""
        data = numbered(3)
        for index, item in enumerate(data):
            await taking.append(stream, entries(item, first=index))
        taken = await self._taken_in_turn(taking, stream, data)
        clock = asyncio.get_running_loop().time
        started = clock()
        await taking.release(stream, taken[0].position)
        given = await other.read(stream, START, max_records=1, max_bytes=10**6, max_wait=0.02)
        same_records(
            [item for item in data_of(given) if item == taken[0].data],
            [],
            "the record at the position of release(), which another reader got",
            cause="release() gives back what is at or before its position as well",
        )
        await taking.commit(stream, taken[0].position)
        rest = [*given]
        while len(rest) < len(taken) - 1 and clock() < started + self.patience:
            if rest:
                await other.commit(stream, rest[-1].position)
            rest += await other.read(stream, START, max_records=1, max_bytes=10**6, max_wait=1.0)
        waited = clock() - started
        holds(
            waited < taking.hidden_seconds / 2 + _LATE_SECONDS or len(taken) == 1,
            "how long another reader waits for records that were released",
            expected=f"much less than hidden_seconds, {taking.hidden_seconds:g} s",
            seen=f"{waited:.2f} s for {len(rest)} of {len(taken) - 1} records",
            cause="release() gives back nothing, or one record only",
        )

    async def _taken_in_turn(
        self, queue: ChunkQueue, stream: StreamId, data: list[bytes]
    ) -> list[Stored]:
        """Take as many records as the backend gives at once, at least one."""
        found = await self.take(queue, stream, 1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(0.1, queue.hidden_seconds / 8)):
                while len(found) < len(data):
                    found += await queue.read(
                        stream, START, max_records=10, max_bytes=10**6, max_wait=0.05
                    )
        return found

    @promises(
        "ChunkQueue.commit", "Acknowledge records up to ``upto``: no reader will request them again"
    )
    @promises("ChunkQueue.read", "Most records to return, at least 1.")
    async def test_committed_record_never_comes_again(
        self, taking: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A record that comes back after its acknowledgement would be shown twice."""
        data = numbered(4)
        await taking.append(stream, entries(*data))
        found: list[bytes] = []
        position = START
        for most in (1, 2, 1, 1, 1, 1):
            batch = await taking.read(
                stream, position, max_records=most, max_bytes=10**6, max_wait=self.patience
            )
            holds(
                1 <= len(batch) <= most,
                f"a read with max_records={most}, while {len(data) - len(found)} records are there",
                expected=f"1 to {most} records",
                seen=f"{len(batch)} records",
            )
            found += data_of(batch)
            position = batch[-1].position
            for _ in range(2):
                await other.commit(stream, batch[-1].position)
            if len(set(found)) == len(data):
                break
        same_records(sorted(set(found)), data, "the records that were read")
        again = await self.within(other, stream, taking.hidden_seconds + 0.2)
        same_records(again, [], "what comes after the commit, for longer than hidden_seconds")
        await taking.delete(stream)
        with contextlib.suppress(StreamqError):  # and no other error
            await other.commit(stream, batch[-1].position)

    @promises("ChunkQueue.append", "repeating the call is always safe")
    async def test_repeat_without_a_fence_loses_nothing(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """The first part of an append may be stored when its connection breaks."""
        if queue.capabilities.fenced:
            pytest.skip(f"{queue.backend} fences: other checks demand more")
        data = numbered(3)
        await queue.append(stream, entries(*data[:1]))
        await queue.append(stream, entries(*data))
        found: set[bytes] = set()
        position = START
        async with asyncio.timeout(4 * self.patience):
            while not found >= set(data):
                batch = await self.read(queue, stream, position, max_wait=self.patience / 4)
                found |= set(data_of(batch))
                position = batch[-1].position if batch else position
