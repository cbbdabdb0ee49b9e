"""Finds streams, opens epochs, and writes the entries of the directory.

The directory is a compacted topic next to the records, keyed by stream. An entry is written before
the record that opens an epoch, and a tombstone when the stream is deleted; nothing is written for
each record. A process reads the new entries when it has to know them, and keeps the result. So a
reader finds the beginning of a stream without a search and without any clock, and a writer learns
that it has been superseded.

Two processes may open a stream at the same time. Every process that reads both entries takes the
larger epoch and the smaller offset. Compaction keeps only the entry that was written last.
Therefore a writer reads the directory again after writing, and writes the merged entry if that
differs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from streamq.driver import together
from streamq_kafka._naming import LogPosition, partition_of
from streamq_kafka._writing import SharedProducer
from streamq_kafka.requests._cluster import Cluster

from ._cache import DirectoryCache
from ._listing import Listing

_RENEW_MS = 3_600_000


class Directory:
    """The streams of one data topic.

    Args:
        topic: Name of the directory topic.
        partitions: How many partitions it has.
        cluster: To read it from.
        producer: To write it with.
        timeout_seconds: Longest time to read what is new.
        on_change: Called for a stream whose entry was added, removed, or moved.
        on_topic_replaced: Called when the topic turns out to be a new one; should call
            :meth:`forget`.
        life: Returns how often the topics have turned out to be new, and first sets
            ``partitions`` to what a new topic has.

    Attributes:
        partitions: How many partitions the topic has.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        cluster: Cluster,
        producer: SharedProducer,
        timeout_seconds: float,
        on_change: Callable[[bytes, Listing | None], None],
        on_topic_replaced: Callable[[], None],
        life: Callable[[], Awaitable[int]],
    ) -> None:
        self.topic = topic
        self.partitions = partitions
        self._life = life
        self._producer = producer
        self.cache = DirectoryCache(topic, cluster, timeout_seconds, on_change, on_topic_replaced)

    def close(self, reason: Exception) -> None:
        """Fail every call that waits."""
        self.cache.close(reason)

    def forget(self) -> None:
        """Read everything again when it is next needed: the topics are new ones."""
        self.cache.forget()

    def peek(self, key: bytes) -> Listing | None:
        """Return what is known of a stream, without a request."""
        listings = self.cache.peek(partition_of(key, self.partitions))
        return None if listings is None else listings.get(key)

    async def find(self, key: bytes) -> Listing | None:
        """Return what the directory says of a stream now.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
            BackendUnavailableError: There is so much to read that it takes several calls.
        """
        while True:
            life = await self._life()
            listings = await self.cache.read(partition_of(key, self.partitions))
            if life == await self._life():  # otherwise the topic has turned out to be a new one
                return listings.get(key)

    async def keys(self) -> list[bytes]:
        """Return the keys of all streams.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
            BackendUnavailableError: There is so much to read that it takes several calls.
        """
        while True:
            life = await self._life()
            found = await together([self.cache.read(index) for index in range(self.partitions)])
            if life == await self._life():
                return [key for listings in found for key in listings]

    async def newest_epoch(self, key: bytes) -> int:
        """Return the largest epoch that has been opened; 0 if there is no such stream."""
        listing = await self.find(key)
        if listing is None:
            return 0
        if not listing.is_settled:
            # The process that overwrote the entry has not corrected it, and may have died.
            await self._write(key, listing)
        return listing.epoch

    async def open_epoch(
        self,
        key: bytes,
        epoch: int,
        choose: Callable[[Listing | None], Awaitable[LogPosition]],
    ) -> Listing:
        """Announce an epoch before its first record is stored.

        Args:
            key: The stream.
            epoch: The epoch.
            choose: Returns the earliest position of the next record, for a stream that is listed
                or does not exist yet.

        Returns:
            What the directory says now. Its epoch is larger if the stream has been taken over; then
            nothing may have been written.
        """
        known = self.peek(key)
        position, listing = await asyncio.gather(choose(known), self.find(key))
        if listing is None:
            if known is not None:
                position = await choose(None)
            wanted = Listing(position.partition, position.offset, epoch, _now_ms())
        else:
            if position.partition != listing.partition or position.offset < listing.first:
                # The first answer may be from before the stream began.
                position = await choose(listing)
            first = listing.first
            if position.partition == listing.partition:
                # The log ends before the stream began: it is not the log that the entry is of.
                first = min(first, position.offset)
            wanted = replace(listing, epoch=epoch, first=first)
            if listing.epoch > epoch or (listing.is_settled and wanted == listing):
                return listing
        await self._write(key, wanted)
        listing = await self.find(key)
        if listing is not None and not listing.is_settled:
            await self._write(key, listing)
        return listing or wanted

    def is_due(self, listing: Listing) -> bool:
        """Whether an entry is so old that the topic's retention might remove it."""
        return _now_ms() - listing.written_ms > _RENEW_MS

    async def renew(self, key: bytes, listing: Listing) -> None:
        """Write an entry again, unless the stream has been deleted meanwhile."""
        listings = self.cache.peek(partition_of(key, self.partitions))
        if listings is not None and key in listings:
            listings[key] = replace(listing, written_ms=_now_ms())  # one renewal is enough
        found = await self.find(key)
        if found is not None:
            await self._write(key, found)

    async def remove(self, key: bytes) -> None:
        """Write that a stream has been deleted, if it exists."""
        if await self.find(key) is None:
            return
        await self._write(key, None)
        await self.find(key)

    async def _write(self, key: bytes, listing: Listing | None) -> None:
        value = None if listing is None else listing.encode()
        partition = partition_of(key, self.partitions)
        await self._producer.send(self.topic, partition, [(key, value, [])])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
