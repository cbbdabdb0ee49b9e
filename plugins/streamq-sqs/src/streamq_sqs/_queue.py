"""Implements streamq's contract on SQS: each stream is a queue, each record a message.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Closing,
    Entry,
    Guard,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
)

from ._errors import BACKEND, not_found
from ._listing import list_queues
from ._lookup import QueueLookup
from ._naming import QueueNames
from ._requests import SqsRequests
from ._settings import SqsSettings
from ._sweeping import sweep
from ._tags import QueueTags
from ._writing import Appender
from .reading import Readers, receipts_of


class SqsQueue(ChunkQueue):
    """Streams in SQS queues.

    Args:
        options: Options that every queue is opened with.
        settings: The driver's settings.
        capabilities: The capabilities to declare.
    """

    backend = BACKEND

    def __init__(
        self, options: QueueOptions, settings: SqsSettings, capabilities: Capabilities
    ) -> None:
        self.capabilities = capabilities
        self.hidden_seconds = settings.visibility_seconds
        self._names = QueueNames(settings.queue_prefix, fifo=settings.fifo)
        self._requests = SqsRequests(settings)
        self._guard = Guard(BACKEND, seconds=math.inf)  # each request has a deadline
        self._lookup = QueueLookup(self._requests, self._names)
        self._readers = Readers(
            self._requests,
            self._lookup,
            visibility_seconds=settings.visibility_seconds,
            # The other connections are for writers, and for readers that give messages back.
            renewals_at_once=max(1, settings.max_connections // 2),
        )
        self._appender = Appender(
            self._requests,
            self._lookup,
            self._names,
            settings,
            ttl_seconds=options.ttl.total_seconds(),
            forget=self._readers.forget,
        )
        self._closing = Closing(self._readers.aclose, self._requests.aclose)

    async def start(self) -> None:
        """Connect, and check that SQS answers.

        Raises:
            StreamqError: It does not answer, or refuses the request.
        """
        await self._requests.start(self._names)
        self._readers.start()

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        async with self._guard(stream):
            seconds = None if ttl is None else ttl.total_seconds()
            await self._appender.append(stream, entries, seconds)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        receipts_of(after, stream)
        async with self._guard(stream):
            return await self._readers.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )

    async def commit(self, stream: StreamId, upto: str) -> None:
        receipts = receipts_of(upto, stream)
        async with self._guard(stream):
            url = await self._lookup.url(stream)
            if url is None:
                return
            try:
                await self._requests.remove(stream, url, receipts)
            except StreamNotFoundError:
                self._readers.forget(stream)
            self._readers.settle(stream, receipts)

    async def release(self, stream: StreamId, after: str) -> None:
        receipts_of(after, stream)
        async with self._guard(stream):
            await self._readers.release(stream, after)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        async with self._guard(stream):
            url = await self._lookup.url(stream)
            if url is None:
                raise self._not_found(stream)
            try:
                count, tags = await self._requests.count(url), await self._requests.tags(url)
            except StreamNotFoundError:
                self._readers.forget(stream)
                raise self._not_found(stream) from None
            return StreamInfo(
                stream, records=count, expires_in=tags.expires_in, attempts=tags.attempts
            )

    async def delete(self, stream: StreamId) -> None:
        async with self._guard(stream):
            url = await self._lookup.url(stream)
            self._readers.forget(stream)
            if url is not None:
                await self._requests.delete(url)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        listed = list_queues(
            self._requests, self._guard, self._names.tenant(tenant), self._requests.tags_if_there
        )
        async for each in listed:
            if each.stream.tenant == tenant and each.stream.name.startswith(prefix):
                yield StreamInfo(
                    each.stream, expires_in=each.tags.expires_in, attempts=each.tags.attempts
                )

    async def newest_epoch(self, stream: StreamId) -> int:
        async with self._guard(stream):
            url = await self._lookup.url(stream)
            tags: QueueTags | None = None
            if url is not None:
                tags = await self._requests.tags_if_there(url)
            if url is None or tags is None:
                self._readers.forget(stream)
                return 0
            self._lookup.remember(stream, url).epoch = tags.newest_epoch
            return tags.newest_epoch

    async def sweep(self) -> int:
        return await sweep(self._requests, self._guard, self._names.prefix, self._readers.forget)

    async def aclose(self) -> None:
        self._guard.close()
        await self._closing.run()

    # -- inside --------------------------------------------------------------------------------

    def _not_found(self, stream: StreamId) -> StreamNotFoundError:
        return not_found(stream, self._names.queue(stream))
