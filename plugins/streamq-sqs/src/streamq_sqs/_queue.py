"""The queue: streams as SQS queues, messages as records."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    Capabilities,
    ChunkQueue,
    ClosedError,
    Entry,
    FencedError,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
)
from streamq_aws import AwsClients, aws_errors, error_code

from ._errors import BACKEND
from ._names import (
    Label,
    QueueNames,
    forgetting,
    identity_tags,
    life_tags,
    opening_tags,
)
from ._receiver import MOST_AT_ONCE, Receiver, Taken, receipts_of
from ._settings import MESSAGE_OVERHEAD, SqsSettings

_ATTRIBUTE = "streamq"
_BODY = "streamq"  # SQS wants one; the record is in the attribute, since bodies are text
_GROUP = "stream"
_LONGEST_POLL_SECONDS = 20
_SHORTEST_RETENTION, _LONGEST_RETENTION = 60, 1_209_600
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.1, 1.0
_MISSING = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class SqsQueue(ChunkQueue):
    """Streams in SQS queues. One task of its own puts off the visibility time-out of slow readers.

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
        self._options = options
        self._settings = settings
        self._names = QueueNames(settings.queue_prefix, fifo=settings.fifo)
        self._clients = AwsClients(settings, backend=BACKEND)
        self._sqs: Any = None
        self._urls: dict[StreamId, str] = {}
        self._epochs: dict[StreamId, int] = {}
        self._receivers: dict[StreamId, Receiver] = {}
        self._created = asyncio.Condition()
        self._closed = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and see that SQS answers.

        Raises:
            StreamqError: It does not, or refuses us.
        """
        self._sqs = await self._clients.client("sqs", poll_seconds=_LONGEST_POLL_SECONDS)
        with aws_errors(BACKEND):
            await self._sqs.list_queues(QueueNamePrefix=self._names.prefix, MaxResults=1)
        self._renewing = asyncio.create_task(self._renew(), name="streamq-sqs visibility")

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self._check_open()
        for entry in entries:
            if entry.epoch < self._epochs.get(stream, 0):
                raise self._fenced(stream, entry.epoch, self._epochs[stream])
        url = self._urls.get(stream)
        for batch in self._batches(entries):
            if url is None or batch[0].index == 0:
                url = await self._open(stream, batch[0])
            await self._send(stream, url, batch)
        if entries and ttl is not None and url is not None:
            tags = life_tags(now_ms=_now_ms(), ttl_seconds=ttl.total_seconds())
            with self._calling(stream):
                await self._sqs.tag_queue(QueueUrl=url, Tags=tags)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        receipts_of(after, stream)
        clock = asyncio.get_running_loop().time
        until = clock() + max_wait
        while True:
            self._check_open()
            left = max(until - clock(), 0.0)
            found: list[Stored] = []
            if await self._await_queue(stream, left):
                receiver = self._receiver(stream)
                left = max(until - clock(), 0.0)
                reading = receiver.read(after, max_records, max_bytes, left)
                found = await self._unless_closed(reading)
            if found or clock() >= until:
                return found

    async def commit(self, stream: StreamId, upto: str) -> None:
        self._check_open()
        receipts = receipts_of(upto, stream)
        url = await self._url(stream)
        if url is None:
            return
        for at in range(0, len(receipts), MOST_AT_ONCE):
            part = receipts[at : at + MOST_AT_ONCE]
            with self._calling(stream):
                # A receipt that is too old, or used up, is answered as failed: its message has
                # gone, or comes again to be told as a repeat.
                await self._sqs.delete_message_batch(
                    QueueUrl=url,
                    Entries=[{"Id": str(i), "ReceiptHandle": each} for i, each in enumerate(part)],
                )
        if (receiver := self._receivers.get(stream)) is not None:
            receiver.settle(receipts)

    async def release(self, stream: StreamId, after: str) -> None:
        self._check_open()
        receiver = self._receivers.get(stream)
        if receiver is None:
            return
        left = receiver.leave(after)
        await self._hide(stream, left, 0)
        if receiver.is_idle:
            self._receivers.pop(stream, None)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self._check_open()
        url = await self._url(stream)
        if url is None:
            raise self._not_found(stream)
        try:
            with self._calling(stream):
                count = await self._count(url)
            label = await self._label(stream, url)
        except StreamNotFoundError:
            self._urls.pop(stream, None)
            raise
        return StreamInfo(stream, records=count, attempts=label.attempts)

    async def delete(self, stream: StreamId) -> None:
        self._check_open()
        url = await self._url(stream)
        self._forget(stream)
        if url is not None:
            with contextlib.suppress(StreamNotFoundError), self._calling(stream):
                await self._sqs.delete_queue(QueueUrl=url)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self._check_open()
        async for url in self._listed(self._names.tenant(tenant)):
            label = await self._label_of(url)
            found = label.stream if label is not None else None
            if found is not None and found.tenant == tenant and found.name.startswith(prefix):
                yield StreamInfo(found)

    async def newest_epoch(self, stream: StreamId) -> int:
        self._check_open()
        url = await self._url(stream)
        if url is None:
            return 0
        try:
            label = await self._label(stream, url)
        except StreamNotFoundError:
            self._forget(stream)
            return 0
        self._epochs[stream] = label.newest_epoch
        return label.newest_epoch

    async def sweep(self) -> int:
        self._check_open()
        swept = 0
        async for url in self._listed(self._names.prefix):
            label = await self._label_of(url)
            if label is None or label.stream is None:
                continue  # gone, or somebody else's queue with such a name
            age = (_now_ms() - label.opened_ms) / 1000
            if age < label.ttl_seconds:
                continue
            with contextlib.suppress(StreamNotFoundError), self._calling(label.stream):
                if age < 2 * label.ttl_seconds and await self._count(url):
                    continue  # its reader is late; messages have a time to live of their own
                await self._sqs.delete_queue(QueueUrl=url)
                self._forget(label.stream)
                swept += 1
        return swept

    async def aclose(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        async with self._created:
            self._created.notify_all()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        receivers = list(self._receivers.values())
        await asyncio.gather(*(receiver.aclose() for receiver in receivers))
        await self._clients.aclose()

    # -- inside --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClosedError("this SQS queue has been closed", backend=BACKEND)

    @contextlib.contextmanager
    def _calling(self, stream: StreamId) -> Iterator[None]:
        """Tell errors of a call about one stream's queue in our words."""
        self._check_open()
        try:
            with aws_errors(BACKEND, stream):
                yield
        except BackendError as exc:
            cause = exc.__cause__
            if cause is not None and error_code(cause) in _MISSING:
                self._forget(stream)
                raise self._not_found(stream) from cause
            raise

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

    def _forget(self, stream: StreamId) -> None:
        self._urls.pop(stream, None)
        self._epochs.pop(stream, None)
        receiver = self._receivers.pop(stream, None)
        if receiver is not None:
            receiver.settle(list(receiver.taken))

    async def _url(self, stream: StreamId) -> str | None:
        """Return where a stream's queue is, if there is one."""
        url = self._urls.get(stream)
        if url is not None:
            return url
        with contextlib.suppress(StreamNotFoundError), self._calling(stream):
            found = await self._sqs.get_queue_url(QueueName=self._names.queue(stream))
            self._urls[stream] = found["QueueUrl"]
            return str(found["QueueUrl"])
        return None

    async def _open(self, stream: StreamId, opening: Entry) -> str:
        """Make the queue if there is none, and announce an epoch on it."""
        ttl = self._options.ttl.total_seconds()
        url = await self._url(stream)
        if url is None:
            with self._calling(stream):
                made = await self._sqs.create_queue(
                    QueueName=self._names.queue(stream),
                    Attributes=self._attributes(ttl),
                    tags=identity_tags(stream),
                )
            url = self._urls[stream] = str(made["QueueUrl"])
            async with self._created:
                self._created.notify_all()
        if opening.index:
            return url
        label = await self._label(stream, url)
        tags = opening_tags(opening.epoch, opening.data, now_ms=_now_ms(), ttl_seconds=ttl)
        taken = label.epochs.get(opening.epoch)
        if label.newest_epoch > opening.epoch or taken not in (None, *tags.values()):
            raise self._fenced(stream, opening.epoch, label.newest_epoch)
        with self._calling(stream):
            await self._sqs.tag_queue(QueueUrl=url, Tags=tags)
            if old := label.too_old():
                keys, instead = forgetting(old, label.forgotten)
                await self._sqs.tag_queue(QueueUrl=url, Tags=instead)
                await self._sqs.untag_queue(QueueUrl=url, TagKeys=keys)
        self._epochs[stream] = opening.epoch
        return url

    def _attributes(self, ttl: float) -> dict[str, str]:
        retention = min(max(int(ttl), _SHORTEST_RETENTION), _LONGEST_RETENTION)
        attributes = {
            "VisibilityTimeout": str(self._settings.visibility_seconds),
            "MessageRetentionPeriod": str(retention),
            "MaximumMessageSize": str(self._settings.max_message_bytes),
        }
        if self._settings.fifo:
            attributes["FifoQueue"] = "true"
        return attributes

    def _batches(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        """Cut entries into requests: ten messages, the bytes of one; an opening begins its own."""
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            cost = len(entry.data) + MESSAGE_OVERHEAD
            is_full = len(batch) == MOST_AT_ONCE or size + cost > self._settings.max_message_bytes
            if batch and (is_full or entry.index == 0):
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += cost
        if batch:
            yield batch

    async def _send(self, stream: StreamId, url: str, batch: Sequence[Entry]) -> None:
        messages = [self._message(i, entry) for i, entry in enumerate(batch)]
        with self._calling(stream):
            answer = await self._sqs.send_message_batch(QueueUrl=url, Entries=messages)
        failed = answer.get("Failed", ())
        if failed:
            first = failed[0]
            kind = BackendError if first.get("SenderFault") else BackendUnavailableError
            raise kind(
                f"SQS did not take {len(failed)} of {len(batch)} messages: {first.get('Code')}, "
                f"{first.get('Message', 'no message')}",
                backend=BACKEND,
                stream=str(stream),
            )

    def _message(self, number: int, entry: Entry) -> dict[str, Any]:
        data = bytes(entry.data)
        message: dict[str, Any] = {
            "Id": str(number),
            "MessageBody": _BODY,
            "MessageAttributes": {
                # SQS has no empty values, and an empty record is one.
                _ATTRIBUTE: {"DataType": "Binary", "BinaryValue": b"\0" + data},
            },
        }
        if self._settings.fifo:
            digest = hashlib.blake2b(data, digest_size=8).hexdigest()
            message["MessageGroupId"] = _GROUP
            message["MessageDeduplicationId"] = f"{entry.epoch}-{entry.index}-{digest}"
        return message

    async def _await_queue(self, stream: StreamId, wait: float) -> bool:
        """Wait for a stream's queue to be there; only asking tells, unless it is made here."""
        clock = asyncio.get_running_loop().time
        until, pause = clock() + wait, _FIRST_LOOK_SECONDS
        while await self._url(stream) is None:
            left = until - clock()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, pause)), self._created:
                    await self._created.wait()
            self._check_open()
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
        return True

    def _receiver(self, stream: StreamId) -> Receiver:
        receiver = self._receivers.get(stream)
        if receiver is None:

            async def receive(request_id: str, wait: float) -> list[Taken]:
                return await self._receive(stream, request_id, wait)

            receiver = self._receivers[stream] = Receiver(stream, receive)
        return receiver

    async def _receive(self, stream: StreamId, request_id: str, wait: float) -> list[Taken]:
        url = await self._url(stream)
        if url is None:
            return []
        options: dict[str, Any] = {}
        if self._settings.fifo:
            options["ReceiveRequestAttemptId"] = request_id
        started = asyncio.get_running_loop().time()
        try:
            with self._calling(stream):
                answer = await self._sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=MOST_AT_ONCE,
                    VisibilityTimeout=self._settings.visibility_seconds,
                    # A second more than asked for: the request goes on without its reader.
                    WaitTimeSeconds=min(int(wait) + (wait > 0), _LONGEST_POLL_SECONDS),
                    MessageAttributeNames=[_ATTRIBUTE],
                    **options,
                )
        except StreamNotFoundError:
            return []  # deleted: it is waited for like one that has not come yet
        hidden_until = started + self._settings.visibility_seconds
        return [
            Taken(
                message["ReceiptHandle"],
                message["MessageAttributes"][_ATTRIBUTE]["BinaryValue"][1:],
                hidden_until,
            )
            for message in answer.get("Messages", ())
            if _ATTRIBUTE in message.get("MessageAttributes", {})
        ]

    async def _unless_closed(self, reading: Any) -> list[Stored]:
        """Await a read, and raise if the queue is closed meanwhile."""
        task = asyncio.ensure_future(reading)
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            self._check_open()
            found: list[Stored] = await task
            return found
        finally:
            closing.cancel()
            task.cancel()
            await asyncio.gather(task, closing, return_exceptions=True)

    async def _count(self, url: str) -> int:
        answer = await self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))
        return sum(int(answer["Attributes"].get(name, 0)) for name in _COUNTS)

    async def _label(self, stream: StreamId, url: str) -> Label:
        with self._calling(stream):
            answer = await self._sqs.list_queue_tags(QueueUrl=url)
        return Label.read(answer.get("Tags") or {})

    async def _label_of(self, url: str) -> Label | None:
        """Return the label of a listed queue, unless it is gone by now."""
        self._check_open()
        try:
            with aws_errors(BACKEND):
                answer = await self._sqs.list_queue_tags(QueueUrl=url)
        except BackendError as exc:
            if exc.__cause__ is not None and error_code(exc.__cause__) in _MISSING:
                return None
            raise
        return Label.read(answer.get("Tags") or {})

    async def _listed(self, prefix: str) -> AsyncIterator[str]:
        token: dict[str, str] = {}
        while True:
            self._check_open()
            with aws_errors(BACKEND):
                page = await self._sqs.list_queues(
                    QueueNamePrefix=prefix, MaxResults=1_000, **token
                )
            for url in page.get("QueueUrls", ()):
                yield url
            if not (following := page.get("NextToken")):
                return
            token = {"NextToken": following}

    async def _hide(self, stream: StreamId, receipts: Sequence[str], seconds: int) -> list[str]:
        """Set for how long messages stay hidden; return the receipts that are worth nothing."""
        url = await self._url(stream)
        useless: list[str] = []
        for at in range(0, len(receipts) if url is not None else 0, MOST_AT_ONCE):
            part = receipts[at : at + MOST_AT_ONCE]
            with self._calling(stream):
                answer = await self._sqs.change_message_visibility_batch(
                    QueueUrl=url,
                    Entries=[
                        {"Id": str(i), "ReceiptHandle": each, "VisibilityTimeout": seconds}
                        for i, each in enumerate(part)
                    ],
                )
            useless += [part[int(failed["Id"])] for failed in answer.get("Failed", ())]
        return useless

    async def _renew(self) -> None:
        """Keep what slow readers have taken from being given to others."""
        seconds = self._settings.visibility_seconds
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(seconds / 3)
            for stream, receiver in list(self._receivers.items()):
                taken = receiver.to_renew()
                until = clock() + seconds
                try:
                    useless = await self._hide(stream, [each.receipt for each in taken], seconds)
                except (BackendError, BackendUnavailableError, StreamNotFoundError):
                    continue  # next time, or it comes again
                for each in taken:
                    each.hidden_until = until
                receiver.settle(useless)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
