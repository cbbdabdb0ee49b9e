"""Checks of backends without replay: what a reader has taken is hidden, given back, or removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from streamq.driver import START, ChunkQueue, Stored, StreamId, StreamqError
from streamq.testing._virtual_time import VirtualTimeLoop

from ._base import Checks
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, numbered
from ._verdicts import holds, same_records

_LATE_SECONDS = 0.5
_EXACT_SECONDS = 0.1
_NOT_SEEN = "hidden_seconds is too small, or a blocked read does not look again"
_SKIPPED = "an append is taken for a repeat, and skipped, because its first entry is stored already"


class HidingChecks(Checks):
    """What a reader has taken is hidden from others until it is committed or given back."""

    group = "hiding"

    @pytest.fixture
    def taking(self, queue: ChunkQueue) -> ChunkQueue:
        """Return the queue; skip if it has replay."""
        if queue.capabilities.replay:
            pytest.skip(f"{queue.backend} has replay: reading removes nothing")
        return queue

    async def take(
        self, queue: ChunkQueue, stream: StreamId, count: int, after: str = START
    ) -> list[Stored]:
        """Take some records without acknowledging any, however long they are hidden."""
        found: list[Stored] = []
        wait = 2 * queue.hidden_seconds + self.patience
        async with within(wait + self.patience, f"reading {count} records", cause=_NOT_SEEN):
            while len(found) < count:
                found += await queue.read(
                    stream, after, max_records=10, max_bytes=10**6, max_wait=wait
                )
        return found

    async def received(self, queue: ChunkQueue, stream: StreamId, seconds: float) -> list[bytes]:
        """Return all that a reader gets within a time, without acknowledging it."""
        clock = asyncio.get_running_loop().time
        until, found = clock() + seconds, list[Stored]()
        while (left := until - clock()) > 0:
            found += await queue.read(stream, START, max_records=10, max_bytes=10**6, max_wait=left)
        return data_of(found)

    async def acknowledged(
        self, queue: ChunkQueue, stream: StreamId, found: Sequence[Stored], count: int, until: float
    ) -> list[Stored]:
        """Read on from what was found, and acknowledge it, until there are so many records."""
        clock = asyncio.get_running_loop().time
        found = [*found]
        while len({each.data for each in found}) < count and clock() < until:
            if found:
                await queue.commit(stream, found[-1].position)
            found += await queue.read(stream, START, max_records=1, max_bytes=10**6, max_wait=1.0)
        return found

    @property
    def lateness(self) -> float:
        """How many seconds a busy machine may be late; in virtual time none is."""
        is_virtual = isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        return _EXACT_SECONDS if is_virtual else self.patience / 2

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
        await taking.append(stream, entries(*numbered(3)))
        first, *rest = await self.take(taking, stream, 1)
        # Now the other reader's call is no repeat of this one, which may get the same again.
        await taking.commit(stream, first.position)
        rest = rest or await self.take(taking, stream, 1, first.position)
        clock = asyncio.get_running_loop().time
        started = clock()
        at_once = await self.received(other, stream, min(0.1, taking.hidden_seconds / 4))
        hidden = [data for data in data_of(rest) if data != first.data]
        shown_twice = [data for data in at_once if data in hidden]
        same_records(shown_twice, [], "what another reader gets of records that were taken")
        found = {*at_once}
        while not found >= {*hidden}:
            # It waits before the record becomes visible, which no append announces.
            batch = await self.take(other, stream, 1)
            found |= {*data_of(batch)}
            await other.commit(stream, batch[-1].position)
        waited = clock() - started
        holds(
            waited < taking.hidden_seconds + self.lateness,
            "how long a blocked reader waits for a record whose reader has died",
            expected=f"hidden_seconds, {taking.hidden_seconds:g} s, and little more",
            seen=f"{waited:.2f} s",
            cause=_NOT_SEEN,
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
        until = started + self.patience
        rest = await self.acknowledged(other, stream, given, len(taken) - 1, until)
        waited = clock() - started
        holds(
            waited < taking.hidden_seconds / 2 + _LATE_SECONDS or len(taken) == 1,
            "how long another reader waits for records that were released",
            expected=f"much less than hidden_seconds, {taking.hidden_seconds:g} s",
            seen=f"{waited:.2f} s for {len(rest)} of {len(taken) - 1} records",
            cause="release() gives back nothing, or one record only",
        )

    @promises("ChunkQueue.release", "Release records that were read after a position")
    @promises(
        "Capabilities.ordered",
        "No reader gets a record before another one that it will get later, so a position never "
        "hides an earlier record.",
    )
    async def test_records_given_back_from_the_start_come_at_once_and_in_order(
        self, taking: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A poll that is cancelled before it delivers anything gives back all; the next one must
        neither wait nor begin in the middle of a sentence."""
        data = numbered(4)
        for index, item in enumerate(data):
            await taking.append(stream, entries(item, first=index))
        await taking.read(stream, START, max_records=1, max_bytes=10**6, max_wait=self.patience)
        early = await other.read(stream, START, max_records=1, max_bytes=10**6, max_wait=0.02)
        clock = asyncio.get_running_loop().time
        started = clock()
        await taking.release(stream, START)
        until = started + self.patience
        found = await self.acknowledged(other, stream, early, len(data), until)
        waited = clock() - started
        came = list(dict.fromkeys(data_of(found)))  # without replay, some may come twice
        if not taking.capabilities.ordered:
            came.sort()
        same_records(
            came,
            data,
            "the records that another reader got, of which one had been taken and given back",
            cause="behind a record that is hidden others are given already; or release() gives "
            "back less than all",
        )
        holds(
            waited < taking.hidden_seconds / 2 + _LATE_SECONDS,
            "how long another reader waits for records that were all released",
            expected=f"much less than hidden_seconds, {taking.hidden_seconds:g} s",
            seen=f"{waited:.2f} s",
            cause="release() gives back nothing after START, or not the first record",
        )

    async def _taken_in_turn(
        self, queue: ChunkQueue, stream: StreamId, data: list[bytes]
    ) -> list[Stored]:
        """Take as many records as the backend gives at once, at least one."""
        found = await self.take(queue, stream, 1)
        clock = asyncio.get_running_loop().time
        until = clock() + min(0.1, queue.hidden_seconds / 8)
        while len(found) < len(data) and clock() < until:
            found += await queue.read(stream, START, max_records=10, max_bytes=10**6, max_wait=0.05)
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
        again = await self.received(other, stream, taking.hidden_seconds + 0.2)
        same_records(again, [], "what comes after the commit, for longer than hidden_seconds")
        await taking.delete(stream)
        with contextlib.suppress(StreamqError):  # and no other error
            await other.commit(stream, batch[-1].position)

    @promises("ChunkQueue.commit", "The position alone has to suffice, in another process too")
    @promises("ChunkQueue.commit", "repeating it is harmless")
    async def test_acknowledgement_through_another_connection_counts(
        self, taking: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """The poll that acknowledges runs on another machine than the one that has read."""
        await taking.append(stream, entries(b"a"))
        (first,) = await self.read(taking, stream)
        for each in (other, taking, other):
            await each.commit(stream, first.position)
        await other.append(stream, entries(b"b", first=1))
        found = data_of(await self.read(other, stream))
        what = "the records that are left after another connection has acknowledged the first"
        same_records(found, [b"b"], what)

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
        what = "reading a stream whose first append was repeated with more records"
        async with within(4 * self.patience, what, cause=_SKIPPED):
            while not found >= set(data):
                batch = await self.read(queue, stream, position, max_wait=self.patience / 4)
                found |= set(data_of(batch))
                position = batch[-1].position if batch else position
