"""Joins a topic of records with the directory of its streams: locates streams, opens epochs.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiokafka.structs import TopicPartition

from streamq.driver import TapBudget

from ._naming import LogPosition, directory_name, partition_of
from ._writing import SharedProducer
from .directory._directory import Directory
from .directory._listing import Listing
from .live_tail._live_tail import LiveTail
from .live_tail._partition_taps import PartitionTaps, StreamTap
from .reading._page_cache import PageCache
from .reading._partition_reader import PartitionReader
from .requests._cluster import Cluster
from .requests._end_offsets import EndOffsets


class DataTopic:
    """A topic of records and its directory.

    Attributes:
        name: Name of the topic.
        directory: The directory of its streams.
        life: How often the topics have turned out to be new.
    """

    def __init__(
        self,
        name: str,
        partitions: int,
        directory_partitions: int,
        *,
        cluster: Cluster,
        ends: EndOffsets,
        producer: SharedProducer,
        live_tail: LiveTail,
        pages: PageCache,
        budget: TapBudget,
        tail_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self.name = name
        self.directory = Directory(
            directory_name(name),
            directory_partitions,
            cluster,
            producer,
            timeout_seconds,
            self._on_change,
            self.forget,
            self.current_life,
        )
        self._count = partitions
        self._cluster = cluster
        self._ends = ends
        self._live_tail = live_tail
        self._pages = pages
        self._budget = budget
        self._tail_bytes = tail_bytes
        self._partitions: dict[int, PartitionReader] = {}
        self.life = 0
        self._is_new = False
        self._renewing = asyncio.Lock()

    def partition(self, number: int) -> PartitionReader:
        """Return a partition."""
        found = self._partitions.get(number)
        if found is None:
            partition = TopicPartition(self.name, number)
            taps = PartitionTaps(
                partition,
                self._cluster,
                self._ends,
                self._live_tail,
                self._budget,
                self._tail_bytes,
                self.forget,
            )
            found = self._partitions[number] = PartitionReader(
                partition, self._cluster, self._ends, self._pages, taps, self.forget
            )
        return found

    def tap(self, number: int, key: bytes, offset: int) -> StreamTap | None:
        """Return the tap of a stream, if a reader at this offset can wait there."""
        partition = self._partitions.get(number)
        return None if partition is None else partition.taps.at_end(key, offset)

    def usual_partition(self, key: bytes) -> PartitionReader:
        """Return the partition that a new stream is put in."""
        return self.partition(partition_of(key, self._count))

    async def locate(self, key: bytes) -> tuple[Listing | None, PartitionReader, int]:
        """Return what the directory says of a stream, its partition, and where that ends.

        Every record of the stream that is stored before this call lies before that end. If there
        is no such stream, every record that it gets later lies behind that end.

        Raises:
            aiokafka.errors.KafkaError: A request failed.
        """
        while True:
            life = await self.current_life()
            listing, partition, end = await self._locate(key)
            if listing is not None and listing.first > end:
                # It began after the end was requested, or in an earlier log. In the second case its
                # records in this log are searched from the beginning.
                reached = await partition.reach(listing.first)
                listing = listing if reached is not None else replace(listing, first=0)
                end = end if reached is None else reached
            if life == await self.current_life():
                return listing, partition, end

    async def _locate(self, key: bytes) -> tuple[Listing | None, PartitionReader, int]:
        known = self.directory.peek(key)
        if known is not None:
            partition = self.partition(known.partition)
            listing, end = await asyncio.gather(self.directory.find(key), partition.end())
            if listing is not None and listing.partition == known.partition:
                return listing, partition, end
        # First the end: a stream that is not in the directory after that begins behind it.
        partition = self.usual_partition(key)
        end = await partition.end()
        listing = await self.directory.find(key)
        if listing is not None:
            partition = self.partition(listing.partition)
            end = await partition.end()
        return listing, partition, end

    def forget(self) -> None:
        """Forget everything: one topic or both are new. Readers look up their positions again.

        The topics were deleted and created, or a broker that keeps them in memory was restarted.
        """
        self.life += 1
        self._is_new = True
        self.directory.forget()
        for partition in self._partitions.values():
            partition.forget()

    async def current_life(self) -> int:
        """Return ``life``, after taking the partitions that new topics have.

        Raises:
            aiokafka.errors.KafkaError: The topics do not exist, or no broker answers.
        """
        if self._is_new:
            async with self._renewing:
                while self._is_new:
                    life, metadata = self.life, self._cluster.metadata
                    await metadata.refresh()
                    self._count = await metadata.partitions(self.name)
                    self.directory.partitions = await metadata.partitions(self.directory.topic)
                    self._is_new = life != self.life
        return self.life

    async def relist(self, key: bytes, epoch: int, position: LogPosition) -> None:
        """List a stream again whose record was stored in a new log; see :meth:`forget`."""
        self.forget()

        async def choose(_: Listing | None) -> LogPosition:
            return position

        await self.directory.open_epoch(key, epoch, choose)

    async def open_epoch(self, key: bytes, epoch: int) -> Listing:
        """Announce an epoch before its first record is stored; see :class:`Directory`."""

        async def choose(listing: Listing | None) -> LogPosition:
            partition = self.usual_partition(key)
            if listing is not None:
                partition = self.partition(listing.partition)
            return LogPosition(partition.partition.partition, await partition.end())

        return await self.directory.open_epoch(key, epoch, choose)

    def _on_change(self, key: bytes, listing: Listing | None) -> None:
        # A deleted stream must no longer be read from memory. After partitions were added, a new
        # stream may be in another partition than its readers wait at.
        for number, partition in self._partitions.items():
            if listing is None or listing.partition != number:
                partition.taps.detach(key)
