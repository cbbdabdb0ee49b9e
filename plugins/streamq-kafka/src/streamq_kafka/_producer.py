"""Storing records: one idempotent producer for all streams of the queue, renewed when it fails.

aiokafka collects what is sent to a partition while a request is out, and sends it as one batch with
the next one: lowest latency when there is little, few requests when there is much. It numbers
batches, so that a broker recognises one that is sent again and refuses one after a hole. The price:
after a batch has failed for good, every later one of that partition would be a hole. Such a
producer is left to finish what it has, and the next call begins with a new one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import aiokafka.errors as ke
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition

from ._client import adapt, hang_up
from ._errors import closed_error
from ._positions import Headers
from ._settings import KafkaSettings, connection_options

Message = tuple[bytes, "bytes | None", Headers]
"""Key, value and headers; a value of None removes the key from a compacted topic."""

_Late = tuple[str, int, bytes, bytes, tuple[bytes, ...]]

LARGEST_RECORD_BYTES = 16 * 2**20
_BATCH_OVERHEAD_BYTES = 1_024
_STOP_SECONDS = 1.0
_REMEMBERED_BYTES = 16 * 2**20
_CANCEL_AGAIN_SECONDS = 0.05


class Offsets(NamedTuple):
    """Where messages are, by the answers of a broker; -1 if it was asked for nothing.

    Of what had been stored before, when it was sent again, these are offsets of then, or, where the
    broker does not remember it, smaller ones.
    """

    first: int
    last: int


class Producer:
    """Sends records, and waits until they are stored on all replicas in sync.

    Args:
        settings: How to reach the cluster.
        max_message_bytes: Largest batch that topics take.
    """

    def __init__(self, settings: KafkaSettings, max_message_bytes: int) -> None:
        self._settings = settings
        self._batch_bytes = max(
            4_096, min(settings.batch_bytes, max_message_bytes - _BATCH_OVERHEAD_BYTES)
        )
        self._patience = settings.operation_timeout_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        # Messages whose answer nobody has waited for: who sends one again waits for the first.
        self._late: OrderedDict[_Late, asyncio.Future[Any]] = OrderedDict()
        self._late_bytes = 0
        self._is_closed = False
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(self, topic: str, partition: int, messages: Sequence[Message]) -> Offsets:
        """Store messages in order; returns when all are acknowledged.

        They go by one batch after the other: none is sent while it is open whether one before it
        can be stored.

        Cancellation: a prefix of them is stored, each one whole.

        Raises:
            aiokafka.errors.KafkaError: Not all of them have been stored, as far as is known.
            TimeoutError: No answer in time. They may still be stored later, in order; sending the
                same again waits for that, and stores nothing twice.
        """
        producer = self._producer or await self._start_shared()
        futures: list[asyncio.Future[Any]] = []
        stored: list[Any] = []
        batch: Any = None  # that of the message before
        try:
            async with asyncio.timeout(self._patience):
                for message in messages:
                    future = self._late and self._find_late(topic, partition, message)
                    if future:
                        batch = None
                    else:
                        key, value, headers = message
                        future = batch and batch.append(key, value, None, headers=headers)
                    if not future:  # there is none, or it is full
                        await _settle(futures, stored)
                        future = await producer.send(
                            topic, value, key=key, partition=partition, headers=headers
                        )
                        batch = _open_batch(producer, topic, partition)
                    futures.append(future)
                await _settle(futures, stored)
            return Offsets(stored[0].offset, stored[-1].offset) if stored else Offsets(-1, -1)
        except ke.KafkaError:
            self._retire(producer)
            raise
        except (TimeoutError, asyncio.CancelledError):
            self._remember(topic, partition, messages, futures)
            raise
        finally:
            for future in futures:
                if not future.done():
                    future.add_done_callback(_retrieve)
                else:
                    _retrieve(future)

    async def close(self) -> None:
        """Give up what is not sent and hang up. Idempotent."""
        self._is_closed = True
        if not self._closing.done():
            self._closing.set_result(None)
        starting = self._starting
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting})
        if self._producer is not None:
            self._retire(self._producer)
        if self._stopping:
            await asyncio.wait(self._stopping)

    # -- inside --------------------------------------------------------------------------------

    def _find_late(
        self, topic: str, partition: int, message: Message
    ) -> asyncio.Future[Any] | None:
        late = _late(topic, partition, message)
        future = self._late.pop(late, None)
        if future is None:
            return None
        self._late_bytes -= _size(late)
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
                continue  # nothing that tells it from one that was meant to come later
            late = _late(topic, partition, message)
            if late not in self._late:
                self._late_bytes += _size(late)
            self._late[late] = future
        while self._late_bytes > _REMEMBERED_BYTES:
            late, _ = self._late.popitem(last=False)
            self._late_bytes -= _size(late)

    async def _start_shared(self) -> AIOKafkaProducer:
        if self._is_closed:
            raise closed_error()
        task = self._starting
        if task is None:
            task = self._starting = asyncio.ensure_future(self._start())
            task.add_done_callback(self._started)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._is_closed and task.cancelled():
                raise closed_error() from None
            raise

    def _started(self, task: asyncio.Task[AIOKafkaProducer]) -> None:
        self._starting = None
        _retrieve(task)

    async def _start(self) -> AIOKafkaProducer:
        settings = self._settings
        compression = None if settings.compression == "none" else settings.compression
        options = connection_options(settings)
        if not settings.idempotent:
            # Longer than we wait: who repeats an append waits for the first request's answer, which
            # a broker that was only slow still sends. Otherwise aiokafka may ask again sooner.
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
        adapt(producer.client, options)
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                await producer.start()
        except BaseException as exc:
            await _abort(producer)
            if isinstance(exc, (ke.UnknownError, ke.UnsupportedVersionError)):
                raise ke.UnsupportedVersionError(
                    "it has no idempotent producer; set STREAMQ_KAFKA_IDEMPOTENT=false if a record "
                    "may be stored twice there"
                ) from exc
            raise
        self._producer = producer
        return producer

    def _retire(self, producer: AIOKafkaProducer) -> None:
        if self._producer is not producer:
            return  # somebody else has done it
        self._producer = None
        task = asyncio.ensure_future(self._stop(producer))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        """Let a producer finish what it has, for a bounded time, and end it in any case."""
        stopping = asyncio.ensure_future(producer.stop())
        stopping.add_done_callback(_retrieve)
        try:
            await asyncio.wait(
                {stopping, self._closing},
                timeout=self._patience,
                return_when=asyncio.FIRST_COMPLETED,
            )
            await asyncio.wait({stopping}, timeout=_STOP_SECONDS)
        finally:
            if not stopping.done():
                await _abort(producer)
                stopping.cancel()
                await asyncio.wait({stopping})


async def _settle(futures: Sequence[asyncio.Future[Any]], stored: list[Any]) -> None:
    """Wait for the answers that are not among those yet."""
    for future in futures[len(stored) :]:
        stored.append(await asyncio.shield(future))


def _open_batch(producer: AIOKafkaProducer, topic: str, partition: int) -> Any:
    """Return the batch that has just taken a message, and can take more until we wait."""
    return producer._message_accumulator._batches[TopicPartition(topic, partition)][-1]


def _late(topic: str, partition: int, message: Message) -> _Late:
    key, value, headers = message
    return topic, partition, key, value or b"", tuple(each for _, each in headers)


def _size(late: _Late) -> int:
    return len(late[2]) + len(late[3]) + 512


async def _abort(producer: AIOKafkaProducer) -> None:
    """End a producer at once: aiokafka's own stop() waits for brokers that never answer."""
    producer._closed = True  # it must not complain that it was not stopped
    await hang_up(producer.client)
    sender: asyncio.Task[None] | None = producer._sender.sender_task
    while sender is not None and not sender.done():
        sender.cancel()  # it waits for its requests; each time, for one less
        await asyncio.wait({sender}, timeout=_CANCEL_AGAIN_SECONDS)
    if sender is not None:
        _retrieve(sender)
    producer._message_accumulator.fail_all(ke.ProducerClosed())


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
