"""Turns the error code of a broker's answer into an exception.

aiokafka has classes for most codes. A code without one would become an ``UnknownError`` that does
not say which code it was.
"""

from __future__ import annotations

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka._errors import CompressionRefused, RecordRefused, Throttled
from streamq_kafka._naming import partition_label

# https://kafka.apache.org/protocol#protocol_error_codes
_WITHOUT_CLASS: dict[int, tuple[str, type[Exception]]] = {
    # The leader, or what it knows of the partition, is changing.
    74: ("FENCED_LEADER_EPOCH", ke.LeaderNotAvailableError),
    75: ("UNKNOWN_LEADER_EPOCH", ke.LeaderNotAvailableError),
    78: ("OFFSET_NOT_AVAILABLE", ke.LeaderNotAvailableError),
    80: ("PREFERRED_LEADER_NOT_AVAILABLE", ke.LeaderNotAvailableError),
    83: ("ELIGIBLE_LEADERS_NOT_AVAILABLE", ke.LeaderNotAvailableError),
    100: ("UNKNOWN_TOPIC_ID", ke.LeaderNotAvailableError),
    103: ("INCONSISTENT_TOPIC_ID", ke.LeaderNotAvailableError),
    106: ("FETCH_SESSION_TOPIC_ID_ERROR", ke.LeaderNotAvailableError),
    108: ("NEW_LEADER_ELECTED", ke.LeaderNotAvailableError),
    # The broker is starting, or leaving the cluster.
    77: ("STALE_BROKER_EPOCH", ke.BrokerNotAvailableError),
    102: ("BROKER_ID_NOT_REGISTERED", ke.BrokerNotAvailableError),
    116: ("UNKNOWN_CONTROLLER_ID", ke.NotControllerError),
    129: ("REBOOTSTRAP_REQUIRED", ke.BrokerNotAvailableError),
    # It refuses what we send.
    76: ("UNSUPPORTED_COMPRESSION_TYPE", CompressionRefused),
    87: ("INVALID_RECORD", RecordRefused),
    89: ("THROTTLING_QUOTA_EXCEEDED", Throttled),
    90: ("PRODUCER_FENCED", ke.ProducerFenced),
    93: ("UNACCEPTABLE_CREDENTIAL", ke.SaslAuthenticationFailed),
    97: ("PRINCIPAL_DESERIALIZATION_FAILURE", ke.SaslAuthenticationFailed),
}


def error_of(code: int, subject: TopicPartition | str, message: str | None = None) -> ke.KafkaError:
    """Return the exception for an error code of an answer.

    Args:
        code: The code.
        subject: The partition or the topic that it is about.
        message: The broker's own words, which few answers contain.
    """
    label = partition_label(subject) if isinstance(subject, TopicPartition) else f"topic {subject}"
    kind = ke.for_code(code)
    words = message
    if kind is ke.UnknownError and code != ke.UnknownError.errno:
        name, kind = _WITHOUT_CLASS.get(code, (f"error code {code}", ke.UnknownError))
        words = f"{name}, {message}" if message else name
    return kind(f"{label}: {words}" if words else label)
