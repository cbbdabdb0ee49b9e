"""Requests that name topics by their id, so that a topic that was created anew is another one.

aiokafka's requests name them by their name only, and an offset of the old topic might be one of the
new topic, too. Brokers have ids of topics since Kafka 2.8, and take them in fetches since 3.1.

https://kafka.apache.org/protocol#protocol_messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

NO_ID = bytes(16)
"""The id that brokers without topic ids return."""

_UNKNOWN_ID, _NOTHING = 100, (-1, -1, -1, None, -1, None)
_TAGS = ("tags", TaggedFields)
_TEXT = CompactString("utf-8")


class _Id(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(len(NO_ID))


# -- metadata ----------------------------------------------------------------------------------


class _MetadataAnswer(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS
            ),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataAnswer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Id), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicsRequest(Request[_MetadataStruct]):  # type: ignore[misc]
    """Asks for topics, with their ids if the broker has any.

    Args:
        topics: Their names.
    """

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """Return the request in a version that the broker takes."""
        if _takes(versions, _MetadataStruct):
            return super().prepare(versions)
        return MetadataRequest(self._topics, allow_auto_topic_creation=False).prepare(versions)

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        """Return the request."""
        creates, of_topics = False, False
        named: list[Any] = [(NO_ID, topic, {}) for topic in self._topics]
        return request_struct_class(named, creates, of_topics, {})


@dataclass(frozen=True, slots=True)
class Topics:
    """The answer, in the form in which aiokafka keeps it.

    Attributes:
        brokers: The brokers: number, host, port, rack.
        cluster_id: The id of the cluster, if the broker says it.
        controller_id: The number of the controller.
        topics: Code, name, whether it is internal, partitions.
        ids: The id of each topic that has one.
        API_VERSION: The version of aiokafka's own request whose form this is.
    """

    brokers: list[Any]
    cluster_id: str | None
    controller_id: int
    topics: list[Any]
    ids: Mapping[str, bytes]
    API_VERSION: int = 5


def topics_of(answer: Any) -> Topics:
    """Return an answer of any version in one form."""
    cluster_id = getattr(answer, "cluster_id", None)
    if not isinstance(answer, _MetadataAnswer):
        return Topics(answer.brokers, cluster_id, answer.controller_id, answer.topics, {})
    found: Any = answer
    topics = [
        (code, topic, is_internal, [_as_before(each) for each in partitions])
        for code, topic, _, is_internal, partitions, *_ in found.topics
    ]
    ids = {topic: key for _, topic, key, *_ in found.topics if key != NO_ID}
    brokers = [tuple(each[:4]) for each in found.brokers]
    return Topics(brokers, cluster_id, found.controller_id, topics, ids)


def _as_before(partition: Any) -> tuple[Any, ...]:
    code, number, leader, _, replicas, in_sync, offline, _ = partition
    return code, number, leader, replicas, in_sync, offline


# -- fetches -----------------------------------------------------------------------------------


class _FetchAnswer(Response):  # type: ignore[misc]
    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", _Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted_transactions",
                            CompactArray(("producer_id", Int64), ("first_offset", Int64), _TAGS),
                        ),
                        ("preferred_read_replica", Int32),
                        ("message_set", CompactBytes),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _FetchStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 1
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _FetchAnswer
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_time", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", _Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        (
            "forgotten_topics_data",
            CompactArray(("topic_id", _Id), ("partitions", CompactArray(Int32)), _TAGS),
        ),
        ("rack_id", _TEXT),
        _TAGS,
    )


class FetchByIdRequest(Request[_FetchStruct]):  # type: ignore[misc]
    """Fetches from topics that are named by their ids, if the broker takes that.

    Args:
        plain: The same request with names.
        ids: The ids of its topics; if one is missing, the names are used.
    """

    API_KEY = 1

    def __init__(self, plain: FetchRequest, ids: Mapping[str, bytes]) -> None:
        self._plain = plain
        self._ids = {topic: ids[topic] for topic, _ in plain.topics if topic in ids}

    @property
    def wait_ms(self) -> int:
        """How long the broker may wait for records."""
        return int(self._plain._max_wait_ms)

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """Return the request in a version that the broker takes."""
        if len(self._ids) == len(self._plain.topics) and _takes(versions, _FetchStruct):
            return super().prepare(versions)
        return self._plain.prepare(versions)

    def build(self, request_struct_class: type[_FetchStruct]) -> _FetchStruct:
        """Return the request."""
        plain = self._plain
        topics: list[Any] = [
            (
                self._ids[topic],
                [(number, -1, offset, -1, -1, size, {}) for number, offset, size in partitions],
                {},
            )
            for topic, partitions in plain.topics
        ]
        sizes = (plain._max_wait_ms, plain._min_bytes, plain._max_bytes, plain._isolation_level)
        return request_struct_class(-1, *sizes, 0, -1, topics, [], "", {})

    def partitions_of(self, answer: Any) -> list[tuple[str, tuple[Any, ...]]]:
        """Return the topic and the fields of each partition in an answer of any version.

        The fields are those of aiokafka's versions: number, code, high watermark, others, records.
        """
        if not isinstance(answer, _FetchAnswer):
            return [(topic, each) for topic, partitions in answer.topics for each in partitions]
        found: Any = answer
        names = {key: topic for topic, key in self._ids.items()}
        found = {names.get(key): partitions for key, partitions, _ in answer.topics}
        asked: list[tuple[str, tuple[Any, ...]]] = []
        for topic, partitions in self._plain.topics:
            if topic in found:
                asked += [(topic, tuple(each[:-1])) for each in found[topic]]
            else:  # Tansu returns no id for an id that it does not know
                asked += [(topic, (number, _UNKNOWN_ID, *_NOTHING)) for number, _, _ in partitions]
        return asked


def _takes(versions: Mapping[int, tuple[int, int]], struct: Any) -> bool:
    low, high = versions.get(struct.API_KEY, (0, -1))
    return bool(low <= struct.API_VERSION <= high)
