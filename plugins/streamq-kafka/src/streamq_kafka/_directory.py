"""Which streams there are, where they begin, and which epoch is the newest.

A compacted topic beside the records, keyed by stream. An entry is written before the record that
opens an epoch, and a tombstone when the stream is deleted; nothing is written per record. A process
reads what is new in it when it has to know, and keeps the result: a reader finds the beginning of a
stream without a search and without anybody's clock, and a writer learns that it has been
superseded.

Two processes may open a stream at the same time. Whoever reads both entries takes the larger epoch
and the smaller offset. Compaction keeps only the entry that was written last, so that a writer
looks again after writing, and writes what both amount to if that is something else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from ._cluster import Cluster
from ._fetched import Fetched
from ._positions import Place, partition_of
from ._producer import Producer
from ._rounds import RoundsBy

_VERSION = 1
_PAGE_BYTES = 1_048_576
_PAUSE_SECONDS = 0.01
_RELOAD_SECONDS = 3_600.0
_RENEW_MS = 3_600_000

_logger = logging.getLogger("streamq")


@dataclass(frozen=True, slots=True)
class Listing:
    """What the directory says of a stream.

    Attributes:
        partition: Where its records are.
        first: No record of it is before this offset.
        epoch: The newest epoch that was opened, or was about to be.
        created_ms: When the stream was opened first, by the clock of who did it.
        written_ms: When the entry was written.
        is_settled: Whether the last entry in the log says the same.
    """

    partition: int
    first: int
    epoch: int
    created_ms: int
    written_ms: int = 0
    is_settled: bool = True

    def encode(self) -> bytes:
        """Return the value of a directory record."""
        return json.dumps(
            {
                "v": _VERSION,
                "partition": self.partition,
                "first": self.first,
                "epoch": self.epoch,
                "created_ms": self.created_ms,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def decode(cls, value: bytes, written_ms: int) -> Listing | None:
        """Read the value of a directory record; ``None`` if it is not one of ours."""
        try:
            found = json.loads(value)
            if found["v"] != _VERSION:
                return None
            listing = cls(
                partition=found["partition"],
                first=found["first"],
                epoch=found["epoch"],
                created_ms=found["created_ms"],
                written_ms=written_ms,
            )
        except (ValueError, KeyError, TypeError):
            return None
        numbers = (listing.partition, listing.first, listing.epoch, listing.created_ms)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None
        return listing

    def merge(self, newer: Listing) -> Listing:
        """Return what this entry and a later one in the log amount to."""
        epoch = max(self.epoch, newer.epoch)
        first = min(self.first, newer.first)
        is_settled = (self.partition, first, epoch) == (
            newer.partition,
            newer.first,
            newer.epoch,
        )
        return replace(
            self, first=first, epoch=epoch, written_ms=newer.written_ms, is_settled=is_settled
        )


@dataclass(slots=True)
class _Shard:
    """One partition of the directory, as far as it has been read."""

    offset: int
    loaded_at: float
    listings: dict[bytes, Listing] = field(default_factory=dict)


class Directory:
    """The streams of one data topic.

    Args:
        topic: Name of the directory topic.
        partitions: How many it has.
        cluster: Where it is read.
        producer: What writes it.
        patience: Longest time to read what is new.
        on_change: Told of a stream whose entry has come, gone, or moved.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        cluster: Cluster,
        producer: Producer,
        patience: float,
        on_change: Callable[[bytes, Listing | None], None],
    ) -> None:
        self.topic = topic
        self._partitions = partitions
        self._cluster = cluster
        self._producer = producer
        self._patience = patience
        self._on_change = on_change
        self._shards: dict[int, _Shard] = {}
        # For each leader, so that one that does not answer holds up nobody else.
        self._rounds: RoundsBy[int | None, int, bool] = RoundsBy(
            lambda index: cluster.known_leader(TopicPartition(topic, index)),
            self._catch_up,
            patience=patience,
            pause=_PAUSE_SECONDS,
        )

    def close(self, reason: Exception) -> None:
        """Fail whoever waits."""
        self._rounds.close(reason)

    def forget(self) -> None:
        """Read everything anew when it is next needed: the topics are others now."""
        self._shards.clear()

    def peek(self, key: bytes) -> Listing | None:
        """Return what is known of a stream without asking."""
        shard = self._shards.get(partition_of(key, self._partitions))
        return None if shard is None else shard.listings.get(key)

    async def find(self, key: bytes) -> Listing | None:
        """Return what the directory says of a stream now.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
        """
        await self._rounds.join(partition_of(key, self._partitions))
        return self.peek(key)

    async def keys(self) -> list[bytes]:
        """Return the keys of all streams.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
        """
        await asyncio.gather(*(self._rounds.join(index) for index in range(self._partitions)))
        return [key for shard in self._shards.values() for key in shard.listings]

    async def newest_epoch(self, key: bytes) -> int:
        """Return the largest epoch that has been opened; 0 if there is no such stream."""
        listing = await self.find(key)
        if listing is None:
            return 0
        if not listing.is_settled:
            # Whoever overwrote it has not put it right again, and may have died.
            await self._write(key, listing)
        return listing.epoch

    async def open_epoch(
        self, key: bytes, epoch: int, choose: Callable[[], Awaitable[Place]]
    ) -> Listing:
        """Make an epoch known before its first record is stored.

        Args:
            key: Which stream.
            epoch: Which epoch.
            choose: Says where a stream that does not exist yet will be, and begins at the earliest.

        Returns:
            What the directory says now. Its epoch is larger if the stream has been taken over; then
            nothing may have been written.
        """
        listing, place = self.peek(key), None
        if listing is None:
            place, listing = await asyncio.gather(choose(), self.find(key))
        else:
            listing = await self.find(key)
        if listing is not None:
            if listing.epoch > epoch or (listing.epoch == epoch and listing.is_settled):
                return listing
            wanted = replace(listing, epoch=epoch)
        else:
            place = place or await choose()
            wanted = Listing(place.partition, place.offset, epoch, _now_ms())
        await self._write(key, wanted)
        listing = await self.find(key)
        if listing is not None and not listing.is_settled:
            await self._write(key, listing)
        return listing or wanted

    def is_due(self, listing: Listing) -> bool:
        """Whether an entry is so old that the topic's retention might take it."""
        return _now_ms() - listing.written_ms > _RENEW_MS

    async def renew(self, key: bytes, listing: Listing) -> None:
        """Write an entry again."""
        shard = self._shards.get(partition_of(key, self._partitions))
        if shard is not None and key in shard.listings:
            shard.listings[key] = replace(listing, written_ms=_now_ms())
        await self._write(key, listing)

    async def remove(self, key: bytes) -> None:
        """Write that a stream has been deleted, if there is one."""
        if await self.find(key) is None:
            return
        await self._write(key, None)
        await self.find(key)

    # -- inside --------------------------------------------------------------------------------

    async def _write(self, key: bytes, listing: Listing | None) -> None:
        value = None if listing is None else listing.encode()
        partition = partition_of(key, self._partitions)
        await self._producer.send(self.topic, partition, [(key, value, [])])

    async def _catch_up(self, indexes: Iterable[int]) -> Mapping[int, bool | Exception]:
        """Read partitions of the directory up to their end."""
        async with asyncio.timeout(self._patience):
            now = time.monotonic()
            results: dict[int, bool | Exception] = {}
            shards = {index: self._shards.get(index) for index in indexes}
            fresh = {
                index
                for index, shard in shards.items()
                if shard is None or now - shard.loaded_at > _RELOAD_SECONDS
            }
            reading = {
                index: shard
                for index, shard in shards.items()
                if shard is not None and index not in fresh
            }
            begin = fresh
            while begin or reading:
                reading.update(await self._begin(begin, now))
                begin = set()
                for partition, fetched in (await self._fetch(reading)).items():
                    index = partition.partition
                    if isinstance(fetched, ke.OffsetOutOfRangeError) and index not in fresh:
                        # Retention has removed what comes next: what is left is read anew.
                        del reading[index]
                        begin.add(index)
                        fresh.add(index)
                    elif isinstance(fetched, Exception):
                        results[index] = fetched
                        del reading[index]
                    elif self._apply(reading[index], fetched, tell=index not in fresh):
                        results[index] = True
                        self._shards[index] = reading.pop(index)
            return results

    async def _begin(self, indexes: set[int], now: float) -> dict[int, _Shard]:
        if not indexes:
            return {}
        partitions = [TopicPartition(self.topic, index) for index in indexes]
        offsets = await self._cluster.beginnings(partitions)
        return {partition.partition: _Shard(offset, now) for partition, offset in offsets.items()}

    async def _fetch(
        self, shards: Mapping[int, _Shard]
    ) -> dict[TopicPartition, Fetched | Exception]:
        wanted = [
            (TopicPartition(self.topic, index), shard.offset) for index, shard in shards.items()
        ]
        return await self._cluster.fetch_from_leaders(
            wanted, partition_bytes=_PAGE_BYTES, max_bytes=_PAGE_BYTES
        )

    def _apply(self, shard: _Shard, fetched: Fetched, *, tell: bool) -> bool:
        """Take what was fetched; return whether that was all."""
        if fetched.offset != shard.offset:
            return False  # two rounds at once, while the leader changed: the other was quicker
        records, shard.offset = fetched.unpack()
        for record in records:
            self._note(shard, record, tell=tell)
        return shard.offset >= fetched.high

    def _note(self, shard: _Shard, record: Any, *, tell: bool) -> None:
        key, listings = record.key, shard.listings
        if key is None:
            return
        old = listings.get(key)
        if record.value is None:
            if listings.pop(key, None) is not None and tell:
                self._on_change(key, None)
            return
        new = Listing.decode(record.value, record.timestamp)
        if new is None:
            _logger.warning("%s has an entry that is not streamq's: %r", self.topic, key[:80])
            return
        listings[key] = new if old is None else old.merge(new)
        if old is None and tell:
            self._on_change(key, new)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
