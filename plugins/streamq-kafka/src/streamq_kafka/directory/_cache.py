"""Keeps the entries of the directory in memory, and reads new entries when they are needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq.driver import BackendUnavailableError
from streamq_kafka._naming import BACKEND
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._coalescing import GroupedCoalescer
from streamq_kafka.requests._fetched import Fetched

from ._listing import Listing

_PAGE_BYTES = 262_144  # the most that is unpacked at once, since that blocks everything else
_ANSWER_BYTES = 1_048_576
_PAUSE_SECONDS = 0.01
_RELOAD_SECONDS = 3_600.0
# The share of a call's time for one request: a call that comes meanwhile waits for its end, too.
_REQUEST_SHARE = 0.4

_logger = logging.getLogger("streamq")


@dataclass(slots=True)
class _CachedPartition:
    """One partition of the directory, as far as it has been read.

    Attributes:
        offset: How far it has been read.
        begun_at: When reading it began, by the monotonic clock.
        end: Where it ended when it was last read.
        is_loaded: Whether it has been read to its end once.
        listings: The entry of each stream.
        successor: The same partition while it is read again, to drop what retention has removed.
    """

    offset: int
    begun_at: float
    end: int = 0
    is_loaded: bool = False
    listings: dict[bytes, Listing] = field(default_factory=dict)
    successor: _CachedPartition | None = None


class DirectoryCache:
    """The entries of a directory topic, by partition.

    Args:
        topic: Name of the directory topic.
        cluster: To read it from.
        timeout_seconds: Longest time to read what is new.
        on_change: Called for a stream whose entry was added, removed, or moved.
        on_topic_replaced: Called when the topic turns out to be a new one; should lead to
            :meth:`forget`.
    """

    def __init__(
        self,
        topic: str,
        cluster: Cluster,
        timeout_seconds: float,
        on_change: Callable[[bytes, Listing | None], None],
        on_topic_replaced: Callable[[], None],
    ) -> None:
        self._topic = topic
        self._cluster = cluster
        self._timeout_seconds = timeout_seconds
        self._on_change = on_change
        self._on_topic_replaced = on_topic_replaced
        self._partitions: dict[int, _CachedPartition] = {}
        # One for each leader, so that a leader that does not answer does not delay the others.
        self._coalescer: GroupedCoalescer[int | None, int, bool] = GroupedCoalescer(
            lambda index: cluster.metadata.known_leader(TopicPartition(topic, index)),
            self._catch_up,
            timeout_seconds=timeout_seconds,
            pause=_PAUSE_SECONDS,
        )

    def close(self, reason: Exception) -> None:
        """Fail every call that waits."""
        self._coalescer.close(reason)

    def forget(self) -> None:
        """Read everything again when it is next needed."""
        self._partitions = {}  # a read under way still has the old ones

    def peek(self, index: int) -> dict[bytes, Listing] | None:
        """Return the entries of a partition without a request; ``None`` if it is not loaded."""
        cached = self._loaded(index)
        return None if cached is None else cached.listings

    async def read(self, index: int) -> dict[bytes, Listing]:
        """Return the entries of a partition as they are now.

        Raises:
            aiokafka.errors.KafkaError: It cannot be read.
            BackendUnavailableError: There is so much to read that it takes several calls.
        """
        while True:
            try:
                await self._coalescer.load(index)
            except ke.UnknownTopicOrPartitionError as exc:
                raise await self._cluster.metadata.explain(exc, self._topic) from None
            cached = self._loaded(index)
            if cached is not None:  # otherwise the topic has turned out to be a new one
                return cached.listings

    # -- inside --------------------------------------------------------------------------------

    def _loaded(self, index: int) -> _CachedPartition | None:
        cached = self._partitions.get(index)
        return cached if cached is not None and cached.is_loaded else None

    async def _catch_up(self, indexes: Iterable[int]) -> Mapping[int, bool | Exception]:
        """Read partitions up to their end, or as far as there is time."""
        deadline = time.monotonic() + self._timeout_seconds * _REQUEST_SHARE
        results: dict[int, bool | Exception] = {}
        left = set(indexes)
        async with asyncio.timeout(self._timeout_seconds):
            while left:
                partitions = self._partitions
                missing = [index for index in left if index not in partitions]
                results.update(await self._begin(missing))
                left -= results.keys()
                if partitions is self._partitions:
                    reading = {index: partitions[index] for index in left}
                    before = [cached.offset for cached in reading.values()]
                    results.update(await self._read_on(reading))
                    left -= results.keys()
                    if left and before == [cached.offset for cached in reading.values()]:
                        # The broker counts an entry that it does not return yet.
                        await asyncio.sleep(_PAUSE_SECONDS)
                if time.monotonic() > deadline:
                    results.update((index, self._unfinished(index)) for index in left)
                    break
            await self._reload([index for index, result in results.items() if result is True])
        return results

    async def _begin(self, indexes: Iterable[int]) -> dict[int, Exception]:
        """Begin to read partitions; return the errors."""
        wanted = [TopicPartition(self._topic, index) for index in indexes]
        failed: dict[int, Exception] = {}
        if wanted:
            partitions, now = self._partitions, time.monotonic()
            for partition, found in (await self._cluster.beginning_offsets(wanted)).items():
                if isinstance(found, Exception):
                    failed[partition.partition] = found
                else:
                    partitions.setdefault(partition.partition, _CachedPartition(found, now))
        return failed

    async def _read_on(
        self, partitions: Mapping[int, _CachedPartition]
    ) -> dict[int, bool | Exception]:
        """Read the next page of each; return which were read to their end, and the errors."""
        results: dict[int, bool | Exception] = {}
        answers = await self._fetch(partitions)
        for index, fetched in answers.items():
            cached = partitions[index]
            if isinstance(fetched, ke.OffsetOutOfRangeError) and cached.is_loaded:
                await self._begin_again(index, cached)
            elif isinstance(fetched, Exception):
                results[index] = fetched
            else:
                try:
                    if self._apply(cached, fetched):
                        cached.is_loaded = results[index] = True
                except ke.KafkaError as exc:
                    results[index] = exc
        return results

    async def _begin_again(self, index: int, old: _CachedPartition) -> None:
        """Begin again with a partition that no longer has the next entry."""
        if self._partitions.get(index) is not old:
            return
        del self._partitions[index]
        await self._begin([index])
        new = self._partitions.get(index)
        if new is not None and new.offset <= old.offset:
            self._on_topic_replaced()  # retention has not removed it

    async def _reload(self, indexes: Iterable[int]) -> None:
        """Continue to read partitions again that were read long ago; the old ones serve so long."""
        now = time.monotonic()
        partitions = self._partitions
        due = {
            index: cached
            for index in indexes
            if (cached := self._loaded(index)) is not None
            and now - cached.begun_at > _RELOAD_SECONDS
        }
        begin = [TopicPartition(self._topic, i) for i in due if due[i].successor is None]
        if begin:
            for partition, found in (await self._cluster.beginning_offsets(begin)).items():
                if not isinstance(found, Exception):
                    due[partition.partition].successor = _CachedPartition(found, now)
        reading = {index: new for index, cached in due.items() if (new := cached.successor)}
        for index, done in (await self._read_on(reading)).items():
            if done is True:
                partitions[index] = reading[index]
            else:
                due[index].successor = None

    async def _fetch(
        self, partitions: Mapping[int, _CachedPartition]
    ) -> dict[int, Fetched | Exception]:
        wanted = [
            (TopicPartition(self._topic, index), cached.offset)
            for index, cached in partitions.items()
        ]
        answers = await self._cluster.fetch_from_leaders(
            wanted, partition_bytes=_PAGE_BYTES, max_bytes=_ANSWER_BYTES
        )
        return {partition.partition: answer for partition, answer in answers.items()}

    def _apply(self, cached: _CachedPartition, fetched: Fetched) -> bool:
        """Add fetched entries; return whether the partition has been read to its end."""
        if fetched.offset != cached.offset:
            return False  # while the leader changed, two reads ran at once; the other was quicker
        records, cached.offset = fetched.unpack()
        cached.end = fetched.high_watermark
        for record in records:
            self._add(cached, record, report=cached.is_loaded)
        return cached.offset >= cached.end

    def _unfinished(self, index: int) -> Exception:
        cached = self._partitions.get(index)
        far = "nothing" if cached is None else f"{cached.offset} of {cached.end} entries"
        return BackendUnavailableError(
            f"the directory {self._topic} takes longer to read than a call may take: of partition "
            f"{index} {far} so far; the next call continues there",
            backend=BACKEND,
        )

    def _add(self, cached: _CachedPartition, record: Any, *, report: bool) -> None:
        key, listings = record.key, cached.listings
        if key is None:
            return
        old = listings.get(key)
        if record.value is None:
            if listings.pop(key, None) is not None and report:
                self._on_change(key, None)
            return
        new = Listing.decode(record.value, record.timestamp)
        if new is None:
            _logger.warning("%s has an entry that is not streamq's: %r", self._topic, key[:80])
            return
        listings[key] = new if old is None else old.merge(new)
        if old is None and report:
            self._on_change(key, new)
