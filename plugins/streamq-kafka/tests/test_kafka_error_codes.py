"""Every error code that an answer to our requests can have becomes the right error of streamq."""

from __future__ import annotations

import pytest
from aiokafka.structs import TopicPartition

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
    ThrottledError,
)
from streamq_kafka._errors import translator
from streamq_kafka.requests._error_codes import error_of

_PASSES, _FINAL, _DENIED = BackendUnavailableError, BackendError, AccessDeniedError

# Of Produce, InitProducerId, Fetch, ListOffsets, Metadata, DescribeConfigs, CreateTopics, and of
# the login: the code, the error, and what its message has to contain.
EXPECTED: list[tuple[int, type[StreamqError], str]] = [
    (-1, _FINAL, "log has the reason"),
    (1, _PASSES, "holds less"),
    (2, _FINAL, "damaged"),
    (3, _PASSES, "cannot serve now"),
    (5, _PASSES, "cannot serve now"),
    (6, _PASSES, "cannot serve now"),
    (7, _PASSES, "in time"),
    (8, _PASSES, "cannot serve now"),
    (9, _PASSES, "cannot serve now"),
    (10, _FINAL, "max.message.bytes"),
    (13, _PASSES, "cannot serve now"),
    (14, _PASSES, "cannot serve now"),
    (15, _PASSES, "cannot serve now"),
    (16, _PASSES, "cannot serve now"),
    (17, _FINAL, "STREAMQ_KAFKA_TOPIC"),
    (18, _FINAL, "max.message.bytes"),
    (19, _PASSES, "min.insync.replicas"),
    (20, _PASSES, "min.insync.replicas"),
    (29, _DENIED, "ACLs"),
    (31, _DENIED, "ACLs"),
    (32, _FINAL, "clock"),
    (33, _DENIED, "STREAMQ_KAFKA_SASL_"),
    (34, _DENIED, "STREAMQ_KAFKA_SECURITY_PROTOCOL"),
    (35, _FINAL, "too old or too new"),
    (37, _FINAL, "STREAMQ_KAFKA_PARTITIONS"),
    (38, _FINAL, "STREAMQ_KAFKA_REPLICATION_FACTOR"),
    (39, _FINAL, "STREAMQ_KAFKA_REPLICATION_FACTOR"),
    (40, _FINAL, "STREAMQ_KAFKA_RETENTION_HOURS"),
    (41, _PASSES, "cannot serve now"),
    (42, _FINAL, "does not take this"),
    (43, _FINAL, "message.format"),
    (44, _FINAL, "policy"),
    (45, _PASSES, "session"),
    (46, _PASSES, "session"),
    (47, _PASSES, "session"),
    (49, _PASSES, "session"),
    (53, _DENIED, "ACLs"),
    (54, _DENIED, "ACLs"),
    (56, StorageFullError, "disk"),
    (57, StorageFullError, "disk"),
    (58, _DENIED, "credentials"),
    (59, _PASSES, "session"),
    (62, _DENIED, "credentials"),
    (65, _DENIED, "ACLs"),
    (66, _DENIED, "credentials"),
    (72, _PASSES, "cannot serve now"),
    (74, _PASSES, "FENCED_LEADER_EPOCH"),
    (75, _PASSES, "UNKNOWN_LEADER_EPOCH"),
    (76, _FINAL, "STREAMQ_KAFKA_COMPRESSION"),
    (77, _PASSES, "STALE_BROKER_EPOCH"),
    (78, _PASSES, "OFFSET_NOT_AVAILABLE"),
    (87, _FINAL, "refuses a record"),
    (89, ThrottledError, "quota"),
    (90, _PASSES, "session"),
    (97, _DENIED, "credentials"),
    (100, _PASSES, "UNKNOWN_TOPIC_ID"),
    (102, _PASSES, "BROKER_ID_NOT_REGISTERED"),
    (103, _PASSES, "INCONSISTENT_TOPIC_ID"),
    (108, _PASSES, "NEW_LEADER_ELECTED"),
    (129, _PASSES, "REBOOTSTRAP_REQUIRED"),
]


@pytest.mark.parametrize(
    ("code", "kind", "said"), EXPECTED, ids=[str(each[0]) for each in EXPECTED]
)
def test_code_becomes_the_right_error(code: int, kind: type[StreamqError], said: str) -> None:
    """What passes is retried, what does not is reported at once, with the cause and a remedy."""
    error = error_of(code, TopicPartition("chunks", 3), "the broker's words")
    mapped = translator("kafka.example:9092")(error, None)
    assert type(mapped) is kind
    assert mapped.retryable == (kind not in (_FINAL, _DENIED))
    # The broker's words about a login on a port without one lead nowhere.
    seen = () if code == 34 else ("chunks, partition 3", "the broker's words")
    for part in (said, "kafka.example:9092", *seen):
        assert part in str(mapped)


def test_code_of_a_newer_broker_is_named() -> None:
    """An operator searches for the number; "UnknownError" leads nowhere."""
    mapped = translator("kafka.example:9092")(error_of(999, "chunks"), None)
    assert isinstance(mapped, BackendError)
    assert "topic chunks: error code 999" in str(mapped)
