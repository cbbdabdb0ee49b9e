"""The queue: the driver's contract, put together of writing, reading and the live tail.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Closing,
    Entry,
    Guard,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    not_found_error,
    together,
)
from streamq_aws import AwsClients

from ._errors import BACKEND
from ._known_streams import KnownStreams
from ._naming import KeySpace
from ._packing import Packer
from ._position import decode_position
from ._reading import SegmentReader
from ._segment import Checkpoint, Segment, newest_first
from ._settings import S3SnsSettings, check_topic_region
from ._sweeping import Sweeper
from .live_tail._listener import NotificationListener
from .live_tail._live_tail import LiveTail
from .live_tail._orphaned_queues import OrphanedQueues
from .live_tail._publisher import NotificationPublisher
from .requests._bucket import Bucket
from .requests._lazy_clients import LazyClients
from .requests._objects import ObjectStore
from .requests._segments import ListedStream, SegmentStore
from .writing._appender import Appender

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
        self._known = KnownStreams()
        self._guard = Guard(BACKEND, seconds=math.inf)  # each request has a deadline
        self._publisher: NotificationPublisher | None = None
        self._listener: NotificationListener | None = None
        self._orphans: OrphanedQueues | None = None
        self._parts: list[Packer | NotificationPublisher | NotificationListener] = []
        self._closing = Closing(self._close_parts, self._clients.aclose)

    async def start(self) -> None:
        """Open the client, and find out from the bucket which capabilities the queue has."""
        settings = self._settings
        client = await self._clients.client("s3")
        check_topic_region(settings, self._clients.region)
        patience = settings.connect_timeout_seconds + settings.operation_timeout_seconds
        bucket = Bucket(client, settings, patience_seconds=patience)
        self._store = store = SegmentStore(bucket, self._keys)
        _, keeps_versions = await together((store.check_access(), store.keeps_versions()))
        capabilities = self.capabilities
        if keeps_versions:
            capabilities = replace(capabilities, erases=False)
        if settings.topic_arn is None:
            capabilities = replace(capabilities, latency=LatencyClass.SECONDS)
        else:
            self._start_notifications(settings.topic_arn)
        self.capabilities = capabilities
        self._packer = Packer(store, is_on=settings.pack, connections=settings.max_connections)
        self._parts.append(self._packer)
        self._appender = Appender(store, self._options.ttl, self._packer)
        self._live_tail = LiveTail(SegmentReader(store), settings.poll_seconds, self._listener)
        self._sweeper = Sweeper(store, ObjectStore(bucket))

    def _start_notifications(self, topic_arn: str) -> None:
        scope = f"{self._settings.bucket}/{self._settings.prefix}"
        clients = LazyClients(self._clients)
        self._publisher = NotificationPublisher(clients, topic_arn, scope)
        self._listener = NotificationListener(
            clients,
            topic_arn,
            scope,
            self._known.notify,
            kms_key_id=self._settings.notification_kms_key_id,
        )
        self._orphans = OrphanedQueues(clients, topic_arn)
        self._parts += [self._publisher, self._listener]

    @property
    def settings(self) -> S3SnsSettings:
        """The settings with which the queue was opened."""
        return self._settings

    @property
    def store(self) -> SegmentStore:
        """The segments of its streams."""
        return self._store

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        async with self._guard(stream):
            if not entries:
                return
            directory = self._keys.directory(stream)
            with self._known.use(directory) as known:
                checkpoint = await self._appender.append(stream, directory, known, entries, ttl)
            if self._publisher is not None:
                self._publisher.publish(directory, checkpoint.number)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        position = decode_position(after, stream)
        directory = self._keys.directory(stream)
        async with self._guard(stream):
            with self._known.use(directory) as known:
                return await self._live_tail.read(
                    directory, known, position, max_records, max_bytes, max_wait
                )

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        async with self._guard(stream):
            directory = self._keys.directory(stream)
            records: tuple[Stored, ...] = ()
            newest: Checkpoint | None
            if last > 0:
                segment = await self._store.newest_segment(directory)
                newest = segment.checkpoint if segment is not None else None
                if segment is not None and self._store.left(segment.checkpoint) > timedelta():
                    records = await self._newest_records(directory, segment, last)
            else:
                newest = await self._store.newest(directory)
            if newest is None or (left := self._store.left(newest)) <= timedelta():
                raise not_found_error(BACKEND, stream)
            return StreamInfo(stream, records, newest.records, newest.size, left)

    async def delete(self, stream: StreamId) -> None:
        async with self._guard(stream):
            directory = self._keys.directory(stream)
            with self._known.use(directory) as known:
                await self._sweeper.delete(directory)
                known.forget()
                self._packer.forget(directory)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        pages = self._store.directories(self._keys.names(tenant, prefix))
        while True:
            async with self._guard():
                page = await anext(pages, None)
                if page is None:
                    return
                found: list[ListedStream | None] = []
                for first in range(0, len(page), _DESCRIBED_AT_ONCE):
                    some = page[first : first + _DESCRIBED_AT_ONCE]
                    found += await together(self._store.describe(*each) for each in some)
            for each in found:
                if each is None or not each.stream.name.startswith(prefix):
                    continue
                newest = each.checkpoint
                left = self._store.left(newest)
                if left > timedelta():
                    yield StreamInfo(each.stream, (), newest.records, newest.size, left)

    async def sweep(self) -> int:
        async with self._guard():
            removed = await self._sweeper.sweep()
            if self._orphans is not None:
                await self._orphans.remove()
            return removed

    async def aclose(self) -> None:
        self._guard.close()
        await self._closing.run()

    # -- inside --------------------------------------------------------------------------------

    async def _close_parts(self) -> None:
        await asyncio.gather(*(part.aclose(_CLOSING_SECONDS) for part in self._parts))

    async def _newest_records(
        self, directory: str, segment: Segment, last: int
    ) -> tuple[Stored, ...]:
        """Return the newest records of a stream, the newest one first."""
        found = list(newest_first(segment))
        number, begin = segment.checkpoint.number, segment.checkpoint.begin
        while len(found) < last and number > begin:
            count = min(last - len(found), number - begin, _DESCRIBED_AT_ONCE)
            older = await together(
                self._store.get(directory, number - i) for i in range(1, count + 1)
            )
            for each in older:
                if each is None:  # the beginning of the stream is no longer stored
                    return tuple(found[:last])
                found += newest_first(each)
            number -= count
        return tuple(found[:last])
