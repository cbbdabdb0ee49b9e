"""The queue: streams as SQS queues, messages as records."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Entry,
    FencedError,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
)
from streamq_aws import Calls, together

from ._errors import BACKEND
from ._messages import batches
from ._names import (
    Label,
    QueueNames,
    digest_of,
    forgotten_tags,
    identity_tags,
    life_tags,
    opening_tags,
)
from ._readers import Readers
from ._receiver import MOST_AT_ONCE, receipts_of
from ._service import Service
from ._settings import SqsSettings

_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.05, 1.0
_LOOK_SECONDS = 0.02  # so that all readers of a process look 50 times a second at most
_LABELS_AT_ONCE = 16
_REMEMBERED = 10_000
_LIFE_SHARE = 4  # a stream that is written to says so this often within its time to live


@dataclass(slots=True)
class _Known:
    """What is remembered of a stream, to ask SQS for less.

    Attributes:
        url: Where its queue is.
        epoch: Largest epoch that this process happens to know of.
        alive_at: When its tags last said that it is in use, by the clock of the loop.
    """

    url: str
    epoch: int = 0
    alive_at: float = float("-inf")


class SqsQueue(ChunkQueue):
    """Streams in SQS queues.

    Args:
        options: What every queue is opened with.
        settings: The driver's settings.
        capabilities: What to declare.
    """

    backend = BACKEND

    def __init__(
        self, options: QueueOptions, settings: SqsSettings, capabilities: Capabilities
    ) -> None:
        self.capabilities = capabilities
        self.hidden_seconds = settings.visibility_seconds
        self._ttl = options.ttl.total_seconds()
        self._settings = settings
        self._names = QueueNames(settings.queue_prefix, fifo=settings.fifo)
        self._service = Service(settings)
        self._calls = Calls(BACKEND)
        self._known: OrderedDict[StreamId, _Known] = OrderedDict()
        self._created = asyncio.Condition()
        self._seeking = 0
        self._clock = asyncio.get_running_loop().time
        self._readers = Readers(
            self._service,
            self._url,
            visibility_seconds=settings.visibility_seconds,
            # The other connections are for writers, and for those who give back.
            renewals_at_once=max(1, settings.max_connections // 2),
        )
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and see that SQS answers.

        Raises:
            StreamqError: It does not, or refuses us.
        """
        await self._service.start(self._names.prefix)
        self._readers.start()

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self._calls.one(stream):
            known = self._known.get(stream)
            for entry in entries:
                if known is not None and entry.epoch < known.epoch:
                    raise self._fenced(stream, entry.epoch, known.epoch)
            for batch in self._batches(entries):
                if batch[0].index == 0:
                    known = await self._open(stream, batch[0])
                elif known is None:
                    known = await self._find(stream)
                try:
                    await self._service.send(stream, known.url, batch)
                except StreamNotFoundError:
                    self._forget(stream)
                    raise
            if known is not None and entries:
                await self._keep_alive(known, self._ttl if ttl is None else ttl.total_seconds())

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        receipts_of(after, stream)
        until, pause = self._clock() + max_wait, _FIRST_LOOK_SECONDS
        with self._calls.one(stream):
            while True:
                found: list[Stored] = []
                if await self._await_queue(stream, max(until - self._clock(), 0.0)):
                    left = max(until - self._clock(), 0.0)
                    receiver = self._readers.of(stream)
                    try:
                        found = await receiver.read(after, max_records, max_bytes, left)
                    except StreamNotFoundError:
                        # Deleted: it is waited for like one yet to come. Its name may lead to it
                        # still, for up to a minute on AWS, so that only the pause keeps us waiting.
                        self._forget(stream)
                        pause = await self._pause(stream, pause, until)
                if found or self._clock() >= until:
                    return found

    async def commit(self, stream: StreamId, upto: str) -> None:
        receipts = receipts_of(upto, stream)
        with self._calls.one(stream):
            url = await self._url(stream)
            if url is None:
                return
            try:
                await self._service.remove(stream, url, receipts)
            except StreamNotFoundError:
                self._forget(stream)
            self._readers.settle(stream, receipts)

    async def release(self, stream: StreamId, after: str) -> None:
        receipts_of(after, stream)
        with self._calls.one(stream):
            await self._readers.release(stream, after)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with self._calls.one(stream):
            url = await self._url(stream)
            if url is None:
                raise self._not_found(stream)
            try:
                count, label = await self._service.count(url), await self._service.label(url)
            except StreamNotFoundError:
                self._forget(stream)
                raise self._not_found(stream) from None
            return StreamInfo(
                stream, records=count, expires_in=label.expires_in, attempts=label.attempts
            )

    async def delete(self, stream: StreamId) -> None:
        with self._calls.one(stream):
            url = await self._url(stream)
            self._forget(stream)
            if url is not None:
                await self._service.delete(url)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        async for found, label, _ in self._listed(self._names.tenant(tenant)):
            if found.tenant == tenant and found.name.startswith(prefix):
                yield StreamInfo(found, expires_in=label.expires_in, attempts=label.attempts)

    async def newest_epoch(self, stream: StreamId) -> int:
        with self._calls.one(stream):
            url = await self._url(stream)
            label = None if url is None else await self._service.label_if_there(url)
            if url is None or label is None:
                self._forget(stream)
                return 0
            self._remember(stream, url).epoch = label.newest_epoch
            return label.newest_epoch

    async def sweep(self) -> int:
        swept = 0
        async for stream, _, url in self._listed(self._names.prefix, only_expired=True):
            with self._calls.one(stream):
                if await self._look_at(url, only_expired=True) is None:
                    continue  # somebody has written since it was listed, or has swept it
                self._forget(stream)
                await self._service.delete(url)
                swept += 1
        return swept

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="streamq-sqs closing")
        await asyncio.shield(self._closing)

    # -- inside --------------------------------------------------------------------------------

    async def _close(self) -> None:
        self._calls.close()
        try:
            await self._readers.aclose()
        finally:
            await self._service.aclose()

    def _not_found(self, stream: StreamId) -> StreamNotFoundError:
        return StreamNotFoundError(
            f"there is no queue {self._names.queue(stream)} for stream {stream}",
            backend=BACKEND,
            stream=str(stream),
        )

    def _fenced(self, stream: StreamId, epoch: int, newest: int) -> FencedError:
        return FencedError(
            f"epoch {newest} has taken over stream {stream}; epoch {epoch} must stop",
            backend=BACKEND,
            stream=str(stream),
        )

    def _batches(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        # SQS may take some messages of a batch and not others. Where its order counts they go one
        # by one, which costs the same: streamq's records are as large as SQS bills for one request.
        most = 1 if self._settings.fifo else MOST_AT_ONCE
        return batches(entries, self._settings.max_message_bytes, max_entries=most)

    # -- queues --------------------------------------------------------------------------------

    def _remember(self, stream: StreamId, url: str) -> _Known:
        known = self._known.setdefault(stream, _Known(url))
        self._known.move_to_end(stream)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _forget(self, stream: StreamId) -> None:
        self._known.pop(stream, None)
        self._readers.forget(stream)

    async def _url(self, stream: StreamId) -> str | None:
        """Return where a stream's queue is, if there is one."""
        known = self._known.get(stream)
        if known is not None:
            return known.url
        url = await self._service.url(self._names.queue(stream))
        return None if url is None else self._remember(stream, url).url

    async def _find(self, stream: StreamId) -> _Known:
        """Return what is known of a stream that has been opened.

        Raises:
            StreamNotFoundError: It is gone; to make it again here would be another stream, which
                lacks its beginning and of which nobody knows which attempt writes it.
        """
        url = await self._url(stream)
        if url is None:
            raise self._not_found(stream)
        return self._remember(stream, url)

    async def _open(self, stream: StreamId, opening: Entry) -> _Known:
        """Make the queue if there is none, and announce an epoch on it.

        Raises:
            FencedError: A newer one has been announced, or somebody else has announced this one.
        """
        digest = digest_of(opening.data)
        tags = {**identity_tags(stream), **opening_tags(opening.epoch, digest, self._ttl)}
        url = await self._service.create(self._names.queue(stream), tags)
        label = await self._service.label(url)
        if digest not in label.openings(opening.epoch):
            self._check_open_to(stream, url, label, opening.epoch, digest)
            # Somebody had made it before, and SQS leaves its tags alone.
            await self._service.tag(url, tags)
            # Of two who announce one epoch at the same time at least one finds both here.
            label = await self._service.label(url)
        self._check_open_to(stream, url, label, opening.epoch, digest)
        if old := label.too_old():
            await self._service.tag(url, forgotten_tags(label, old))
            await self._service.untag(url, label.keys(old))
        known = self._remember(stream, url)
        known.url, known.epoch = url, max(known.epoch, opening.epoch)
        known.alive_at = self._clock()
        async with self._created:
            self._created.notify_all()
        return known

    def _check_open_to(
        self, stream: StreamId, url: str, label: Label, epoch: int, digest: str
    ) -> None:
        """See that an epoch is the newest one, and nobody else's."""
        if label.newest_epoch > epoch or label.openings(epoch) - {digest}:
            self._remember(stream, url).epoch = label.newest_epoch
            raise self._fenced(stream, epoch, label.newest_epoch)

    async def _keep_alive(self, known: _Known, ttl: float) -> None:
        """Let the tags say that the stream is in use, now and then; at once if its end is near."""
        now = self._clock()
        if ttl == self._ttl and now < known.alive_at + ttl / _LIFE_SHARE:
            return
        await self._service.tag(known.url, life_tags(ttl))
        known.alive_at = now

    async def _await_queue(self, stream: StreamId, wait: float) -> bool:
        """Wait for a stream's queue to be there; only asking tells, unless it is made here."""
        until, pause = self._clock() + wait, _FIRST_LOOK_SECONDS
        while await self._url(stream) is None:
            if self._clock() >= until:
                return False
            pause = await self._pause(stream, pause, until)
        return True

    async def _pause(self, stream: StreamId, seconds: float, until: float) -> float:
        """Wait before a stream's queue is looked for again; return how long to wait next time.

        The wait is longer where many look, ends when the stream is opened here, and at a deadline.
        """
        self._seeking += 1
        try:
            fair = self._seeking * _LOOK_SECONDS
            with contextlib.suppress(TimeoutError):
                left = until - self._clock()
                async with asyncio.timeout(min(left, max(seconds, fair))), self._created:
                    await self._created.wait_for(lambda: stream in self._known)
        finally:
            self._seeking -= 1
        return min(2 * seconds, _LONGEST_LOOK_SECONDS)

    async def _listed(
        self, prefix: str, *, only_expired: bool = False
    ) -> AsyncIterator[tuple[StreamId, Label, str]]:
        """Iterate over streams, labels and urls of queues; somebody else's are left out."""
        pages = self._service.pages(prefix)
        while True:
            with self._calls.one():
                page = await anext(pages, None)
            if page is None:
                return
            for urls in _cut(page):
                with self._calls.one():
                    found = await together(
                        self._look_at(url, only_expired=only_expired) for url in urls
                    )
                for label, url in zip(found, urls, strict=True):
                    if label is not None and label.stream is not None:
                        yield label.stream, label, url

    async def _look_at(self, url: str, *, only_expired: bool) -> Label | None:
        label = await self._service.label_if_there(url)
        if label is None or label.stream is None or not only_expired:
            return label
        if label.expires_in:
            return None
        if label.age_seconds < 2 * label.ttl_seconds:
            with contextlib.suppress(StreamNotFoundError):
                if await self._service.count(url):
                    return None  # its reader is late
        return label


def _cut(urls: Sequence[str]) -> list[Sequence[str]]:
    return [urls[at : at + _LABELS_AT_ONCE] for at in range(0, len(urls), _LABELS_AT_ONCE)]
