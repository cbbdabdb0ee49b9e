"""Examines the brokers: whether each answers from here, and is new enough."""

from __future__ import annotations

import aiokafka.errors as ke

from streamq.driver import Finding, together
from streamq_kafka._errors import reason_of
from streamq_kafka.requests._cluster import Cluster

_PRODUCE, _INIT_PRODUCER_ID = 0, 22
_OLDEST_PRODUCE = 8
"""The version of the request Produce that came with Kafka 2.4."""


async def examine_brokers(cluster: Cluster, *, is_idempotent: bool) -> list[Finding]:
    """Examine every broker over its advertised address.

    Args:
        cluster: The cluster.
        is_idempotent: Whether producers have numbers.
    """
    found = await together(
        [
            _examine(cluster, node, address, is_idempotent=is_idempotent)
            for node, address in sorted(cluster.metadata.addresses().items())
        ]
    )
    return [finding for findings in found for finding in findings]


async def _examine(
    cluster: Cluster, node: int, address: str, *, is_idempotent: bool
) -> list[Finding]:
    subject = f"broker {node} at {address}"
    try:
        versions = await cluster.connections.versions(node)
    except (TimeoutError, ke.KafkaError, OSError) as exc:
        return [
            Finding(
                subject,
                False,
                f"does not answer from here: {reason_of(exc)}",
                "start it, let it through, or set its advertised.listeners to an address that "
                "leads to it from here",
            )
        ]
    if versions.get(_PRODUCE, (0, 0))[1] < _OLDEST_PRODUCE:
        return [
            Finding(subject, False, "is older than Kafka 2.4", "update it to Kafka 2.4 or newer")
        ]
    if is_idempotent and _INIT_PRODUCER_ID not in versions:
        return [
            Finding(
                subject,
                False,
                "has no idempotent producers",
                "set STREAMQ_KAFKA_IDEMPOTENT=false, if a record may be stored twice there",
            )
        ]
    return []
