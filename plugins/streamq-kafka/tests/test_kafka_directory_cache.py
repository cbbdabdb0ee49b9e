"""Reading the directory in pages, without a broker: a scripted log."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Any, cast

import aiokafka.errors as ke
import pytest
from aiokafka.record._crc32c import crc
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from streamq.driver import BackendError, BackendUnavailableError
from streamq_kafka._errors import kafka_errors
from streamq_kafka._writing import SharedProducer
from streamq_kafka.directory import _cache
from streamq_kafka.directory._directory import Directory
from streamq_kafka.directory._listing import Listing
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._fetched import Fetched

_BATCH_HEADER_BYTES, _CRC, _CHECKED = 61, slice(17, 21), 21
_GZIP = 1
_HERE = kafka_errors("here")


def _batch(offset: int, key: bytes, value: bytes | None, compression: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 2**20)
    builder.append(0, 1, key, value, [])
    data = bytearray(builder.build())
    data[:8] = struct.pack(">q", offset)
    return data


def _garbage(offset: int, compression: int) -> bytearray:
    """Return a batch with a right checksum and undecodable content."""
    data = _batch(offset, b"k", b"v" * 200, compression)
    data[_BATCH_HEADER_BYTES + 5 :] = b"\xff" * len(data[_BATCH_HEADER_BYTES + 5 :])
    data[_CRC] = struct.pack(">I", crc(bytes(data[_CHECKED:])))
    return data


def _listing(epoch: int) -> bytes:
    return Listing(0, 0, epoch, 1).encode()


class _Log:
    """Partitions of a directory, returned one batch at a time."""

    def __init__(self, *partitions: list[bytearray]) -> None:
        self.metadata = self
        self.partitions = partitions
        self.oldest = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def known_leader(self, partition: TopicPartition) -> int:
        return 0

    async def beginning_offsets(
        self, wanted: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return dict.fromkeys(wanted, self.oldest)

    async def fetch_from_leaders(
        self, wanted: Iterable[tuple[TopicPartition, int]], **_: Any
    ) -> dict[TopicPartition, Fetched | Exception]:
        self.meanwhile()
        found: dict[TopicPartition, Fetched | Exception] = {}
        for partition, offset in wanted:
            batches = self.partitions[partition.partition]
            data = bytes(batches[offset]) if offset < len(batches) else b""
            found[partition] = Fetched(partition, offset, None, len(batches), self.oldest, data)
            if not self.oldest <= offset <= len(batches):
                found[partition] = ke.OffsetOutOfRangeError()
        return found


def _directory_of(log: _Log) -> Directory:
    def forget() -> None:
        found.forget()

    async def life() -> int:
        return 0

    found = Directory(
        "t.directory",
        len(log.partitions),
        cast("Cluster", log),
        cast("SharedProducer", None),
        5.0,
        lambda key, listing: None,
        forget,
        life,
    )
    return found


async def _epoch(directory: Directory, key: bytes) -> int:
    listing = await directory.find(key)
    return 0 if listing is None else listing.epoch


async def test_large_directory_is_read_by_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a million streams take longer than a timeout, so retries have to make progress."""
    log = _Log([_batch(index, b"%d" % index, _listing(9)) for index in range(30)])
    directory = _directory_of(log)
    monkeypatch.setattr(_cache, "_REQUEST_SHARE", 0.0)
    for offset in range(1, 30):
        with pytest.raises(BackendUnavailableError, match=rf" {offset} of 30 "):
            await directory.find(b"0")
        assert directory.peek(b"0") is None, "it may have been deleted further on"
    assert await _epoch(directory, b"0") == 9


async def test_old_entries_are_used_until_the_directory_has_been_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large directory is read again once an hour; no call may fail meanwhile."""
    log = _Log([_batch(index, b"%d" % index, _listing(9)) for index in range(30)])
    directory = _directory_of(log)
    assert await _epoch(directory, b"0") == 9
    log.oldest = 20
    monkeypatch.setattr(_cache, "_RELOAD_SECONDS", -1.0)
    monkeypatch.setattr(_cache, "_PAUSE_SECONDS", 0.0)
    seen = [await _epoch(directory, b"0") for _ in range(12)]
    assert seen[:9] == [9] * 9
    assert seen[-1] == 0
    assert await _epoch(directory, b"29") == 9


async def test_topic_that_is_recreated_while_it_is_read_is_read_again() -> None:
    """Entries of a deleted topic must not come back with a late answer."""
    log = _Log([_batch(index, b"%d" % index, _listing(9)) for index in range(5)])
    directory = _directory_of(log)
    assert await _epoch(directory, b"0") == 9

    def recreate() -> None:
        log.meanwhile = lambda: None
        log.partitions = ([_batch(0, b"1", _listing(11))],)
        directory.forget()

    log.meanwhile = recreate
    assert [await _epoch(directory, key) for key in (b"0", b"1")] == [0, 11]


async def test_shorter_log_is_a_new_log() -> None:
    """After a topic was recreated, the streams of the old one no longer exist."""
    log = _Log([_batch(index, b"%d" % index, _listing(9)) for index in range(5)])
    directory = _directory_of(log)
    assert await _epoch(directory, b"0") == 9
    log.partitions = ([_batch(0, b"1", _listing(11))],)
    assert [await _epoch(directory, key) for key in (b"0", b"1")] == [0, 11]


@pytest.mark.parametrize("compression", [0, _GZIP])
async def test_undecodable_batch_is_skipped(
    compression: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One broken client on a shared cluster must not stop streams for good."""
    log = _Log([_garbage(0, compression), _batch(1, b"k", _listing(3))], [])
    directory = _directory_of(log)
    for _ in range(2):
        assert await _epoch(directory, b"k") == 3
        directory.forget()
    assert caplog.text.count("t.directory, partition 0") == 1
    assert "cannot be unpacked" in caplog.text


async def test_batch_without_its_library_stops_only_its_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """streamq may have written it, and skipping it would revive an old attempt."""
    log = _Log([_batch(0, b"k", _listing(3) * 20, _GZIP)], [])
    directory = _directory_of(log)
    monkeypatch.setattr("aiokafka.codec.has_gzip", lambda: False)
    broken, whole = await asyncio.gather(
        directory.cache._coalescer.load(0),
        directory.cache._coalescer.load(1),
        return_exceptions=True,
    )
    assert whole is True
    with pytest.raises(BackendError, match=r"partition 0.*streamq-kafka\[compression\]"), _HERE:
        raise cast("Exception", broken)


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"v":1,"partition":0,"first":%d,"epoch":1,"created_ms":1}' % 10**30,
        b"[1]",
        b"\xff",
    ],
)
async def test_foreign_entry_is_skipped(value: bytes) -> None:
    """Streams have to continue, whatever another program writes there."""
    directory = _directory_of(_Log([_batch(0, b"k", value), _batch(1, b"k", _listing(3))]))
    assert await _epoch(directory, b"k") == 3
