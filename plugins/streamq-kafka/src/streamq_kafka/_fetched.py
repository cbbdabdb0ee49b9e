"""What a broker answers of a partition: records, or why there are none."""

from __future__ import annotations

import functools
import logging
import struct
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as ke
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

_logger = logging.getLogger("streamq")

# Of a batch: offset, size, leader epoch, version, checksum, attributes, offset of the last record.
# https://kafka.apache.org/documentation/#recordbatch
_HEADER = struct.Struct(">qiibIhi")
_SIZED_AFTER = 12
_MAGIC = 2


@dataclass(slots=True)
class Fetched:
    """What a broker sent of one partition.

    Attributes:
        partition: Which one.
        offset: From where it was asked for.
        error: Why there is nothing.
        high: Offset after the newest record that consumers may see.
        low: Offset of the oldest record that is still there; 0 if the broker does not tell.
        data: Whole batches of records, the first perhaps beginning before ``offset``.
    """

    partition: TopicPartition
    offset: int
    error: ke.KafkaError | None
    high: int
    low: int
    data: bytes

    def unpack(self) -> tuple[list[Any], int]:
        """Return the records at and after ``offset``, and the offset to go on from.

        A batch that arrived as it was sent and makes no sense is passed over, with a warning: it is
        not one of ours, and would be in the way for ever.

        Raises:
            aiokafka.errors.CorruptRecordException: A checksum is wrong.
            aiokafka.errors.UnsupportedCodecError: What unpacks it is not installed.
        """
        found: list[Any] = []
        start = following = self.offset
        batches = MemoryRecords(self.data)
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.validate_crc():
                raise ke.CorruptRecordException(
                    f"wrong checksum in {_where(self.partition)}, after offset {following - 1}"
                )
            if not batch.is_control_batch:
                records = _records(batch, self.partition)
                if batch.base_offset < start:
                    records = [record for record in records if record.offset >= start]
                found += records
            following = max(following, batch.next_offset)
        return found, following


def reached(data: bytes) -> int:
    """Return the offset after the last batch, without unpacking any; 0 if that cannot be told."""
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
            f"{_where(partition)}, offset {batch.base_offset}: {exc}; install "
            "streamq-kafka[compression]"
        ) from exc
    except Exception as exc:  # noqa: BLE001 - what decompresses it raises anything
        _warn(partition, batch.base_offset, batch.next_offset - 1, f"{type(exc).__name__}: {exc}")
        return []


@functools.lru_cache(maxsize=1_024)  # once for each, not whenever it is read
def _warn(partition: TopicPartition, first: int, last: int, why: str) -> None:
    _logger.warning(
        "%s: the records from offset %d to %d cannot be unpacked and are left out (%s)",
        *(_where(partition), first, last, why),
    )


def _where(partition: TopicPartition) -> str:
    return f"{partition.topic}, partition {partition.partition}"


def error_of(code: int, partition: TopicPartition) -> ke.KafkaError:
    """Return the error that a broker means by a code, about a partition."""
    kind = ke.for_code(code)
    where = _where(partition)
    if kind is ke.UnknownError and code in _PASSING_CODES:
        return ke.LeaderNotAvailableError(f"{where}: {_PASSING_CODES[code]}")
    error: ke.KafkaError = kind(where)
    return error


# Codes that aiokafka has no class for, all of them of a leader that is changing.
_PASSING_CODES = {
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    100: "UNKNOWN_TOPIC_ID",
    103: "INCONSISTENT_TOPIC_ID",
}
