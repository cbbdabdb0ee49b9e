"""Stores records with one idempotent producer for all streams, replaced when it fails.

While a request is under way, aiokafka collects the records for a partition, and sends them as one
batch with the next request. That gives the lowest latency when there is little to send, and few
requests when there is much. aiokafka numbers the batches of a partition. By these numbers a broker
recognises a repeated batch and refuses a batch that comes after a missing one. After a batch has
failed for good, the broker would therefore refuse every later batch of that partition. Such a
producer finishes its requests, and the next call starts a new producer.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import aiokafka.errors as ke
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition

from streamq.driver import ConnectOnce, closed_error

from ._naming import BACKEND, Headers
from ._settings import KafkaSettings
from .requests._brokers import Brokers
from .requests._client import AdaptedClient

Message = tuple[bytes, "bytes | None", Headers]
"""Key, value and headers; the value None removes the key from a compacted topic."""

_MessageId = tuple[str, int, bytes, bytes, tuple[bytes, ...]]

LARGEST_RECORD_BYTES = 16 * 2**20
_BATCH_OVERHEAD_BYTES = 1_024
_STOP_SECONDS = 1.0
_UNANSWERED_BYTES = 16 * 2**20
_CANCEL_AGAIN_SECONDS = 0.05


class StoredOffsets(NamedTuple):
    """The offsets of the first and last message, as the broker returned them; -1 for no message.

    For messages that had been stored by an earlier attempt, these are the offsets of that attempt,
    or smaller ones if the broker does not remember it.
    """

    first: int
    last: int


class SharedProducer:
    """Sends records, and waits until all in-sync replicas have stored them.

    Args:
        settings: How to send.
        brokers: How to reach the cluster.
        max_message_bytes: Largest batch that the topics take.
    """

    def __init__(self, settings: KafkaSettings, brokers: Brokers, max_message_bytes: int) -> None:
        self._settings = settings
        self._brokers = brokers
        self._batch_bytes = max(
            4_096, min(settings.batch_bytes, max_message_bytes - _BATCH_OVERHEAD_BYTES)
        )
        self._timeout_seconds = settings.operation_timeout_seconds
        self._adapted: dict[AIOKafkaProducer, AdaptedClient] = {}
        self._producer: ConnectOnce[AIOKafkaProducer] = ConnectOnce(
            self._start, self._stop, closed=functools.partial(closed_error, BACKEND)
        )
        self._aborting: set[asyncio.Task[None]] = set()
        # Messages whose call ended without an answer. A call that sends one of them again waits for
        # the answer of the first attempt.
        self._unanswered: OrderedDict[_MessageId, asyncio.Future[Any]] = OrderedDict()
        self._unanswered_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Future[None] = self._loop.create_future()

    async def send(self, topic: str, partition: int, messages: Sequence[Message]) -> StoredOffsets:
        """Store messages in order; returns when all are acknowledged.

        They are sent batch by batch: a batch is sent only after the one before it was stored.

        Cancellation: a prefix of the messages is stored, each one whole.

        Raises:
            aiokafka.errors.KafkaError: As far as is known, not all of them have been stored.
            TimeoutError: There was no answer in time. They may still be stored later, in order. A
                call with the same messages waits for that, and stores nothing twice.
        """
        producer = await self._producer.get()
        adapted, since = self._adapted.get(producer), self._loop.time()
        await _know(producer, topic, partition)
        leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
        self._brokers.throttling.check(leader)
        futures: list[asyncio.Future[Any]] = []
        stored: list[Any] = []
        batch: Any = None  # the batch of the message before
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for message in messages:
                    future = self._unanswered and self._find_unanswered(topic, partition, message)
                    if future:
                        batch = None
                    else:
                        key, value, headers = message
                        future = batch and batch.append(key, value, None, headers=headers)
                    if not future:  # there is no batch, or it is full
                        await _settle(futures, stored)
                        future = await producer.send(
                            topic, value, key=key, partition=partition, headers=headers
                        )
                        batch = _open_batch(producer, topic, partition)
                    futures.append(future)
                await _settle(futures, stored)
            if not stored:
                return StoredOffsets(-1, -1)
            return StoredOffsets(stored[0].offset, stored[-1].offset)
        except ke.KafkaError as exc:
            self._producer.forget(producer)
            refusal = adapted and adapted.refusal(TopicPartition(topic, partition), since)
            if refusal and ke.for_code(refusal[0]) is type(exc):
                raise refusal[1] from exc  # with the reason that the broker gave
            raise
        except TimeoutError as exc:
            self._remember(topic, partition, messages, futures)
            self._brokers.throttling.raise_if_throttled(leader)
            refusal = adapted and adapted.refusal(TopicPartition(topic, partition), since)
            if refusal:
                raise refusal[1] from exc  # aiokafka has repeated the batch in vain
            raise
        except asyncio.CancelledError:
            self._remember(topic, partition, messages, futures)
            raise
        finally:
            for future in futures:
                if not future.done():
                    future.add_done_callback(_retrieve)
                else:
                    _retrieve(future)

    async def close(self) -> None:
        """Drop what is not sent, and close the connections. Idempotent."""
        if not self._closing.done():
            self._closing.set_result(None)
        await self._producer.aclose()
        if self._aborting:
            await asyncio.wait(self._aborting)

    # -- inside --------------------------------------------------------------------------------

    def _find_unanswered(
        self, topic: str, partition: int, message: Message
    ) -> asyncio.Future[Any] | None:
        message_id = _message_id(topic, partition, message)
        future = self._unanswered.pop(message_id, None)
        if future is None:
            return None
        self._unanswered_bytes -= _size(message_id)
        return None if future.done() and future.exception() is not None else future

    def _remember(
        self,
        topic: str,
        partition: int,
        messages: Sequence[Message],
        futures: list[asyncio.Future[Any]],
    ) -> None:
        for message, future in zip(messages, futures, strict=False):
            if not message[2]:
                continue  # without headers, a later message may be equal to it
            message_id = _message_id(topic, partition, message)
            if message_id not in self._unanswered:
                self._unanswered_bytes += _size(message_id)
            self._unanswered[message_id] = future
        while self._unanswered_bytes > _UNANSWERED_BYTES:
            message_id, _ = self._unanswered.popitem(last=False)
            self._unanswered_bytes -= _size(message_id)

    async def _start(self) -> AIOKafkaProducer:
        settings = self._settings
        compression = None if settings.compression == "none" else settings.compression
        options = dict(self._brokers.access.client_options)
        if not settings.idempotent:
            # Longer than our own timeout. A repeated append waits for the answer to the first
            # request, which a slow broker still sends. Otherwise aiokafka might repeat the request
            # before that.
            options["request_timeout_ms"] *= 2
        producer = AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=settings.idempotent,
            compression_type=compression,
            linger_ms=settings.linger_ms,
            max_batch_size=self._batch_bytes,
            max_request_size=2 * LARGEST_RECORD_BYTES,
        )
        self._adapted[producer] = AdaptedClient(
            producer.client,
            self._brokers,
            # Another cluster may have given its number to another producer, whose batches it would
            # take ours for.
            on_replaced=functools.partial(self._drop, producer),
            is_bound=True,
        )
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                await producer.start()
        except BaseException as exc:
            await self._abort(producer)
            if isinstance(exc, TimeoutError):
                self._brokers.throttling.raise_if_throttled()
            if isinstance(exc, ke.ClusterAuthorizationFailedError):
                raise ke.ClusterAuthorizationFailedError(
                    "we may not write to any topic (ACL Write); brokers before Kafka 2.8 also need "
                    "the ACL IdempotentWrite on the cluster"
                ) from exc
            if isinstance(exc, (ke.UnknownError, ke.UnsupportedVersionError)):
                raise ke.UnsupportedVersionError(
                    "it has no idempotent producer; set STREAMQ_KAFKA_IDEMPOTENT=false if a record "
                    "may be stored twice there"
                ) from exc
            raise
        return producer

    def _drop(self, producer: AIOKafkaProducer) -> None:
        """End a producer that must send nothing more."""
        producer._closed = True  # so that stopping it sends nothing, either
        self._producer.forget(producer)
        if producer in self._adapted:
            task = asyncio.ensure_future(self._abort(producer))
            self._aborting.add(task)
            task.add_done_callback(self._aborting.discard)

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        """Let a producer finish its requests for a bounded time, and end it in any case."""
        stopping = asyncio.ensure_future(producer.stop())
        stopping.add_done_callback(_retrieve)
        try:
            await asyncio.wait(
                {stopping, self._closing},
                timeout=self._timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            await asyncio.wait({stopping}, timeout=_STOP_SECONDS)
        finally:
            if not stopping.done():
                await self._abort(producer)
                stopping.cancel()
                await asyncio.wait({stopping})
            await self._hang_up(producer)

    async def _abort(self, producer: AIOKafkaProducer) -> None:
        """End a producer at once; aiokafka's own stop() waits for brokers that never answer."""
        producer._closed = True  # otherwise it warns that it was not stopped
        await self._hang_up(producer)
        sender: asyncio.Task[None] | None = producer._sender.sender_task
        while sender is not None and not sender.done():
            sender.cancel()  # it waits for its requests; each time for one less
            await asyncio.wait({sender}, timeout=_CANCEL_AGAIN_SECONDS)
        if sender is not None:
            _retrieve(sender)
        producer._message_accumulator.fail_all(ke.ProducerClosed())

    async def _hang_up(self, producer: AIOKafkaProducer) -> None:
        adapted = self._adapted.pop(producer, None)
        if adapted is not None:
            await adapted.close()


async def _know(producer: AIOKafkaProducer, topic: str, partition: int) -> None:
    """Have a producer request the metadata if a partition is new to it."""
    cluster = producer.client.cluster
    for is_last in (False, True):
        numbers = cluster.partitions_for_topic(topic)
        if numbers is None or partition in numbers:
            return  # a topic that is new to it, it requests by itself
        if is_last:
            raise ke.UnknownTopicOrPartitionError(f"{topic}, partition {partition}")
        await producer.client.force_metadata_update()


async def _settle(futures: Sequence[asyncio.Future[Any]], stored: list[Any]) -> None:
    """Wait for the answers that are missing in ``stored``, and add them."""
    for future in futures[len(stored) :]:
        stored.append(await asyncio.shield(future))


def _open_batch(producer: AIOKafkaProducer, topic: str, partition: int) -> Any:
    """Return the batch that has just taken a message; it may take more until the next await."""
    return producer._message_accumulator._batches[TopicPartition(topic, partition)][-1]


def _message_id(topic: str, partition: int, message: Message) -> _MessageId:
    key, value, headers = message
    return topic, partition, key, value or b"", tuple(each for _, each in headers)


def _size(message_id: _MessageId) -> int:
    return len(message_id[2]) + len(message_id[3]) + 512


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
