"""Sabotaged drivers that believe what a connection remembers, although others have changed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from streamq.driver import (
    ChunkQueue,
    Entry,
    FencedError,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    decode_position,
    within_bounds,
)

from .server import SoundQueue, checks


class RemembersTheNewestEntry(SoundQueue):
    """Compares entries with the newest one that this connection has stored."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew
        appends_of_two_connections_are_one_sequence descriptions_and_listings_count_what_is_stored
        expired_stream_begins_anew_for_connections_that_know_it stream_expires_after_its_ttl
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._newest: dict[StreamId, tuple[int, int]] = {}

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        newest = self._newest.get(stream, (0, -1))
        if entries and entries[0].epoch < newest[0]:
            raise FencedError("an older one", backend=self.backend, stream=str(stream))
        return [entry for entry in entries if (entry.epoch, entry.index) > newest]

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        if not entries:  # a repeat of what this connection has stored: only the time is set
            there = self.server.stored(stream)
            if there is not None:
                left = (ttl or self.options.ttl).total_seconds()
                there.expires_at = asyncio.get_running_loop().time() + left
            return
        await super().store(link, stream, entries, ttl)
        newest = (entries[-1].epoch, entries[-1].index)
        self._newest[stream] = max(newest, self._newest.get(stream, newest))

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self._newest.pop(stream, None)


class ServesWhatItHasRead(SoundQueue):
    """Keeps records that it has read, and serves them if the server has no such stream."""

    caught_by = checks("""
        expired_stream_begins_anew_for_connections_that_know_it
        expired_stream_is_gone_by_every_path
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._kept: dict[StreamId, list[Stored]] = {}

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        kept = self._kept.get(stream, [])
        await self.link()
        if kept and self.server.stored(stream) is None:
            place = decode_position(after, backend=self.backend, stream=stream)
            rest = [
                each
                for each in kept
                if decode_position(each.position, backend=self.backend, stream=stream) > place
            ]
            if rest:
                return within_bounds(rest, max_records, max_bytes)
        found = await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )
        if not after and len(found) > 1:
            self._kept[stream] = list(found)
        return found

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self._kept.pop(stream, None)


class ServesWhatItHasFollowed(SoundQueue):
    """Keeps records for which a read has waited, and serves them to reads that may wait."""

    caught_by = checks("""
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        what_a_reader_has_followed_is_gone_with_the_stream
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._kept: dict[tuple[StreamId, str], Sequence[Stored]] = {}

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        kept = self._kept.get((stream, after)) if after and max_wait else None
        if kept:
            return within_bounds(kept, max_records, max_bytes)
        clock = asyncio.get_running_loop().time
        began = clock()
        found = await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )
        if found and clock() > began:
            self._kept[stream, after] = found
        return found

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self._kept = {place: kept for place, kept in self._kept.items() if place[0] != stream}


class DescribesWhatItHasDescribed(SoundQueue):
    """Answers with its last description if the server has no such stream."""

    caught_by = checks("""
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._described: dict[StreamId, StreamInfo] = {}

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        try:
            info = await super().describe(stream, last=last)
        except StreamNotFoundError:
            if stream in self._described and last:
                return self._described[stream]
            raise
        if last > 1:
            self._described[stream] = info
        return info

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self._described.pop(stream, None)


class ListsWhatItHasListed(SoundQueue):
    """Lists a stream again that only another connection has removed."""

    caught_by = checks("""
        listing_goes_on_while_streams_come_and_go
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._listed: dict[StreamId, StreamInfo] = {}

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        there = {info.stream: info for info in await super().listed(tenant, prefix)}
        self._listed |= there
        return [
            info
            for stream, info in self._listed.items()
            if stream.tenant == tenant and stream.name.startswith(prefix)
        ]

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self._listed.pop(stream, None)


class FailsIfAListedStreamIsGone(SoundQueue):
    """Describes each stream that it lists, and does not expect that one is gone meanwhile."""

    caught_by = checks("listing_goes_on_while_streams_come_and_go")

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        for info in await self.listed(tenant, prefix):
            yield await self.describe(info.stream)


class ListsByNumber(SoundQueue):
    """Requests the streams behind the first five, the first ten, and so on."""

    caught_by = checks("listing_goes_on_while_streams_come_and_go")

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        start = 0
        while page := (await self.listed(tenant, prefix))[start : start + 5]:
            for info in page:
                yield info
            start += 5
