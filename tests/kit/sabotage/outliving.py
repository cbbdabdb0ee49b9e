"""Sabotaged drivers that look at the time to live on some paths only, or set it at times only."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import (
    ChunkQueue,
    Entry,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
)

from .server import SoundQueue, checks

_LONGER = timedelta(days=1)


class _Expiring(SoundQueue):
    """Keeps expired streams on the disk until an append or a sweep, and looks at each path."""

    def _ends(self) -> dict[StreamId, float]:
        ends = self.server.notes.setdefault("ends", {})
        assert isinstance(ends, dict)
        return ends

    def has_expired(self, stream: StreamId) -> bool:
        """Whether the time to live of a stream that is on the disk has passed."""
        return self._ends().get(stream, 1e18) <= asyncio.get_running_loop().time()

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        if not entries:
            return
        if self.has_expired(stream):
            self.server.disk.remove(stream)
        await super().store(link, stream, entries, _LONGER)
        left = (ttl or self.options.ttl).total_seconds()
        self._ends()[stream] = asyncio.get_running_loop().time() + left

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        found = await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=0
        )
        if found and self.is_hidden(stream, after, found):
            found = []
        if found or not max_wait:
            return found
        if self.has_expired(stream):
            self.server.disk.remove(stream)
            self._ends().pop(stream, None)
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )

    def is_hidden(self, stream: StreamId, after: str, found: Sequence[Stored]) -> bool:
        """Whether records that a read has found are not to be served."""
        return self.has_expired(stream)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=last)
        if self.is_undescribed(stream, last):
            raise StreamNotFoundError("expired", backend=self.backend, stream=str(stream))
        left = self._ends()[stream] - asyncio.get_running_loop().time()
        return dataclasses.replace(info, expires_in=timedelta(seconds=left))

    def is_undescribed(self, stream: StreamId, last: int) -> bool:
        """Whether a stream that is on the disk is not to be described."""
        return self.has_expired(stream)

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        return [
            dataclasses.replace(info, expires_in=None)
            for info in await super().listed(tenant, prefix)
            if not self.has_expired(info.stream)
        ]

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self._ends().pop(stream, None)

    async def sweep(self) -> int:
        await super().sweep()
        expired = [stream for stream in self.server.disk.names() if self.has_expired(stream)]
        for stream in expired:
            self.server.disk.remove(stream)
            self._ends().pop(stream, None)
        return len(expired)


class ServesExpiredIfMoreIsPending(_Expiring):
    """Looks at the time to live when a page is the last one."""

    caught_by = checks("""
        expired_stream_is_gone_by_every_path opening_a_writer_can_be_cancelled_at_any_await
    """)

    def is_hidden(self, stream: StreamId, after: str, found: Sequence[Stored]) -> bool:
        there = self.server.stored(stream)
        is_last = there is None or found[-1].position == there.records[-1].position
        return is_last and super().is_hidden(stream, after, found)


class ServesExpiredToReadersThatGoOn(_Expiring):
    """Looks at the time to live when a read begins at the start."""

    caught_by = checks("""
        expired_stream_is_gone_by_every_path opening_a_writer_can_be_cancelled_at_any_await
    """)

    def is_hidden(self, stream: StreamId, after: str, found: Sequence[Stored]) -> bool:
        return not after and super().is_hidden(stream, after, found)


class DescribesRecordsOfExpired(_Expiring):
    """Looks at the time to live only if no records are requested."""

    caught_by = checks("""
        expired_stream_is_gone_by_every_path opening_a_writer_can_be_cancelled_at_any_await
    """)

    def is_undescribed(self, stream: StreamId, last: int) -> bool:
        return not last and super().is_undescribed(stream, last)


class IgnoresTtlOfFirstAppend(SoundQueue):
    """Creates every stream with the usual time to live."""

    caught_by = checks("last_append_sets_the_ttl_whichever_connection_makes_it")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        is_first = self.server.stored(stream) is None
        await super().store(link, stream, entries, None if is_first else ttl)


class SetsTheTtlWhereAWriterBegins(SoundQueue):
    """Sets the usual time to live only for a stream that begins with a record of index 0."""

    caught_by = checks("stream_that_an_append_brings_back_has_a_time_to_live")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        is_new = self.server.stored(stream) is None
        await super().store(link, stream, entries, ttl)
        found = self.server.stored(stream)
        if is_new and found is not None and entries and entries[0].index:
            found.expires_at = asyncio.get_running_loop().time() + 1.0


class RenewsWhatItHasNotSet(SoundQueue):
    """Does not set the usual time to live if this connection did so last."""

    caught_by = checks("last_append_sets_the_ttl_whichever_connection_makes_it")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._set: dict[StreamId, float] = {}

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        now = asyncio.get_running_loop().time()
        found = self.server.stored(stream)
        usual = self.options.ttl
        if ttl is None and found is not None and self._set.get(stream, 0) > now:
            usual = timedelta(seconds=found.expires_at - now)
        await super().store(link, stream, entries, ttl or usual)
        self._set[stream] = 0.0 if ttl else now + self.options.ttl.total_seconds() / 20


class SetsNoUsualTtlWithARepeat(SoundQueue):
    """Sets a time to live with a repeat only if the repeat has one of its own."""

    caught_by = checks("repeat_without_a_ttl_sets_the_usual_one")

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        newest = self.server.newest(stream)
        found = self.server.stored(stream)
        if found is not None and entries and (entries[-1].epoch, entries[-1].index) <= newest:
            left = found.expires_at - asyncio.get_running_loop().time()
            ttl = ttl or timedelta(seconds=left)
        await super().store(link, stream, entries, ttl)
