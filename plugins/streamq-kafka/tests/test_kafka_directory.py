"""The directory of streams, as several processes use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.structs import TopicPartition

from kafka_brokers import Broker
from streamq._retry import RetryPolicy
from streamq.driver import (
    START,
    ChunkQueue,
    Entry,
    FencedError,
    QueueOptions,
    Stored,
    StreamId,
    StreamNotFoundError,
)
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaDriver
from streamq_kafka._naming import key_of, partition_of
from streamq_kafka.directory import _cache, _directory

DIRECTORY = "streamq.directory"


def _entries(epoch: int, *data: bytes, first: int = 0) -> list[Entry]:
    return [Entry(epoch, index, each) for index, each in enumerate(data, first)]


async def _read(queue: ChunkQueue, stream: StreamId, after: str = START) -> Sequence[Stored]:
    return await queue.read(stream, after, max_records=100, max_bytes=2**20, max_wait=0)


async def _data(queue: ChunkQueue, stream: StreamId) -> list[bytes]:
    return [record.data for record in await _read(queue, stream)]


@pytest.fixture
async def producer(broker: Broker) -> AsyncIterator[AIOKafkaProducer]:
    """Return a plain producer, without the driver."""
    async with AIOKafkaProducer(bootstrap_servers=broker.server.address, acks="all") as plain:
        yield plain


async def test_opened_epoch_is_known_to_other_processes(
    broker: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A writer whose seal is stored must not believe that it ended a stream that continues."""
    one, other = [await open_with(broker.settings()) for _ in range(2)]
    assert await other.newest_epoch(stream) == 0
    for epoch in (3, 4, 9):
        await one.append(stream, _entries(epoch, b"open"))
        assert await other.newest_epoch(stream) == epoch
        with pytest.raises(FencedError, match=f"epoch {epoch} "):
            await other.append(stream, _entries(epoch - 1, b"stale", first=1))


async def test_openings_at_the_same_time_leave_the_larger_epoch(
    broker: Broker, open_with: OpenWith
) -> None:
    """Temporal may start a new attempt while the old one is still starting on another worker."""
    one, other = [await open_with(broker.settings()) for _ in range(2)]
    streams = [new_stream() for _ in range(20)]
    await asyncio.gather(
        *(one.append(stream, _entries(7, b"seven")) for stream in streams),
        *(other.append(stream, _entries(5, b"five")) for stream in streams),
        return_exceptions=True,
    )
    late = await open_with(broker.settings())
    for stream in streams:
        assert await late.newest_epoch(stream) == 7
        assert b"seven" in await _data(late, stream)
        if broker.name == "apache":  # Tansu returns too few records to a plain consumer
            _, raw = await broker.operator.records(DIRECTORY, key_of(stream))
            assert json.loads(raw[-1].value)["epoch"] == 7, "compaction keeps the last one only"


async def test_overwritten_entry_is_corrected(
    broker: Broker, open_with: OpenWith, stream: StreamId, producer: AIOKafkaProducer
) -> None:
    """A process that dies between writing and reading back must not revive an old attempt."""
    queue = await open_with(broker.settings())
    await queue.append(stream, _entries(9, b"open"))
    _, raw = await broker.operator.records(DIRECTORY, key_of(stream))
    stale = {**json.loads(raw[-1].value), "epoch": 4, "first": 10**6}
    partition = partition_of(key_of(stream), 12)
    await producer.send_and_wait(
        DIRECTORY, json.dumps(stale).encode(), key=key_of(stream), partition=partition
    )
    assert await queue.newest_epoch(stream) == 9
    _, fixed = await broker.operator.records(DIRECTORY, key_of(stream))
    assert fixed[-1].value == raw[-1].value


async def test_foreign_messages_are_skipped(
    broker: Broker,
    open_with: OpenWith,
    stream: StreamId,
    producer: AIOKafkaProducer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One stray message on a shared cluster must not stop every reader."""
    queue = await open_with(broker.settings())
    for key in (b"not a stream", key_of(stream)):
        partition = partition_of(key_of(stream), 12)
        await producer.send_and_wait(DIRECTORY, b"hello", key=key, partition=partition)
    assert await queue.newest_epoch(stream) == 0
    assert "not streamq's" in caplog.text
    await queue.append(stream, _entries(1, b"a"))
    assert await _data(queue, stream) == [b"a"]
    await producer.send_and_wait("streamq", b"noise", key=b"other", partition=partition)
    assert await _data(queue, stream) == [b"a"]


async def test_deleted_stream_is_gone_in_every_process(
    broker: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A stream that was deleted for a customer must not be found through another worker."""
    one, other = [await open_with(broker.settings()) for _ in range(2)]
    await one.append(stream, _entries(1, b"a", b"b"))
    position = (await _read(other, stream))[0].position
    await one.delete(stream)
    with pytest.raises(StreamNotFoundError):
        await other.describe(stream)
    assert list(await _read(other, stream)) == []
    assert list(await _read(other, stream, position)) == []
    assert [info async for info in other.streams(stream.tenant)] == []
    await other.append(stream, _entries(1, b"anew"))
    assert await _data(one, stream) == [b"anew"]
    assert [info.stream async for info in one.streams(stream.tenant)] == [stream]


async def test_entry_is_written_again_before_retention_removes_it(
    broker: Broker, open_with: OpenWith, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is written to for weeks must not lose its entry to retention."""
    queue = await open_with(broker.settings())
    await queue.append(stream, _entries(1, b"a"))
    await queue.append(stream, _entries(1, b"b", first=1))
    _, written = await broker.operator.records(DIRECTORY, key_of(stream))
    monkeypatch.setattr(_directory, "_RENEW_MS", -1)
    await queue.append(stream, _entries(1, b"c", first=2))
    _, renewed = await broker.operator.records(DIRECTORY, key_of(stream))
    assert [each.value for each in renewed] == [written[0].value] * (len(written) + 1)
    assert await _data(queue, stream) == [b"a", b"b", b"c"]


async def test_renewal_does_not_bring_back_a_deleted_stream(
    broker: Broker, open_with: OpenWith, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted stream must not come back because its writer continues for a while."""
    writing, other = [await open_with(broker.settings()) for _ in range(2)]
    await writing.append(stream, _entries(1, b"a"))
    await other.delete(stream)
    monkeypatch.setattr(_directory, "_RENEW_MS", -1)
    await writing.append(stream, _entries(1, b"b", first=1))
    with pytest.raises(StreamNotFoundError):
        await other.describe(stream)


async def test_directory_is_read_again_periodically(
    broker: Broker, open_with: OpenWith, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that runs for months must not keep streams that expired long ago."""
    queue = await open_with(broker.settings())
    await queue.append(stream, _entries(1, b"a"))
    monkeypatch.setattr(_cache, "_RELOAD_SECONDS", -1.0)
    assert await queue.newest_epoch(stream) == 1
    assert await _data(queue, stream) == [b"a"]


async def test_partitions_that_are_added_move_no_stream(
    apache: Broker, open_with: OpenWith
) -> None:
    """Operators add partitions when the load grows; running streams must not be affected."""
    name = f"grows-{new_stream().name}"
    settings = apache.settings(topic=name, partitions=2)
    await KafkaDriver.provision(QueueOptions(ttl=timedelta(minutes=5)), settings)
    streams = [new_stream() for _ in range(12)]
    queue = await open_with(settings)
    for stream in streams:
        await queue.append(stream, _entries(1, b"a"))
    admin = AIOKafkaAdminClient(bootstrap_servers=apache.server.address)
    await admin.start()
    try:
        await admin.create_partitions({name: NewPartitions(total_count=7)})
    finally:
        await admin.close()
    later = await open_with(settings)
    newer = [new_stream() for _ in range(12)]
    for stream in streams + newer:
        # New partitions have no leader for a moment; streamq retries.
        await RetryPolicy().run(partial(later.append, stream, _entries(2, b"b")))
    for stream in streams:
        assert await _data(queue, stream) == [b"a", b"b"]
        assert await _data(later, stream) == [b"a", b"b"]
    for stream in newer:
        assert await _data(queue, stream) == [b"b"]
    await apache.operator.delete(name, f"{name}.directory")


async def test_records_can_be_used_by_other_consumers(
    broker: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A Flink or Connect job reads the topic without knowing streamq."""
    queue = await open_with(broker.settings())
    await queue.append(stream, _entries(5, b"open", b"data"))
    partition = TopicPartition("streamq", partition_of(key_of(stream), 12))
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.server.address, fetch_max_wait_ms=10)
    async with consumer:
        consumer.assign([partition])
        offset = int((await _read(queue, stream))[0].position.partition("-")[2]) - 1
        consumer.seek(partition, offset)
        found = [await consumer.getone() for _ in range(2)]
    assert [(each.key, each.value, dict(each.headers)) for each in found] == [
        (
            str(stream).encode(),
            data,
            {"streamq-v": b"1", "streamq-epoch": b"5", "streamq-index": b"%d" % index},
        )
        for index, data in enumerate((b"open", b"data"))
    ]
