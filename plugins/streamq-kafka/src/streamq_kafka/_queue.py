"""The queue: streamq's contract on top of the producer, the directory and the partitions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    ClosedError,
    Entry,
    FencedError,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    StreamqError,
)

from ._cluster import Cluster
from ._ends import Ends
from ._errors import closed_error, kafka_errors
from ._listing import Listing
from ._pages import Pages
from ._positions import BACKEND, Place, decode_place, headers_of, key_of, stream_of
from ._producer import Producer
from ._settings import KafkaSettings
from ._tail import Tail
from ._taps import Budget, Tap
from ._topic import Topic, directory_name

_EXPLAIN_SECONDS = 1.0


class KafkaQueue(ChunkQueue):
    """Streams on the partitions of one topic, or of one topic for each tenant.

    Args:
        settings: What is configured.
        capabilities: What is promised.
        cluster: Connected; the queue closes it.
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
        self._address = settings.bootstrap_servers
        self._cluster = cluster
        self._ends = Ends(cluster, settings.operation_timeout_seconds)
        self._producer = Producer(settings, max_message_bytes)
        self._tail = Tail(cluster, settings.fetch_wait_ms)
        self._pages = Pages(settings.cache_bytes)
        self._budget = Budget(settings.cache_bytes)
        self._topics: dict[str, Topic] = {}
        self._loading = asyncio.Lock()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self._errors(stream):
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
                    raise _fenced(stream, entry, listing)
            partition = TopicPartition(topic.name, listing.partition)
            known = self._ends.known(partition)
            messages = [(key, entry.data, headers_of(entry)) for entry in entries]
            try:
                sent = await self._producer.send(topic.name, listing.partition, messages)
            except (ke.UnknownTopicOrPartitionError, ke.NotLeaderForPartitionError, TimeoutError):
                await self._explain(topic)
                raise
            if sent.last < known and await self._ends_before(partition, known):
                place = Place(listing.partition, max(0, sent.first))
                await topic.begin_anew(key, entries[-1].epoch, place)
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
        with self._errors(stream):
            place = decode_place(after, stream)
            key = key_of(stream)
            until = self._loop.time() + max_wait
            topic = await self._topic(stream)
            if max_wait > 0 and place is not None:
                tap = topic.tap(place.partition, key, place.offset)
                if tap is not None:
                    found = await _follow(tap, place.offset, max_records, max_bytes, until)
                    if found is not None:
                        return found
            tap, floor = None, 0
            while True:
                listing, partition, end = await topic.locate(key)
                start = end
                if listing is not None:
                    start = listing.first
                    # A place beyond the end is one in a log that is no more.
                    if place is not None and place.partition == listing.partition:
                        start = max(start, place.offset if place.offset <= end else 0)
                found = await partition.scan(key, start, end, max_records, max_bytes)
                if found or self._loop.time() >= until:
                    return found
                if tap is not None and tap is partition.tap(key):
                    offset = max(start, end)
                    if floor > offset:
                        partition.forget()  # the tail was beyond the end: the log is another one
                    else:
                        # It was there before the end was asked for: between them nothing is
                        # missing, unless so much has come since that the tap has dropped some.
                        tap.extend(start, end)
                        found = await _follow(tap, offset, max_records, max_bytes, until)
                        if found is not None:
                            return found
                tap = await partition.attach(key)
                floor = tap.floor

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with self._errors(stream):
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
                raise StreamNotFoundError(
                    f"there is no stream {stream} (never written, deleted, or expired)",
                    backend=BACKEND,
                    stream=str(stream),
                )
            return StreamInfo(stream, tuple(newest))

    async def delete(self, stream: StreamId) -> None:
        with self._errors(stream):
            topic = await self._topic(stream)
            await topic.directory.remove(key_of(stream))

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        start = f"{tenant}/{prefix}".encode()
        with self._errors():
            topic = await self._topic_named(self._settings.topic_of(tenant))
            keys = await topic.directory.keys()
        for key in keys:
            stream = stream_of(key) if key.startswith(start) else None
            if stream is not None:
                yield StreamInfo(stream)

    async def newest_epoch(self, stream: StreamId) -> int:
        with self._errors(stream):
            topic = await self._topic(stream)
            return await topic.directory.newest_epoch(key_of(stream))

    async def aclose(self) -> None:
        self._is_closed = True
        reason = closed_error()
        for topic in self._topics.values():
            topic.directory.close(reason)
        self._ends.close(reason)
        await self._tail.close(reason)
        await asyncio.gather(self._producer.close(), self._cluster.close())

    # -- inside --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _errors(self, stream: StreamId | None = None) -> Iterator[None]:
        if self._is_closed:
            raise closed_error()
        try:
            with kafka_errors(self._address, stream):
                yield
        except StreamqError as exc:
            if self._is_closed and not isinstance(exc, ClosedError):
                raise closed_error() from exc
            raise

    async def _topic(self, stream: StreamId) -> Topic:
        name = self._settings.topic_of(stream.tenant)
        return self._topics.get(name) or await self._topic_named(name)

    async def _topic_named(self, name: str) -> Topic:
        async with self._loading:
            found = self._topics.get(name)
            if found is None:
                found = Topic(
                    name,
                    await self._cluster.partitions(name),
                    await self._cluster.partitions(directory_name(name)),
                    cluster=self._cluster,
                    ends=self._ends,
                    producer=self._producer,
                    tail=self._tail,
                    pages=self._pages,
                    budget=self._budget,
                    tail_bytes=self._settings.tail_bytes,
                    patience=self._settings.operation_timeout_seconds,
                )
                self._topics[name] = found
            return found

    async def _ends_before(self, partition: TopicPartition, known: int) -> bool:
        """Whether a partition is shorter than it was, so that the log is another one.

        A small offset alone does not say so: the answer may be that to a first sending, of what was
        repeated after others had gone on.
        """
        end = (await self._cluster.latest([partition]))[partition]
        if isinstance(end, Exception):
            raise end
        return end < known

    async def _explain(self, topic: Topic) -> None:
        """Raise if the topic has gone, which a producer only notices by waiting in vain."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXPLAIN_SECONDS):
                unknown = ke.UnknownTopicOrPartitionError(topic.name)
                found = await self._cluster.confirm(unknown, topic.name)
                if found is not unknown:
                    raise found


async def _follow(
    tap: Tap, offset: int, max_records: int, max_bytes: int, until: float
) -> list[Stored] | None:
    """Wait for records of a tap that covers an offset; ``None`` if it is no longer of use."""
    loop = asyncio.get_running_loop()
    while tap.covers(offset):
        found = tap.after(offset, max_records, max_bytes)
        now = loop.time()
        tap.used = now
        if found or now >= until:
            return found
        await tap.wait(until - now)
    return None


def _fenced(stream: StreamId, entry: Entry, listing: Listing) -> FencedError:
    return FencedError(
        f"epoch {listing.epoch} has taken over stream {stream}; epoch {entry.epoch} must stop",
        backend=BACKEND,
        stream=str(stream),
    )
