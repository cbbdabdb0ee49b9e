"""Asks a broker which operations it permits us on topics.

aiokafka's requests for metadata do not ask for that. https://kafka.apache.org/protocol#The_Messages_Metadata
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from ._cluster import Cluster

READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
"""Operations, by Kafka's numbers."""

_NOT_SAID = -(2**31)


class _MetadataAnswer(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataAnswer
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _OperationsRequest(Request[_MetadataStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        creates, of_cluster, of_topics = False, False, True
        return request_struct_class(self._topics, creates, of_cluster, of_topics)


async def permitted_operations(cluster: Cluster, topics: Sequence[str]) -> dict[str, set[int]]:
    """Return the operations that we may use on each topic, as far as the brokers say.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
        NotImplementedError: The brokers are older than Kafka 2.3.
    """
    answer: Any = await cluster.ask_controller(_OperationsRequest(topics))
    found: dict[str, set[int]] = {}
    for code, topic, _, _, bits in answer.topics:
        if code == 0 and bits != _NOT_SAID:
            found[topic] = {number for number in range(32) if bits >> number & 1}
    return found
