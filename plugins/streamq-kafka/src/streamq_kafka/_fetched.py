"""What a broker answers of a partition: records, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiokafka.errors as ke
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition


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

        Raises:
            aiokafka.errors.CorruptRecordException: A checksum is wrong.
        """
        found: list[Any] = []
        start = following = self.offset
        batches = MemoryRecords(self.data)
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.validate_crc():
                raise ke.CorruptRecordException(
                    f"wrong checksum in {self.partition.topic}, partition "
                    f"{self.partition.partition}, after offset {following - 1}"
                )
            if not batch.is_control_batch:
                if batch.base_offset >= start:
                    found.extend(batch)
                else:
                    found.extend(record for record in batch if record.offset >= start)
            following = max(following, batch.next_offset)
        return found, following


def error_of(code: int, partition: TopicPartition) -> ke.KafkaError:
    """Return the error that a broker means by a code, about a partition."""
    kind = ke.for_code(code)
    where = f"{partition.topic}, partition {partition.partition}"
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
