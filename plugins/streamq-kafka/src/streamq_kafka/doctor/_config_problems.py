"""Judges the configuration of a topic: returns each problem with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import codec

from streamq_kafka.requests._topic_admin import config_number


@dataclass(frozen=True, slots=True)
class TopicProblem:
    """A problem of a topic.

    Attributes:
        detail: What was found.
        remedy: The next step.
        is_warning: It works, and does not survive a fault that an operator expects it to survive.
    """

    detail: str
    remedy: str
    is_warning: bool = False


HOUR_MS = 3_600_000
_RENEWED_MS = HOUR_MS
"""Age of the oldest entry in the directory whose stream may still be written to."""

_COMPACTED_MS = 24 * HOUR_MS
_LIBRARIES = {"snappy": codec.has_snappy, "lz4": codec.has_lz4, "zstd": codec.has_zstd}
SMALLEST_MESSAGE_BYTES = 4_096 + 2_048
"""The smallest limit of a topic that has room for the smallest record that streamq packs."""


def replication_problems(
    brokers: int, replicas: int, partitions: int, configs: Mapping[str, str]
) -> list[TopicProblem]:
    """Return what stops or loses acknowledged records when a broker fails.

    Args:
        brokers: How many brokers there are.
        replicas: How many replicas the partition with the fewest has.
        partitions: How many partitions there are.
        configs: The configuration of the topic, as far as it is known.
    """
    problems = []
    in_sync = config_number(configs, "min.insync.replicas")
    if replicas == 1:
        problems.append(
            TopicProblem(
                f"1 replica on {counted(brokers, 'broker')}: records are lost with their broker",
                "reassign its partitions to 3 replicas, on 3 brokers",
                is_warning=True,
            )
        )
    elif in_sync == 1:
        problems.append(
            TopicProblem(
                "min.insync.replicas=1: a record may be acknowledged by the leader alone",
                "set min.insync.replicas=2, with 3 replicas",
                is_warning=True,
            )
        )
    elif in_sync is not None and in_sync > replicas:
        problems.append(
            TopicProblem(
                f"min.insync.replicas={in_sync} with {counted(replicas, 'replica')}: nothing can "
                "be stored",
                "set min.insync.replicas=2, with 3 replicas",
            )
        )
    elif in_sync == replicas:
        problems.append(
            TopicProblem(
                f"min.insync.replicas={in_sync} with {counted(replicas, 'replica')}: nothing can "
                "be stored while one broker is down, for an update, too",
                "reassign its partitions to 3 replicas, with min.insync.replicas=2",
                is_warning=True,
            )
        )
    if configs.get("unclean.leader.election.enable") == "true":
        problems.append(
            TopicProblem(
                "unclean.leader.election.enable=true: a failover may lose acknowledged records",
                "set it to false",
                is_warning=True,
            )
        )
    if partitions < brokers:
        problems.append(
            TopicProblem(
                f"{counted(partitions, 'partition')} on {counted(brokers, 'broker')}: some brokers "
                "have no part of the load",
                "create the topic with as many partitions as brokers, or some for each of them",
                is_warning=True,
            )
        )
    return problems


def compression_problems(configs: Mapping[str, str]) -> list[TopicProblem]:
    """Return whether this process could read what the brokers compress."""
    name = configs.get("compression.type", "")
    if name not in _LIBRARIES or _LIBRARIES[name]():
        return []
    return [
        TopicProblem(
            f"compression.type={name}: this process cannot read it without a library",
            "pip install 'streamq-kafka[compression]', in every process; or set "
            "compression.type=producer",
        )
    ]


def data_problems(configs: Mapping[str, str], ttl_ms: int, batch_bytes: int) -> list[TopicProblem]:
    """Return the problems of the topic of the records.

    Args:
        configs: Its configuration, as far as it is known.
        ttl_ms: How long streams have to be kept.
        batch_bytes: The largest batch that the driver sends.
    """
    problems = []
    if "compact" in configs.get("cleanup.policy", ""):
        problems.append(
            TopicProblem(
                f"cleanup.policy={configs['cleanup.policy']}: only the newest record of each "
                "stream is kept",
                "set cleanup.policy=delete",
            )
        )
    retention = config_number(configs, "retention.ms")
    if retention is not None and 0 <= retention < ttl_ms:
        problems.append(
            TopicProblem(
                f"retention.ms={retention}: shorter than the {ttl_ms} of STREAMQ_TTL_SECONDS",
                "raise retention.ms, or lower STREAMQ_TTL_SECONDS",
            )
        )
    segment = config_number(configs, "segment.ms")
    if retention is not None and segment is not None and 0 <= retention < segment:
        problems.append(
            TopicProblem(
                f"segment.ms={segment}: records may stay that much longer than retention.ms",
                f"set segment.ms={max(HOUR_MS, retention // 4)}",
                is_warning=True,
            )
        )
    limit = config_number(configs, "max.message.bytes")
    if limit is not None and limit < batch_bytes:
        problems.append(
            TopicProblem(
                f"max.message.bytes={limit}: smaller than the largest batch, so that large "
                "chunks are cut into more records",
                "raise max.message.bytes, or set STREAMQ_KAFKA_BATCH_BYTES to less",
                is_warning=limit >= SMALLEST_MESSAGE_BYTES,
            )
        )
    return problems + _retention_problems(configs)


def directory_problems(
    configs: Mapping[str, str], of_data: Mapping[str, str]
) -> list[TopicProblem]:
    """Return the problems of the directory.

    Args:
        configs: Its configuration, as far as it is known.
        of_data: The configuration of the topic of the records.
    """
    policy = configs.get("cleanup.policy")
    if policy is not None and "compact" not in policy:
        return [
            TopicProblem(
                f"cleanup.policy={policy}: it grows with every attempt, and loses streams that "
                "are still written to",
                "set cleanup.policy=compact,delete",
            )
        ]
    problems = []
    segment = config_number(configs, "segment.ms")
    if segment is not None and segment > _COMPACTED_MS:
        problems.append(
            TopicProblem(
                f"segment.ms={segment}: superseded entries stay that long, and every "
                "process reads them",
                f"set segment.ms={4 * HOUR_MS}",
                is_warning=True,
            )
        )
    if policy is None or "delete" not in policy:
        return problems + _clock_problems(configs)
    retention, of_records = (
        config_number(configs, "retention.ms"),
        config_number(of_data, "retention.ms"),
    )
    if retention is not None and of_records is not None and retention >= 0:
        wanted = of_records + 2 * HOUR_MS if of_records >= 0 else -1
        if wanted < 0 or retention < of_records + _RENEWED_MS:
            problems.append(
                TopicProblem(
                    f"retention.ms={retention}: an entry may be removed before the records of its "
                    f"stream (retention.ms={of_records}), which can then not be found",
                    f"set retention.ms={wanted}",
                )
            )
    return problems + _retention_problems(configs)


def _retention_problems(configs: Mapping[str, str]) -> list[TopicProblem]:
    problems = []
    size = config_number(configs, "retention.bytes")
    if size is not None and size >= 0:
        problems.append(
            TopicProblem(
                f"retention.bytes={size}: when much is written, records are removed before "
                "retention.ms has passed",
                "set retention.bytes=-1",
            )
        )
    return problems + _clock_problems(configs)


def _clock_problems(configs: Mapping[str, str]) -> list[TopicProblem]:
    if configs.get("message.timestamp.type") != "CreateTime":
        return []
    return [
        TopicProblem(
            "message.timestamp.type=CreateTime: records of a producer whose clock is behind are "
            "removed early, and a producer whose clock is ahead is refused",
            "set message.timestamp.type=LogAppendTime",
            is_warning=True,
        )
    ]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 replica`` or ``3 replicas``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
