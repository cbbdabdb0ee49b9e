"""Implements streamq's queue with the producer, the directory and the partitions.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Closing,
    Entry,
    Guard,
    Stored,
    StreamId,
    StreamInfo,
    TapBudget,
    closed_error,
    fenced_error,
    not_found_error,
)

from ._data_topic import DataTopic
from ._errors import translator
from ._naming import (
    BACKEND,
    LogPosition,
    decode_position,
    directory_name,
    headers_of,
    key_of,
    stream_of,
)
from ._settings import KafkaSettings
from ._writing import SharedProducer
from .live_tail._live_tail import LiveTail
from .reading._page_cache import PageCache
from .requests._cluster import Cluster
from .requests._end_offsets import EndOffsets

_EXPLAIN_SECONDS = 2.0


class KafkaQueue(ChunkQueue):
    """Streams on the partitions of one topic, or of one topic for each tenant.

    Args:
        settings: The settings of the driver.
        capabilities: The capabilities that the queue declares.
        cluster: A connected cluster; the queue closes it.
        max_message_bytes: Largest batch that the topics take.
    """

    backend = BACKEND

    def __init__(
        self,
        settings: KafkaSettings,
        capabilities: Capabilities,
        cluster: Cluster,
        max_message_bytes: int,
    ) -> None:
        self.capabilities = capabilities
        self._settings = settings
        # Each request has a deadline.
        self._guard = Guard(BACKEND, translator(settings.bootstrap_servers), seconds=math.inf)
        self._cluster = cluster
        self._ends = EndOffsets(cluster, settings.operation_timeout_seconds)
        self._producer = SharedProducer(settings, cluster.connections.brokers, max_message_bytes)
        cluster.connections.on_replaced = self._forget_topics
        cluster.connections.brokers.on_created_anew = self._forget_topic
        self._live_tail = LiveTail(cluster, settings.fetch_wait_ms)
        self._pages = PageCache(settings.cache_bytes)
        self._budget = TapBudget(settings.cache_bytes)
        self._topics: dict[str, DataTopic] = {}
        self._loading = asyncio.Lock()
        self._closing = Closing(self._end_following, self._close_connections)
        self._loop = asyncio.get_running_loop()

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        async with self._guard(stream):
            if not entries:
                return
            topic = await self._topic(stream)
            key = key_of(stream)
            listing = topic.directory.peek(key)
            opened = max((entry.epoch for entry in entries if entry.index == 0), default=0)
            if opened or listing is None:
                listing = await topic.open_epoch(key, opened or entries[0].epoch)
            elif topic.directory.is_due(listing):
                await topic.directory.renew(key, listing)
            for entry in entries:
                if entry.epoch < listing.epoch:
                    raise fenced_error(BACKEND, stream, epoch=entry.epoch, newest=listing.epoch)
            partition = TopicPartition(topic.name, listing.partition)
            known, life = self._ends.known(partition), topic.life
            messages = [(key, entry.data, headers_of(entry)) for entry in entries]
            try:
                sent = await self._producer.send(topic.name, listing.partition, messages)
            except (ke.UnknownTopicOrPartitionError, ke.NotLeaderForPartitionError, TimeoutError):
                await self._raise_if_deleted(topic)
                raise
            is_behind = sent.last < known
            if is_behind:
                await self._cluster.metadata.refresh()  # it tells whether the topic is a new one
            if life != topic.life or (is_behind and await self._ends_before(partition, known)):
                position = LogPosition(listing.partition, max(0, sent.first))
                await topic.relist(key, entries[-1].epoch, position)
            self._ends.note(partition, sent.last + 1)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        async with self._guard(stream):
            position = decode_position(after, stream)
            key = key_of(stream)
            until = self._loop.time() + max_wait
            topic = await self._topic(stream)
            if max_wait > 0 and position is not None:
                tap = topic.tap(position.partition, key, position.offset)
                if tap is not None:
                    found = await tap.read(position.offset, max_records, max_bytes, until)
                    if found is not None:
                        return found
            tap, floor = None, 0
            while True:
                listing, partition, end = await topic.locate(key)
                start = end
                if listing is not None:
                    start = listing.first
                    # A position beyond the end is of an earlier log.
                    if position is not None and position.partition == listing.partition:
                        start = max(start, position.offset if position.offset <= end else 0)
                found = await partition.scan(key, start, end, max_records, max_bytes)
                if found or self._loop.time() >= until:
                    return found
                if tap is not None and tap is partition.taps.get(key):
                    offset = max(start, end)
                    if floor > offset:
                        # The tail was beyond the end: the partition has a new log.
                        partition.forget()
                    else:
                        # The tap existed before the end was requested, so no record between them
                        # is missing, unless the tap has dropped some because many came since.
                        tap.extend(start, end)
                        found = await tap.read(offset, max_records, max_bytes, until)
                        if found is not None:
                            return found
                tap = await partition.taps.attach(key)
                floor = tap.floor

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        async with self._guard(stream):
            topic = await self._topic(stream)
            key = key_of(stream)
            if last <= 0:
                listing = await topic.directory.find(key)
                newest: list[Stored] = []
            else:
                listing, partition, end = await topic.locate(key)
                if listing is not None:
                    newest = await partition.newest(key, listing.first, end, last)
            if listing is None:
                raise not_found_error(BACKEND, stream)
            return StreamInfo(stream, tuple(newest))

    async def delete(self, stream: StreamId) -> None:
        async with self._guard(stream):
            topic = await self._topic(stream)
            await topic.directory.remove(key_of(stream))

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        start = f"{tenant}/{prefix}".encode()
        async with self._guard():
            topic = await self._topic_named(self._settings.topic_of(tenant))
            keys = await topic.directory.keys()
        for key in keys:
            stream = stream_of(key) if key.startswith(start) else None
            if stream is not None:
                yield StreamInfo(stream)

    async def newest_epoch(self, stream: StreamId) -> int:
        async with self._guard(stream):
            topic = await self._topic(stream)
            return await topic.directory.newest_epoch(key_of(stream))

    async def aclose(self) -> None:
        self._guard.close()
        reason = closed_error(BACKEND)
        for topic in self._topics.values():
            topic.directory.close(reason)
        self._ends.close(reason)
        await self._closing.run()

    # -- inside --------------------------------------------------------------------------------

    def _forget_topics(self) -> None:
        """Forget what is known of the topics: they are those of another cluster."""
        for topic in self._topics.values():
            topic.forget()

    def _forget_topic(self, name: str) -> None:
        """Forget what is known of a topic, which is a new one, and of the other one of its pair."""
        for topic in self._topics.values():
            if name in (topic.name, topic.directory.topic):
                topic.forget()

    async def _end_following(self) -> None:
        await self._live_tail.close(closed_error(BACKEND))

    async def _close_connections(self) -> None:
        await asyncio.gather(self._producer.close(), self._cluster.close())

    async def _topic(self, stream: StreamId) -> DataTopic:
        name = self._settings.topic_of(stream.tenant)
        found = self._topics.get(name)
        return found if found is not None else await self._topic_named(name)

    async def _topic_named(self, name: str) -> DataTopic:
        async with self._loading:
            found = self._topics.get(name)
            if found is None:
                found = DataTopic(
                    name,
                    await self._cluster.metadata.partitions(name),
                    await self._cluster.metadata.partitions(directory_name(name)),
                    cluster=self._cluster,
                    ends=self._ends,
                    producer=self._producer,
                    live_tail=self._live_tail,
                    pages=self._pages,
                    budget=self._budget,
                    tail_bytes=self._settings.tail_bytes,
                    timeout_seconds=self._settings.operation_timeout_seconds,
                )
                self._topics[name] = found
            return found

    async def _ends_before(self, partition: TopicPartition, known: int) -> bool:
        """Whether a partition ends before a known offset, so that it has a new log.

        A small offset in an answer does not prove that: for a repeated record, the broker may
        return the offset of the first attempt, which other records have followed since.
        """
        end = (await self._cluster.end_offsets([partition]))[partition]
        if isinstance(end, Exception):
            raise end
        return end < known

    async def _raise_if_deleted(self, topic: DataTopic) -> None:
        """Raise if the topic was deleted, which a producer notices only by a timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXPLAIN_SECONDS):
                unknown = ke.UnknownTopicOrPartitionError(topic.name)
                # A producer has looked for it as long as a call may take.
                found = await self._cluster.metadata.explain(unknown, topic.name, is_patient=False)
                if found is not unknown:
                    raise found
