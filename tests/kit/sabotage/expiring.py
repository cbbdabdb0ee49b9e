"""Sabotaged drivers whose streams expire too late, too early, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import ChunkQueue, Entry, FencedError, StreamId, StreamInfo

from .server import SoundQueue, checks

_LONG = timedelta(days=1_000)


class NeverExpires(SoundQueue):
    """Knows no time to live."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it append_of_nothing_has_no_effect
        expired_stream_begins_anew_for_connections_that_know_it expired_stream_is_gone_by_every_path
        last_append_sets_the_ttl_whichever_connection_makes_it
        repeat_without_a_ttl_sets_the_usual_one repeated_append_sets_the_shorter_ttl_again
        sealed_stream_expires_by_its_own_ttl stream_expires_after_its_ttl
        sweep_leaves_nothing_of_several_large_streams sweep_removes_expired_streams_only
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        await super().store(link, stream, entries, _LONG)


class SetsNoTtlAtFirst(SoundQueue):
    """Sets the time to live with the second append, which a producer that died never makes."""

    caught_by = checks("""
        append_of_nothing_has_no_effect last_append_sets_the_ttl_whichever_connection_makes_it
        stream_expires_after_its_ttl sweep_removes_expired_streams_only
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        is_first = self.server.stored(stream) is None
        await super().store(link, stream, entries, _LONG if is_first else ttl)


class DoesNotRenewTtl(SoundQueue):
    """Keeps the time to live of the first append, unless a later append sets another one."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it append_renews_the_ttl
        last_append_sets_the_ttl_whichever_connection_makes_it
        repeat_without_a_ttl_sets_the_usual_one
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        found = self.server.stored(stream)
        if found is not None and ttl is None:
            left = found.expires_at - asyncio.get_running_loop().time()
            ttl = timedelta(seconds=left)
        await super().store(link, stream, entries, ttl)


class IgnoresTtlOfAppend(SoundQueue):
    """Ignores the time to live of appends."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it
        expired_stream_begins_anew_for_connections_that_know_it expired_stream_is_gone_by_every_path
        last_append_sets_the_ttl_whichever_connection_makes_it
        repeat_without_a_ttl_sets_the_usual_one repeated_append_sets_the_shorter_ttl_again
        sealed_stream_expires_by_its_own_ttl sweep_leaves_nothing_of_several_large_streams
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        await super().store(link, stream, entries, None)


class IgnoresTtlOfRepeat(SoundQueue):
    """Sets no time to live with an append that adds nothing."""

    caught_by = checks("""
        repeat_without_a_ttl_sets_the_usual_one repeated_append_sets_the_shorter_ttl_again
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        newest = self.server.newest(stream)
        if entries and (entries[-1].epoch, entries[-1].index) == newest:
            ttl = None
        await super().store(link, stream, entries, ttl)


class SetsTtlBeforeItFences(SoundQueue):
    """Sets the time to live of an append that it then refuses."""

    caught_by = checks("refused_append_shortens_nothing")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        try:
            await super().store(link, stream, entries, ttl)
        except FencedError:
            found = self.server.stored(stream)
            if found is not None and ttl is not None:
                found.expires_at = asyncio.get_running_loop().time() + ttl.total_seconds()
            raise


class ExpiresTooEarly(SoundQueue):
    """Keeps a stream for a tenth of its time."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it append_renews_the_ttl
        last_append_sets_the_ttl_whichever_connection_makes_it refused_append_shortens_nothing
        repeat_without_a_ttl_sets_the_usual_one sealed_stream_expires_by_its_own_ttl
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        await super().store(link, stream, entries, (ttl or self.options.ttl) / 10)


class ReportsNoExpiry(SoundQueue):
    """Does not report when a stream expires."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it
        last_append_sets_the_ttl_whichever_connection_makes_it long_ttl_is_reported
        refused_append_shortens_nothing repeat_without_a_ttl_sets_the_usual_one
        repeated_append_sets_the_shorter_ttl_again sealed_stream_expires_by_its_own_ttl
        stream_expires_after_its_ttl
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return dataclasses.replace(await super().describe(stream, last=last), expires_in=None)


class SweepsEverything(SoundQueue):
    """Sweeps live streams, too."""

    caught_by = checks("foreign_entry_harms_no_stream sweep_removes_expired_streams_only")

    async def sweep(self) -> int:
        await super().sweep()
        for stream in self.server.disk.names():
            self.server.disk.remove(stream)
        return 0


class CountsWhatOthersSwept(SoundQueue):
    """Counts expired streams as swept, and leaves their removal to the backend."""

    caught_by = checks("sweep_removes_expired_streams_only")

    async def sweep(self) -> int:
        await super().sweep()
        return 5
