"""Turns the error code of a broker's answer into an exception of aiokafka."""

from __future__ import annotations

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka._naming import partition_label

# aiokafka has no class for these codes. Each means that the leader is changing.
_LEADER_CHANGE_CODES = {
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    100: "UNKNOWN_TOPIC_ID",
    103: "INCONSISTENT_TOPIC_ID",
}


def error_of(code: int, partition: TopicPartition) -> ke.KafkaError:
    """Return the exception for an error code that a broker returned for a partition."""
    kind = ke.for_code(code)
    label = partition_label(partition)
    if kind is ke.UnknownError and code in _LEADER_CHANGE_CODES:
        return ke.LeaderNotAvailableError(f"{label}: {_LEADER_CHANGE_CODES[code]}")
    error: ke.KafkaError = kind(label)
    return error
