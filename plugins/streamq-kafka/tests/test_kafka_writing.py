"""Storing records: a failed batch blocks nothing, and a repeated append is stored once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiokafka.errors as ke
import pytest

from kafka_brokers import Broker, neighbours
from streamq.driver import BackendError, BackendUnavailableError, ChunkQueue, Entry, StreamId
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaSettings
from streamq_kafka._data_topic import DataTopic
from streamq_kafka._naming import key_of, partition_of
from streamq_kafka._writing import SharedProducer, StoredOffsets
from streamq_kafka.embedded import TopicSpec
from streamq_kafka.requests._connections import Connections

_SOON = 8.0


def _producer(settings: KafkaSettings) -> SharedProducer:
    return SharedProducer(settings, Connections(settings).brokers, 10**6)


@contextmanager
def _frozen(broker: Broker) -> Iterator[None]:
    pid = broker.server.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)  # stopping many threads takes a moment
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
async def small_topic(apache: Broker) -> AsyncIterator[str]:
    """Return a topic that takes 20,000 bytes at a time."""
    name = f"small-{new_stream().name}"
    await apache.operator.create((TopicSpec(name, 2),), settings={"max.message.bytes": "20000"})
    yield name
    await apache.operator.delete(name)


async def test_refused_batch_does_not_block_the_partition(apache: Broker, small_topic: str) -> None:
    """After a batch that failed for good, brokers refuse every later one of that producer."""
    producer = _producer(apache.settings())
    try:
        for number in (0, 1):
            await producer.send(small_topic, number, [(b"k", b"small", [])])
        with pytest.raises(ke.MessageSizeTooLargeError):
            await producer.send(small_topic, 0, [(b"k", bytes(50_000), [])])
        sent = [
            producer.send(small_topic, number, [(b"k", b"after", [])])
            for number in (0, 1)
            for _ in range(20)
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.close()


async def test_records_of_one_call_keep_their_order(apache: Broker, stream: StreamId) -> None:
    """Records of a call may need several batches, which must not overtake each other."""
    key, partition = key_of(stream), partition_of(key_of(stream), 12)
    producer = _producer(apache.settings(batch_bytes=4_096))
    try:
        data = [b"%d" % index + bytes(900) for index in range(50)]
        sent = await producer.send("streamq", partition, [(key, each, []) for each in data])
    finally:
        await producer.close()
    _, found = await apache.operator.records("streamq", key)
    assert [each.value for each in found] == data
    assert (found[0].offset, found[-1].offset) == sent


async def test_no_batch_is_sent_after_a_refused_one(apache: Broker, small_topic: str) -> None:
    """A broker that does not know the producer would accept it, and the log would have a gap."""
    producer = _producer(apache.settings(batch_bytes=30_000))
    try:
        with pytest.raises(ke.MessageSizeTooLargeError):
            await producer.send(small_topic, 0, [(b"k", bytes(50_000), []), (b"k", b"next", [])])
    finally:
        await producer.close()
    after = _producer(apache.settings())
    try:
        assert await after.send(small_topic, 0, [(b"k", b"repeated", [])]) == (0, 0)
    finally:
        await after.close()


async def test_append_that_is_repeated_after_a_timeout_is_stored_once(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A frozen broker continues and stores what it was sent; the repeat must not be stored too."""
    queue = await open_with(apache.settings(operation_timeout_seconds=1.0))
    await queue.append(stream, [Entry(1, 0, b"open")])
    wanted = [Entry(1, 1, b"a"), Entry(1, 2, b"b")]
    with _frozen(apache), pytest.raises(BackendUnavailableError):
        await queue.append(stream, wanted)
    async with asyncio.timeout(_SOON):
        while True:
            try:
                await queue.append(stream, wanted)
                break
            except BackendUnavailableError:
                continue
    _, found = await apache.operator.records("streamq", key_of(stream))
    assert [each.value for each in found] == [b"open", b"a", b"b"]


async def _cancelled_append(queue: ChunkQueue, stream: StreamId, entry: Entry) -> None:
    """Begin to append, and cancel at once."""
    task = asyncio.ensure_future(queue.append(stream, [entry]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


async def test_cancelled_append_can_be_repeated(
    broker: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """An activity that is cancelled in the middle of a chunk still sends its seal, in order."""
    queue = await open_with(broker.settings())
    await queue.append(stream, [Entry(1, 0, b"open")])
    await _cancelled_append(queue, stream, Entry(1, 1, b"a"))
    await queue.append(stream, [Entry(1, 1, b"a"), Entry(1, 2, b"b")])
    _, found = await broker.operator.records("streamq", key_of(stream))
    assert [each.value for each in found] == [b"open", b"a", b"b"]


async def test_offset_of_an_earlier_attempt_is_not_taken_for_a_new_log(
    apache: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause, all writers of a busy partition would have it read again."""
    relisted: list[bytes] = []

    async def relist(_: DataTopic, key: bytes, *__: object) -> None:
        relisted.append(key)

    monkeypatch.setattr(DataTopic, "relist", relist)
    queue = await open_with(apache.settings())
    stream, other = neighbours(2)
    for each in (stream, other):
        await queue.append(each, [Entry(1, 0, b"open")])
    await _cancelled_append(queue, stream, Entry(1, 1, b"a"))
    await queue.append(other, [Entry(1, 1, b"between")])
    await queue.append(stream, [Entry(1, 1, b"a")])  # answered with the old offset

    send = SharedProducer.send

    async def forgotten(self: SharedProducer, *sent: Any) -> StoredOffsets:
        await send(self, *sent)
        return StoredOffsets(-1, 1)  # the answer if the broker remembers only the number of a batch

    monkeypatch.setattr(SharedProducer, "send", forgotten)
    await queue.append(stream, [Entry(1, index, b"b") for index in (2, 3, 4)])
    assert relisted == []


async def test_equal_text_with_another_index_is_stored(
    broker: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """The same text twice in a row is two chunks, also if the first append was cancelled."""
    queue = await open_with(broker.settings())
    await queue.append(stream, [Entry(1, 0, b"open")])
    await _cancelled_append(queue, stream, Entry(1, 1, b"ha"))
    await queue.append(stream, [Entry(1, 2, b"ha")])
    _, found = await broker.operator.records("streamq", key_of(stream))
    assert [each.value for each in found] == [b"open", b"ha", b"ha"]


async def test_frozen_broker_does_not_delay_closing(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A worker has to stop within seconds; aiokafka alone would wait for the broker."""
    queue = await open_with(apache.settings())
    await queue.append(stream, [Entry(1, 0, b"open")])
    before = asyncio.all_tasks()
    with _frozen(apache):
        appends = [
            asyncio.ensure_future(queue.append(stream, [Entry(1, index, b"x")]))
            for index in range(1, 20)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(_SOON):
            await queue.aclose()
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
        assert asyncio.all_tasks() <= before


async def test_closing_ends_a_replaced_producer_and_leaves_no_task(apache: Broker) -> None:
    """A replaced producer may finish its requests, but must not outlive the worker."""
    before = asyncio.all_tasks()
    producer = _producer(apache.settings(operation_timeout_seconds=60.0))
    await producer.send("streamq", 0, [(b"k", b"first", [])])
    with _frozen(apache):
        appends = [
            asyncio.ensure_future(producer.send("streamq", number, [(b"k", b"x", [])]))
            for number in range(12)
        ]
        await asyncio.sleep(0.1)
        old = producer._producer.current
        assert old is not None
        producer._producer.forget(old)
        async with asyncio.timeout(_SOON):
            await producer.close()
            # Every one of them fails, which must not end the producer a second time.
            await asyncio.wait(appends)
        assert all(isinstance(append.exception(), ke.ProducerClosed) for append in appends)
        assert asyncio.all_tasks() <= before


async def test_broker_without_idempotence_is_reported_with_the_setting(
    tansu: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """The embedded broker does not support the default, so the message names the setting."""
    queue = await open_with(tansu.settings(idempotent=True))
    with pytest.raises(BackendError, match="STREAMQ_KAFKA_IDEMPOTENT=false"):
        await queue.append(stream, [Entry(1, 0, b"open")])
