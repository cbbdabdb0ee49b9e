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
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq.driver import BackendUnavailableError

from ._cluster import Cluster
from ._fetched import Fetched
from ._listing import Listing
from ._positions import BACKEND, Place, partition_of
from ._producer import Producer
from ._rounds import RoundsBy

_PAGE_BYTES = 262_144  # as much as is unpacked in one go, holding up everything else
_ANSWER_BYTES = 1_048_576
_PAUSE_SECONDS = 0.01
_RELOAD_SECONDS = 3_600.0
_RENEW_MS = 3_600_000
# Of a call's time, for one round: who comes during a round waits for the end of it, too.
_ROUND_SHARE = 0.4

_logger = logging.getLogger("streamq")


@dataclass(slots=True)
class _Shard:
    """One partition of the directory, as far as it has been read.

    Attributes:
        offset: How far that is.
        begun_at: When reading it began, by the monotonic clock.
        end: Where it ended when it was last asked.
        is_loaded: Whether its end has been reached before.
        listings: What it says.
        successor: The same read anew, if that is under way: without what retention has removed.
    """

    offset: int
    begun_at: float
    end: int = 0
    is_loaded: bool = False
    listings: dict[bytes, Listing] = field(default_factory=dict)
    successor: _Shard | None = None


class Directory:
    """The streams of one data topic.

    Args:
        topic: Name of the directory topic.
        partitions: How many it has.
        cluster: Where it is read.
        producer: What writes it.
        patience: Longest time to read what is new.
        on_change: Told of a stream whose entry has come, gone, or moved.
        on_anew: Called when the topic turns out to be another one than before; should
            :meth:`forget`.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        cluster: Cluster,
        producer: Producer,
        patience: float,
        on_change: Callable[[bytes, Listing | None], None],
        on_anew: Callable[[], None],
    ) -> None:
        self.topic = topic
        self._partitions = partitions
        self._cluster = cluster
        self._producer = producer
        self._patience = patience
        self._on_change = on_change
        self._on_anew = on_anew
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
        self._shards = {}  # whoever is reading still has the old ones

    def peek(self, key: bytes) -> Listing | None:
        """Return what is known of a stream without asking."""
        shard = self._loaded(partition_of(key, self._partitions))
        return None if shard is None else shard.listings.get(key)

    async def find(self, key: bytes) -> Listing | None:
        """Return what the directory says of a stream now.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
            BackendUnavailableError: There is so much to read that it takes several calls.
        """
        return (await self._read(partition_of(key, self._partitions))).listings.get(key)

    async def keys(self) -> list[bytes]:
        """Return the keys of all streams.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
            BackendUnavailableError: There is so much to read that it takes several calls.
        """
        shards = await asyncio.gather(*(self._read(index) for index in range(self._partitions)))
        return [key for shard in shards for key in shard.listings]

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
        self, key: bytes, epoch: int, choose: Callable[[Listing | None], Awaitable[Place]]
    ) -> Listing:
        """Make an epoch known before its first record is stored.

        Args:
            key: Which stream.
            epoch: Which epoch.
            choose: Says where the next record will be at the earliest, of a stream that is listed
                or does not exist yet.

        Returns:
            What the directory says now. Its epoch is larger if the stream has been taken over; then
            nothing may have been written.
        """
        known = self.peek(key)
        place, listing = await asyncio.gather(choose(known), self.find(key))
        if listing is None:
            if known is not None:
                place = await choose(None)
            wanted = Listing(place.partition, place.offset, epoch, _now_ms())
        else:
            if place.partition != listing.partition or place.offset < listing.first:
                place = await choose(listing)  # the other one may be from before the stream began
            first = listing.first
            if place.partition == listing.partition:
                # It ends before the stream began: the log is another one than the directory's.
                first = min(first, place.offset)
            wanted = replace(listing, epoch=epoch, first=first)
            if listing.epoch > epoch or (listing.is_settled and wanted == listing):
                return listing
        await self._write(key, wanted)
        listing = await self.find(key)
        if listing is not None and not listing.is_settled:
            await self._write(key, listing)
        return listing or wanted

    def is_due(self, listing: Listing) -> bool:
        """Whether an entry is so old that the topic's retention might take it."""
        return _now_ms() - listing.written_ms > _RENEW_MS

    async def renew(self, key: bytes, listing: Listing) -> None:
        """Write an entry again, unless the stream has been deleted meanwhile."""
        shard = self._loaded(partition_of(key, self._partitions))
        if shard is not None and key in shard.listings:
            shard.listings[key] = replace(listing, written_ms=_now_ms())  # once is enough
        found = await self.find(key)
        if found is not None:
            await self._write(key, found)

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

    def _loaded(self, index: int) -> _Shard | None:
        shard = self._shards.get(index)
        return shard if shard is not None and shard.is_loaded else None

    async def _read(self, index: int) -> _Shard:
        """Return a partition of the directory as it is now."""
        while True:
            try:
                await self._rounds.join(index)
            except ke.UnknownTopicOrPartitionError as exc:
                raise await self._cluster.confirm(exc, self.topic) from None
            shard = self._loaded(index)
            if shard is not None:  # otherwise the topic has turned out to be another one
                return shard

    async def _catch_up(self, indexes: Iterable[int]) -> Mapping[int, bool | Exception]:
        """Read partitions of the directory up to their end, or as far as there is time."""
        deadline = time.monotonic() + self._patience * _ROUND_SHARE
        results: dict[int, bool | Exception] = {}
        left = set(indexes)
        async with asyncio.timeout(self._patience):
            while left:
                shards = self._shards
                results.update(await self._begin(index for index in left if index not in shards))
                left -= results.keys()
                if shards is self._shards:
                    reading = {index: shards[index] for index in left}
                    before = [shard.offset for shard in reading.values()]
                    results.update(await self._go_on(reading))
                    left -= results.keys()
                    if left and before == [shard.offset for shard in reading.values()]:
                        await asyncio.sleep(_PAUSE_SECONDS)  # it is counted and not there yet
                if time.monotonic() > deadline:
                    results.update((index, self._unfinished(index)) for index in left)
                    break
            await self._renew_shards([index for index, result in results.items() if result is True])
        return results

    async def _begin(self, indexes: Iterable[int]) -> dict[int, Exception]:
        """Begin to read partitions; return what went wrong."""
        wanted = [TopicPartition(self.topic, index) for index in indexes]
        failed: dict[int, Exception] = {}
        if wanted:
            shards, now = self._shards, time.monotonic()
            for partition, found in (await self._cluster.beginnings(wanted)).items():
                if isinstance(found, Exception):
                    failed[partition.partition] = found
                else:
                    shards.setdefault(partition.partition, _Shard(found, now))
        return failed

    async def _go_on(self, shards: Mapping[int, _Shard]) -> dict[int, bool | Exception]:
        """Read the next page of each; return which were read to their end, and what went wrong."""
        results: dict[int, bool | Exception] = {}
        answers = await self._fetch(shards)
        for index, fetched in answers.items():
            shard = shards[index]
            if isinstance(fetched, ke.OffsetOutOfRangeError) and shard.is_loaded:
                await self._skip(index, shard)
            elif isinstance(fetched, Exception):
                results[index] = fetched
            else:
                try:
                    if self._apply(shard, fetched):
                        shard.is_loaded = results[index] = True
                except ke.KafkaError as exc:
                    results[index] = exc
        return results

    async def _skip(self, index: int, old: _Shard) -> None:
        """Read a partition anew that no longer has what comes next."""
        if self._shards.get(index) is not old:
            return
        del self._shards[index]
        await self._begin([index])
        new = self._shards.get(index)
        if new is not None and new.offset <= old.offset:
            self._on_anew()  # it is not retention that has removed it

    async def _renew_shards(self, indexes: Iterable[int]) -> None:
        """Go on reading anew what was read long ago; until that is done, the old one serves."""
        now = time.monotonic()
        shards = self._shards
        due = {
            index: shard
            for index in indexes
            if (shard := self._loaded(index)) is not None and now - shard.begun_at > _RELOAD_SECONDS
        }
        begin = [TopicPartition(self.topic, i) for i in due if due[i].successor is None]
        if begin:
            for partition, found in (await self._cluster.beginnings(begin)).items():
                if not isinstance(found, Exception):
                    due[partition.partition].successor = _Shard(found, now)
        reading = {index: new for index, shard in due.items() if (new := shard.successor)}
        for index, done in (await self._go_on(reading)).items():
            if done is True:
                shards[index] = reading[index]
            else:
                due[index].successor = None

    async def _fetch(self, shards: Mapping[int, _Shard]) -> dict[int, Fetched | Exception]:
        wanted = [
            (TopicPartition(self.topic, index), shard.offset) for index, shard in shards.items()
        ]
        answers = await self._cluster.fetch_from_leaders(
            wanted, partition_bytes=_PAGE_BYTES, max_bytes=_ANSWER_BYTES
        )
        return {partition.partition: answer for partition, answer in answers.items()}

    def _apply(self, shard: _Shard, fetched: Fetched) -> bool:
        """Take what was fetched; return whether that was all."""
        if fetched.offset != shard.offset:
            return False  # two rounds at once, while the leader changed: the other was quicker
        records, shard.offset = fetched.unpack()
        shard.end = fetched.high
        for record in records:
            self._note(shard, record, tell=shard.is_loaded)
        return shard.offset >= shard.end

    def _unfinished(self, index: int) -> Exception:
        shard = self._shards.get(index)
        far = "nothing" if shard is None else f"{shard.offset} of {shard.end} entries"
        return BackendUnavailableError(
            f"the directory {self.topic} takes longer to read than a call may: of partition "
            f"{index} {far} so far; the next call goes on there",
            backend=BACKEND,
        )

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
