"""Sabotaged drivers with one step too many between looking and doing: others come in between."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import ChunkQueue, Entry, Stored, StreamId, StreamInfo, new_entries

from .server import SoundQueue, checks


class _Bells(SoundQueue):
    """Wakes readers by bells of its own."""

    def bells(self, stream: StreamId) -> set[asyncio.Event]:
        """Return the bells of the reads that wait for a stream."""
        found = self.server.notes.setdefault(("bells", stream), set())
        assert isinstance(found, set)
        return found

    def ring(self, stream: StreamId) -> None:
        """Wake the reads that wait for a stream."""
        for bell in self.bells(stream):
            bell.set()

    async def look(
        self, stream: StreamId, after: str, max_records: int, max_bytes: int
    ) -> Sequence[Stored]:
        """Read what is stored."""
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=0
        )

    async def wait(self, bell: asyncio.Event, until: float) -> bool:
        """Wait for the bell while the queue is open; return whether there is time left."""
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self.check_open()
            try:
                async with asyncio.timeout(min(left, 0.05)):
                    await bell.wait()
            except TimeoutError:
                continue
            return True
        return False


class ListensAfterItHasLooked(_Bells):
    """Looks for records, and asks to be woken after that."""

    caught_by = checks("""
        append_is_not_missed_wherever_a_read_is
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        every_ending_ends_live_and_late_readers
        joining_a_live_stream_at_any_moment_gives_all_of_it
        stream_is_delivered_once_when_every_other_append stream_without_chunks_ends_as_well
        ten_live_readers_each_get_everything ten_readers_each_see_everything
    """)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await super().append(stream, entries, ttl=ttl)
        self.ring(stream)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        until = asyncio.get_running_loop().time() + max_wait
        while True:
            found = await self.look(stream, after, max_records, max_bytes)
            if found or asyncio.get_running_loop().time() >= until:
                return found
            await self.server.answer()
            bell = asyncio.Event()
            self.bells(stream).add(bell)
            try:
                if not await self.wait(bell, until):
                    return []
            finally:
                self.bells(stream).discard(bell)


class WakesBeforeItStores(_Bells):
    """Wakes the readers with the request, and not with its answer."""

    caught_by = checks("blocked_readers_get_a_record_that_is_stored_late")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        self.ring(stream)
        await asyncio.sleep(0)
        await super().store(link, stream, entries, ttl)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        until = asyncio.get_running_loop().time() + max_wait
        bell = asyncio.Event()
        self.bells(stream).add(bell)
        try:
            while True:
                found = await self.look(stream, after, max_records, max_bytes)
                if found or not await self.wait(bell, until):
                    return found
                bell.clear()
        finally:
            self.bells(stream).discard(bell)


class FencesFirstAppendsInTwoSteps(SoundQueue):
    """Creates a stream without looking whether another attempt has created it meanwhile."""

    caught_by = checks("takeover_within_an_append_is_clean")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        is_first = self.server.stored(stream) is None
        if is_first and entries:
            await self.server.answer()
            found = self.server.stored(stream)
            if found is not None and found.keys[-1][0] > entries[0].epoch:
                epoch, index = found.keys[-1]
                entries = [
                    Entry(epoch, index + 1 + at, entry.data) for at, entry in enumerate(entries)
                ]
        await super().store(link, stream, entries, ttl)


class LooksForRepeatsBeforeItStores(SoundQueue):
    """Looks which entries are new, and stores these whatever has been stored meanwhile."""

    caught_by = checks("""
        repeat_within_the_append_adds_nothing
        two_appends_of_one_epoch_keep_the_order_of_indexes
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        newest = self.server.newest(stream)
        fresh = new_entries(entries, newest, backend=self.backend, stream=stream)
        await self.server.answer()
        epoch, index = self.server.newest(stream)
        if fresh and epoch == fresh[0].epoch and index >= fresh[0].index:
            fresh = [Entry(epoch, index + 1 + at, entry.data) for at, entry in enumerate(fresh)]
        await super().store(link, stream, fresh or entries, ttl)


class BringsBackWhatWasDeleted(SoundQueue):
    """Writes the whole stream anew with each append."""

    caught_by = checks("delete_and_append_at_the_same_time_leave_a_sound_stream")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        before = self.server.stored(stream)
        kept = list(before.records) if before else []
        keys = list(before.keys) if before else []
        await self.server.answer()
        if kept and self.server.stored(stream) is None:
            old = [Entry(*key, record.data) for key, record in zip(keys, kept, strict=True)]
            entries = [*old, *entries]
        await super().store(link, stream, entries, ttl)


class ReadsTheEndFirst(SoundQueue):
    """Fetches the second half of what it returns before the first one."""

    caught_by = checks("read_within_which_a_stream_begins_again_mixes_nothing_up")

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        bounds = {"max_records": max_records, "max_bytes": max_bytes}
        end = await super().read(stream, after, **bounds, max_wait=max_wait)
        if len(end) < 2:
            return end
        begin = await super().read(stream, after, **bounds, max_wait=0)
        half = len(end) // 2
        return [*begin[:half], *end[half:]]


class DescribesInTwoSteps(SoundQueue):
    """Fetches the newest record, and then those before it."""

    caught_by = checks("description_within_which_a_stream_changes_is_of_one_moment")

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=min(last, 1))
        if last < 2:
            return info
        rest = (await super().describe(stream, last=last)).last
        return dataclasses.replace(info, last=(*info.last, *rest[1:]))
