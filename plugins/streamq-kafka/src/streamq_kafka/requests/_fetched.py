"""Unpacks what a broker returned of one partition."""

from __future__ import annotations

import functools
import logging
import struct
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as ke
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streamq_kafka._naming import partition_label

_logger = logging.getLogger("streamq")

# Of a batch: offset, size, leader epoch, version, checksum, attributes, offset of the last record.
# https://kafka.apache.org/documentation/#recordbatch
_HEADER = struct.Struct(">qiibIhi")
_SIZED_AFTER = 12
_MAGIC = 2


@dataclass(slots=True)
class Fetched:
    """The answer to a fetch, for one partition.

    Attributes:
        partition: The partition.
        offset: The offset in the request.
        error: Why there are no records; ``None`` if there is no error.
        high_watermark: Offset after the newest record that consumers may read.
        log_start: Offset of the oldest record that still exists; 0 if the broker does not say.
        data: Whole batches of records. The first may begin before ``offset``.
    """

    partition: TopicPartition
    offset: int
    error: ke.KafkaError | None
    high_watermark: int
    log_start: int
    data: bytes

    def unpack(self) -> tuple[list[Any], int]:
        """Return the records at and after ``offset``, and the offset to continue from.

        A batch with a right checksum that cannot be decoded is skipped with a warning: streamq did
        not write it, and it would block the partition for ever.

        Raises:
            aiokafka.errors.CorruptRecordException: A checksum is wrong.
            aiokafka.errors.UnsupportedCodecError: The library that decompresses it is not
                installed.
        """
        found: list[Any] = []
        start = following = self.offset
        batches = MemoryRecords(self.data)
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.validate_crc():
                raise ke.CorruptRecordException(
                    f"wrong checksum in {partition_label(self.partition)}, "
                    f"after offset {following - 1}"
                )
            if not batch.is_control_batch:
                records = _records(batch, self.partition)
                if batch.base_offset < start:
                    records = [record for record in records if record.offset >= start]
                found += records
            following = max(following, batch.next_offset)
        return found, following


def end_of_batches(data: bytes) -> int:
    """Return the offset after the last batch without unpacking any; 0 for unknown formats."""
    place = following = 0
    while place + _HEADER.size <= len(data):
        first, size, _, magic, _, _, last = _HEADER.unpack_from(data, place)
        if magic < _MAGIC:
            return 0
        following = first + last + 1
        place += _SIZED_AFTER + size
    return following


def _records(batch: Any, partition: TopicPartition) -> list[Any]:
    try:
        return list(batch)
    except ke.UnsupportedCodecError as exc:
        raise ke.UnsupportedCodecError(
            f"{partition_label(partition)}, offset {batch.base_offset}: {exc}; install "
            "streamq-kafka[compression]"
        ) from exc
    except Exception as exc:  # noqa: BLE001 - decompression may raise anything
        _warn(partition, batch.base_offset, batch.next_offset - 1, f"{type(exc).__name__}: {exc}")
        return []


@functools.lru_cache(maxsize=1_024)  # once for each batch, not on every read
def _warn(partition: TopicPartition, first: int, last: int, why: str) -> None:
    _logger.warning(
        "%s: the records from offset %d to %d cannot be unpacked and are left out (%s)",
        *(partition_label(partition), first, last, why),
    )
