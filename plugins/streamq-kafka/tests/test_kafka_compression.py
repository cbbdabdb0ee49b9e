"""Compression on genuine Apache Kafka, and the errors if its library is not installed."""

from __future__ import annotations

import pytest
from aiokafka import codec
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from pydantic import ValidationError

from kafka_brokers import Broker
from streamq.driver import START, BackendError, Entry
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaSettings
from streamq_kafka._naming import LogPosition, decode_position
from streamq_kafka._queue import KafkaQueue

_CODES = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@pytest.mark.parametrize("name", _CODES)
async def test_compressed_records_are_stored_small_and_read_whole(
    apache: Broker, open_with: OpenWith, name: str
) -> None:
    """Disk, network and replicas cost by the byte, and readers get the original data."""
    queue = await open_with(apache.settings(compression=name))
    assert isinstance(queue, KafkaQueue)
    stream = new_stream()
    entries = [Entry(1, index, b"%d" % index * 10_000) for index in range(10)]
    await queue.append(stream, entries)
    reading = await open_with(apache.settings())
    found = await reading.read(stream, START, max_records=99, max_bytes=2**20, max_wait=0)
    assert [each.data for each in found] == [each.data for each in entries]
    position = decode_position(found[-1].position, stream)
    assert isinstance(position, LogPosition)
    fetched = await queue._cluster.fetch_now(
        TopicPartition("streamq", position.partition), position.offset - 1, max_bytes=1
    )
    batch = MemoryRecords(fetched.data).next_batch()
    assert batch is not None
    assert batch.compression_type == _CODES[name]
    assert (len(fetched.data) < 50_000) == (name != "none")


@pytest.mark.parametrize("name", ["snappy", "lz4", "zstd"])
async def test_missing_library_is_reported_before_anything_is_stored(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The library is an extra; the first append in production is too late to report it."""
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(ValidationError, match=r"streamq-kafka\[compression\]"):
        KafkaSettings.model_validate({"compression": name})
    assert KafkaSettings(compression="gzip").compression == "gzip"


async def test_reader_without_the_library_is_refused_with_what_to_install(
    apache: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With compression at the writers, the library has to be installed at the readers."""
    writing = await open_with(apache.settings(compression="zstd"))
    stream = new_stream()
    await writing.append(stream, [Entry(1, 0, b"open" * 100)])
    reading = await open_with(apache.settings())
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(BackendError, match=r"codec not found.*streamq-kafka\[compression\]"):
        await reading.read(stream, START, max_records=9, max_bytes=999, max_wait=0)
