"""The queue: streamq's contract on top of the appender, the reading and the wake-ups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Entry,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
)
from streamq_aws import AwsClients, Calls, together

from ._appender import Appender
from ._bucket import Bucket
from ._flows import Flow, Flows
from ._keys import KeySpace
from ._objects import Objects
from ._packing import Packer
from ._reading import Reading
from ._segment import BACKEND, Place, Segment, Tail, decode_place, newest_first
from ._services import check_region
from ._settings import S3SnsSettings
from ._store import Described, Store, not_found
from ._sweeping import Sweeper
from ._wakeups import WakeUps

_FIRST_PAUSE = 0.05
_LOOK_SECONDS = 0.01  # so that all readers of a process look 100 times a second at most
_PAUSE_GROWTH = 1.5
_WOKEN_PATIENCE = 8
_DESCRIBED_AT_ONCE = 16
_CLOSING_SECONDS = 3.0


class S3SnsQueue(ChunkQueue):
    """Streams in one bucket."""

    backend = BACKEND

    def __init__(
        self, options: QueueOptions, settings: S3SnsSettings, capabilities: Capabilities
    ) -> None:
        self.capabilities = capabilities
        self._options = options
        self._settings = settings
        self._keys = KeySpace(settings.prefix)
        self._clients = AwsClients(settings, backend=BACKEND)
        self._flows = Flows()
        self._calls = Calls(BACKEND)
        self._waiting = 0
        self._wakeups: WakeUps | None = None
        self._parts: list[Packer | WakeUps] = []
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the client, and learn from the bucket what this queue can promise."""
        settings = self._settings
        client = await self._clients.client("s3")
        check_region(settings, self._clients.region)
        patience = settings.connect_timeout_seconds + settings.operation_timeout_seconds
        bucket = Bucket(client, settings, patience_seconds=patience)
        self._store = store = Store(bucket, self._keys)
        _, keeps_versions = await together((store.prove(), store.keeps_versions()))
        capabilities = self.capabilities
        if keeps_versions:
            capabilities = replace(capabilities, erases=False)
        if settings.topic_arn is None:
            capabilities = replace(capabilities, latency=LatencyClass.SECONDS)
        else:
            self._wakeups = WakeUps(
                self._clients,
                settings.topic_arn,
                f"{settings.bucket}/{settings.prefix}",
                self._flows.tell,
            )
            self._parts.append(self._wakeups)
        self.capabilities = capabilities
        self._packer = Packer(store, is_on=settings.pack, connections=settings.max_connections)
        self._parts.append(self._packer)
        self._appender = Appender(store, self._options.ttl, self._packer)
        self._reading = Reading(store)
        self._sweeper = Sweeper(store, Objects(bucket))

    @property
    def settings(self) -> S3SnsSettings:
        """What it was opened with."""
        return self._settings

    @property
    def store(self) -> Store:
        """Where its streams are."""
        return self._store

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self._calls.one(stream):
            if not entries:
                return
            directory = self._keys.directory(stream)
            with self._flows.use(directory) as flow:
                tail = await self._appender.append(stream, directory, flow, entries, ttl)
            if self._wakeups is not None:
                self._wakeups.publish(directory, tail.number)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        place = decode_place(after, stream)
        directory = self._keys.directory(stream)
        with self._calls.one(stream), self._flows.use(directory) as flow:
            return await self._read(directory, flow, place, max_records, max_bytes, max_wait)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with self._calls.one(stream):
            directory = self._keys.directory(stream)
            newest: tuple[Stored, ...] = ()
            tail: Tail | None
            if last > 0:
                segment = await self._store.newest_segment(directory)
                tail = segment.tail if segment is not None else None
                if segment is not None and self._store.left(segment.tail) > timedelta():
                    newest = await self._newest(directory, segment, last)
            else:
                tail = await self._store.newest(directory)
            if tail is None or (left := self._store.left(tail)) <= timedelta():
                raise not_found(stream)
            return StreamInfo(stream, newest, tail.records, tail.size, left)

    async def delete(self, stream: StreamId) -> None:
        with self._calls.one(stream):
            directory = self._keys.directory(stream)
            with self._flows.use(directory) as flow:
                await self._sweeper.delete(directory)
                flow.forget()
                self._packer.forget(directory)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        pages = self._store.directories(self._keys.names(tenant, prefix))
        while True:
            with self._calls.one():
                page = await anext(pages, None)
                if page is None:
                    return
                found: list[Described | None] = []
                for first in range(0, len(page), _DESCRIBED_AT_ONCE):
                    some = page[first : first + _DESCRIBED_AT_ONCE]
                    found += await together(self._store.describe(*each) for each in some)
            for each in found:
                if each is None or not each.stream.name.startswith(prefix):
                    continue
                left = self._store.left(each.tail)
                if left > timedelta():
                    yield StreamInfo(each.stream, (), each.tail.records, each.tail.size, left)

    async def sweep(self) -> int:
        with self._calls.one():
            removed = await self._sweeper.sweep()
            if self._wakeups is not None:
                await self._wakeups.sweep()
            return removed

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="streamq-s3sns-close")
        await asyncio.shield(self._closing)

    # -- inside --------------------------------------------------------------------------------

    async def _close(self) -> None:
        self._calls.close()
        try:
            await together(part.aclose(_CLOSING_SECONDS) for part in self._parts)
        finally:
            await self._clients.aclose()

    async def _read(
        self,
        directory: str,
        flow: Flow,
        place: Place,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> list[Stored]:
        clock = asyncio.get_running_loop().time
        until = clock() + max_wait
        news = asyncio.Event()
        flow.news.add(news)
        self._waiting += 1
        pause = _FIRST_PAUSE
        was_empty = False
        try:
            while True:
                news.clear()
                before = place.number
                found, place = await self._reading.fetch(
                    directory,
                    flow,
                    place,
                    max_records,
                    max_bytes,
                    is_final=max_wait <= 0,
                    was_empty=was_empty,
                )
                left = until - clock()
                may_be_more = place.number <= flow.known or (before and max_wait <= 0)
                if not found and before < place.number and may_be_more:
                    continue  # what was there had no entries, and what follows may be missing
                if found or left <= 0:
                    return found
                was_empty = True
                wait, pause = self._next_pause(pause)
                try:
                    async with asyncio.timeout(min(left, wait)):
                        await news.wait()
                except TimeoutError:
                    pass
        finally:
            self._waiting -= 1
            flow.news.discard(news)

    def _next_pause(self, pause: float) -> tuple[float, float]:
        """Return how long to wait for news before looking without any, and what comes after."""
        longest = self._settings.poll_seconds
        fair = self._waiting * _LOOK_SECONDS
        if self._wakeups is not None:
            self._wakeups.listen()
            if self._wakeups.is_listening:
                wait = max(pause, longest)
                return max(wait, fair), min(2 * wait, _WOKEN_PATIENCE * longest)
        return max(min(pause, longest), fair), min(pause * _PAUSE_GROWTH, longest)

    async def _newest(self, directory: str, segment: Segment, last: int) -> tuple[Stored, ...]:
        found = list(newest_first(segment))
        number, begin = segment.tail.number, segment.tail.begin
        while len(found) < last and number > begin:
            count = min(last - len(found), number - begin, _DESCRIBED_AT_ONCE)
            older = await together(
                self._store.get(directory, number - i) for i in range(1, count + 1)
            )
            for each in older:
                if each is None:  # its beginning is no longer stored
                    return tuple(found[:last])
                found += newest_first(each)
            number -= count
        return tuple(found[:last])
