"""A topic of records with the directory of its streams."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiokafka.structs import TopicPartition

from ._cluster import Cluster
from ._directory import Directory
from ._ends import Ends
from ._listing import Listing
from ._pages import Pages
from ._partition import DataPartition
from ._positions import Place, partition_of
from ._producer import Producer
from ._settings import DIRECTORY
from ._tail import Tail
from ._taps import Budget, Tap


class Topic:
    """One data topic, as one queue sees it.

    Attributes:
        name: Its name.
        directory: Which streams it has.
    """

    def __init__(
        self,
        name: str,
        partitions: int,
        directory_partitions: int,
        *,
        cluster: Cluster,
        ends: Ends,
        producer: Producer,
        tail: Tail,
        pages: Pages,
        budget: Budget,
        tail_bytes: int,
        patience: float,
    ) -> None:
        self.name = name
        self.directory = Directory(
            directory_name(name),
            directory_partitions,
            cluster,
            producer,
            patience,
            self._on_change,
            self.forget,
        )
        self._count = partitions
        self._cluster = cluster
        self._ends = ends
        self._tail = tail
        self._pages = pages
        self._budget = budget
        self._tail_bytes = tail_bytes
        self._partitions: dict[int, DataPartition] = {}
        self._age = 0

    def partition(self, number: int) -> DataPartition:
        """Return a partition."""
        found = self._partitions.get(number)
        if found is None:
            found = self._partitions[number] = DataPartition(
                TopicPartition(self.name, number),
                self._cluster,
                self._ends,
                self._tail,
                self._pages,
                self._budget,
                self._tail_bytes,
                self.forget,
            )
        return found

    def tap(self, number: int, key: bytes, offset: int) -> Tap | None:
        """Return the tap of a stream if a reader at this place can go on from it."""
        partition = self._partitions.get(number)
        return None if partition is None else partition.tap_at(key, offset)

    def usual_partition(self, key: bytes) -> DataPartition:
        """Return the partition that a stream is put in when it is new."""
        return self.partition(partition_of(key, self._count))

    async def locate(self, key: bytes) -> tuple[Listing | None, DataPartition, int]:
        """Return what the directory says of a stream, its partition, and where that ends.

        Whatever of the stream is stored when this is called lies before that end. If there is no
        such stream, whatever will be stored of it does not.

        Raises:
            aiokafka.errors.KafkaError: Kafka cannot be asked.
        """
        while True:
            age = self._age
            listing, partition, end = await self._locate(key)
            if listing is not None and listing.first > end:
                # It began after the end was asked for, or in a log that is no more: then whatever
                # of it there is in this one is looked for from the beginning.
                reached = await partition.reach(listing.first)
                listing = listing if reached is not None else replace(listing, first=0)
                end = end if reached is None else reached
            if age == self._age:
                return listing, partition, end

    async def _locate(self, key: bytes) -> tuple[Listing | None, DataPartition, int]:
        known = self.directory.peek(key)
        if known is not None:
            partition = self.partition(known.partition)
            listing, end = await asyncio.gather(self.directory.find(key), partition.end())
            if listing is not None and listing.partition == known.partition:
                return listing, partition, end
        # First the end: a stream that the directory does not have after that begins behind it.
        partition = self.usual_partition(key)
        end = await partition.end()
        listing = await self.directory.find(key)
        if listing is not None:
            partition = self.partition(listing.partition)
            end = await partition.end()
        return listing, partition, end

    def forget(self) -> None:
        """Begin anew: the topics are others now, or one of them is. Readers find their places.

        They were deleted and created, or a broker that keeps them in memory was restarted.
        """
        self._age += 1
        self.directory.forget()
        for partition in self._partitions.values():
            partition.forget()

    async def begin_anew(self, key: bytes, epoch: int, place: Place) -> None:
        """List a stream whose record was stored where others had been: see :meth:`forget`."""
        self.forget()

        async def choose(_: Listing | None) -> Place:
            return place

        await self.directory.open_epoch(key, epoch, choose)

    async def open_epoch(self, key: bytes, epoch: int) -> Listing:
        """Make an epoch known before its first record is stored; see :class:`Directory`."""

        async def choose(listing: Listing | None) -> Place:
            partition = self.usual_partition(key)
            if listing is not None:
                partition = self.partition(listing.partition)
            return Place(partition.partition.partition, await partition.end())

        return await self.directory.open_epoch(key, epoch, choose)

    def _on_change(self, key: bytes, listing: Listing | None) -> None:
        # Deleted: what is remembered of it is no longer to be read. Come into being elsewhere than
        # expected, after partitions were added: its readers wait in the wrong place.
        for number, partition in self._partitions.items():
            if listing is None or listing.partition != number:
                partition.detach(key)


def directory_name(topic: str) -> str:
    """Return the name of the directory of a topic."""
    return f"{topic}{DIRECTORY}"
