"""Appends entries to a stream: creates and tags its queue, and sends messages.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from streamq.driver import Entry, StreamId, StreamNotFoundError, batches, fenced_error

from ._errors import BACKEND
from ._lookup import KnownQueue, QueueLookup
from ._messages import MOST_AT_ONCE
from ._naming import QueueNames
from ._requests import SqsRequests
from ._settings import MESSAGE_OVERHEAD, SqsSettings
from ._tags import QueueTags, forgotten_tags, identity_tags, life_tags, opening_digest, opening_tags

_LIFE_SHARE = 4  # the tags of a stream that is written to are renewed this often in its ttl


class Appender:
    """Appends to the streams of one queue object.

    Args:
        requests: The requests to SQS.
        lookup: The queues that are known here.
        names: The names of queues.
        settings: The driver's settings.
        ttl_seconds: Time to live of streams for which an append gives none.
        forget: Removes everything that is known of a stream whose queue is gone.
    """

    def __init__(
        self,
        requests: SqsRequests,
        lookup: QueueLookup,
        names: QueueNames,
        settings: SqsSettings,
        *,
        ttl_seconds: float,
        forget: Callable[[StreamId], None],
    ) -> None:
        self._requests = requests
        self._lookup = lookup
        self._names = names
        self._settings = settings
        self._ttl = ttl_seconds
        self._forget = forget
        self._clock = asyncio.get_running_loop().time

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], ttl_seconds: float | None
    ) -> None:
        """Store entries, by the rules of :meth:`streamq.driver.ChunkQueue.append`."""
        known = self._lookup.remembered(stream)
        oldest = min((entry.epoch for entry in entries), default=0)
        if known is not None and entries and oldest < known.epoch:
            known = await self._unless_fenced(stream, known, oldest)
        for batch in self._batches(entries):
            if batch[0].index == 0:
                known = await self._open_epoch(stream, batch[0])
            elif known is None:
                known = await self._lookup.find(stream)
            try:
                await self._requests.send(stream, known.url, batch)
            except StreamNotFoundError:
                self._forget(stream)
                raise
        if known is not None and entries:
            await self._keep_alive(known, self._ttl if ttl_seconds is None else ttl_seconds)

    def _batches(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        # SQS may accept some messages of a batch and refuse others. In FIFO queues, where order
        # matters, each message is a request of its own. This costs the same: streamq's records are
        # as large as one request in the bill of SQS.
        most = 1 if self._settings.fifo else MOST_AT_ONCE
        return batches(
            entries,
            max_bytes=self._settings.max_message_bytes,
            max_entries=most,
            overhead_bytes=MESSAGE_OVERHEAD,
        )

    async def _open_epoch(self, stream: StreamId, opening: Entry) -> KnownQueue:
        """Create the queue if there is none, and announce an epoch in its tags.

        Raises:
            FencedError: A newer epoch has been announced, or another writer has announced this one.
        """
        digest = opening_digest(opening.data)
        new = {**identity_tags(stream), **opening_tags(opening.epoch, digest, self._ttl)}
        url = await self._requests.create(self._names.queue(stream), new)
        tags = await self._requests.tags(url)
        if digest not in tags.openings(opening.epoch):
            self._check_newest(stream, url, tags, opening.epoch, digest)
            # The queue existed before, and SQS does not change the tags of an existing queue.
            await self._requests.tag(url, new)
            # Of two writers that announce one epoch at once, at least one finds both openings here.
            tags = await self._requests.tags(url)
        self._check_newest(stream, url, tags, opening.epoch, digest)
        if surplus := tags.surplus_epochs():
            await self._requests.tag(url, forgotten_tags(tags, surplus))
            await self._requests.untag(url, tags.keys(surplus))
        known = self._lookup.remember(stream, url)
        known.url, known.epoch = url, max(known.epoch, opening.epoch)
        known.alive_at = self._clock()
        await self._lookup.wake_waiting()
        return known

    async def _unless_fenced(
        self, stream: StreamId, known: KnownQueue, epoch: int
    ) -> KnownQueue | None:
        """Raise if an epoch is still older than the newest one of a stream.

        Another process may have deleted the stream, and begun it anew with a smaller epoch.

        Returns:
            What is known of the stream; ``None`` if it is gone.
        """
        try:
            newest = (await self._requests.tags(known.url)).newest_epoch
        except StreamNotFoundError:
            self._forget(stream)
            return None
        known.epoch = newest
        if epoch < newest:
            raise fenced_error(BACKEND, stream, epoch=epoch, newest=newest)
        return known

    def _check_newest(
        self, stream: StreamId, url: str, tags: QueueTags, epoch: int, digest: str
    ) -> None:
        """Check that an epoch is the newest one, and that no other writer has announced it."""
        if tags.newest_epoch > epoch or tags.openings(epoch) - {digest}:
            self._lookup.remember(stream, url).epoch = tags.newest_epoch
            raise fenced_error(BACKEND, stream, epoch=epoch, newest=tags.newest_epoch)

    async def _keep_alive(self, known: KnownQueue, ttl_seconds: float) -> None:
        """Mark the stream as in use when its tags are due, and at once if its ttl has changed."""
        now = self._clock()
        if ttl_seconds == self._ttl and now < known.alive_at + ttl_seconds / _LIFE_SHARE:
            return
        await self._requests.tag(known.url, life_tags(ttl_seconds))
        known.alive_at = now
