"""What topics have to be like: looked up, judged, and created."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as ke
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.structs import TopicPartition

from streamq import load_settings
from streamq.driver import Finding, QueueOptions

from ._cluster import Cluster
from ._errors import TopicMissing
from ._settings import KafkaSettings
from ._topic import directory_name
from ._verdicts import HOUR_MS, data_problems, directory_problems, number, replication_problems

DEFAULT_MESSAGE_BYTES = 1_048_588
"""What a topic takes if nobody has said otherwise."""

_CREATE = "run `streamq doctor --create`, or create it as the README of streamq-kafka says"
_DAY_MS, _SEGMENT_MS = 24 * HOUR_MS, 4 * HOUR_MS  # less than the second some services refuse
_CREATE_MS = 5_000
_TOPIC = 2
_VISIBLE_SECONDS, _LOOK_AGAIN_SECONDS = 10.0, 0.05


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What is known of a topic's configuration.

    Attributes:
        max_message_bytes: Largest batch of records.
        is_durable: Whether what is acknowledged survives a restart of the brokers.
    """

    max_message_bytes: int = DEFAULT_MESSAGE_BYTES
    is_durable: bool = False


async def look_up(cluster: Cluster, topic: str) -> TopicFacts:
    """Return what a topic's configuration means for us.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    configs = await _configs(cluster, topic)
    return TopicFacts(
        number(configs, "max.message.bytes") or DEFAULT_MESSAGE_BYTES,
        # What only Apache Kafka and its kin tell: an in-memory stand-in knows no replicas.
        "min.insync.replicas" in configs,
    )


def data_topic(settings: KafkaSettings) -> str:
    """Return the data topic that the configured tenant uses."""
    return settings.topic_of(load_settings().tenant) if settings.is_per_tenant else settings.topic


async def examine(
    cluster: Cluster, options: QueueOptions, settings: KafkaSettings
) -> list[Finding]:
    """Judge the topics.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    name = data_topic(settings)
    findings = [Finding("cluster", True, f"it answers, with {_count(cluster.brokers, 'broker')}")]
    of_data: Mapping[str, str] = {}
    for topic, is_directory in ((name, False), (directory_name(name), True)):
        try:
            partitions = await cluster.partitions(topic)
        except TopicMissing:
            findings.append(Finding(f"topic {topic}", False, "does not exist", _CREATE))
            continue
        configs = await _configs(cluster, topic)
        replicas = cluster.replicas(topic)
        seen = f"{_count(partitions, 'partition')}, {_count(replicas, 'replica')} each"
        if not configs:
            seen += "; its configuration is not visible (needs DescribeConfigs)"
        problems = replication_problems(cluster.brokers, replicas, configs)
        if is_directory:
            problems += directory_problems(configs, of_data)
        else:
            of_data = configs
            ttl_ms = int(options.ttl.total_seconds() * 1_000)
            problems += data_problems(configs, ttl_ms, settings.batch_bytes)
        findings.append(Finding(f"topic {topic}", True, seen))
        findings += [
            Finding(f"topic {topic}", False, detail, remedy) for detail, remedy in problems
        ]
    return findings


async def provision(cluster: Cluster, options: QueueOptions, settings: KafkaSettings) -> list[str]:
    """Create the topics that are missing.

    Raises:
        aiokafka.errors.KafkaError: They could not be created.
    """
    name = data_topic(settings)
    replicas = min(settings.replication_factor, cluster.brokers)
    retention = max(
        int(settings.retention_hours * HOUR_MS), int(options.ttl.total_seconds() * 1_000)
    )
    common = {
        "min.insync.replicas": "2" if replicas > 2 else "1",
        # Not the clocks of producers: retention would go by them.
        "message.timestamp.type": "LogAppendTime",
        "retention.bytes": "-1",
    }
    # Records go by whole segments, and entries are compacted by whole segments.
    segment = min(_DAY_MS, max(_SEGMENT_MS, retention // 4))
    created = []
    for topic, configs in (
        (
            name,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(retention),
                "segment.ms": str(segment),
            },
        ),
        (
            directory_name(name),
            # Entries are renewed every hour while somebody writes; so old ones belong to nothing.
            {
                "cleanup.policy": "compact,delete",
                "retention.ms": str(retention + 2 * HOUR_MS),
                "segment.ms": str(_SEGMENT_MS),
            },
        ),
    ):
        is_new = await _create_topic(
            cluster,
            topic,
            partitions=settings.partitions,
            replicas=replicas,
            configs={**common, **configs},
        )
        if is_new:
            await _wait_served(cluster, topic, settings.partitions)
            created.append(
                f"topic {topic}: {_count(settings.partitions, 'partition')}, "
                f"{_count(replicas, 'replica')} each, {configs['cleanup.policy']}"
            )
    return created


async def _configs(cluster: Cluster, topic: str) -> dict[str, str]:
    """Return the configuration of a topic; empty if it is not for us to see."""
    try:
        answer = await cluster.ask_any(DescribeConfigsRequest([(_TOPIC, topic, None)]))
    except ke.IncompatibleBrokerVersion:
        return {}
    found: dict[str, str] = {}
    for code, _, _, _, entries in answer.resources:
        if code == 0:
            found.update((name, value) for name, value, *_ in entries if value is not None)
    return found


async def _create_topic(
    cluster: Cluster, topic: str, *, partitions: int, replicas: int, configs: Mapping[str, str]
) -> bool:
    """Create a topic; return whether it was not there yet."""
    wanted: Any = (topic, partitions, replicas, [], list(configs.items()))
    answer = await cluster.ask_any(CreateTopicsRequest([wanted], _CREATE_MS, validate_only=False))
    for _, code, *rest in answer.topic_errors:
        kind = ke.for_code(code)
        if kind is ke.TopicAlreadyExistsError:
            return False
        if code:
            raise kind(f"topic {topic}: {rest[0]}" if rest and rest[0] else f"topic {topic}")
    return True


async def _wait_served(cluster: Cluster, topic: str, partitions: int) -> None:
    """Wait until a new topic is known everywhere and its leaders have taken it over."""
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    async with asyncio.timeout(_VISIBLE_SECONDS):
        while True:
            with contextlib.suppress(TopicMissing):
                await cluster.partitions(topic)
                found = await cluster.latest(wanted)
                if not any(isinstance(offset, Exception) for offset in found.values()):
                    return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
