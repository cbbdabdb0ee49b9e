"""Judges the configuration of a topic: returns each problem with its remedy."""

from __future__ import annotations

from collections.abc import Mapping

from streamq_kafka.requests._topic_admin import config_number

Problem = tuple[str, str]
"""The problem, and its remedy."""

HOUR_MS = 3_600_000
_RENEWED_MS = HOUR_MS
"""Age of the oldest entry in the directory whose stream may still be written to."""

_COMPACTED_MS = 24 * HOUR_MS


def replication_problems(brokers: int, replicas: int, configs: Mapping[str, str]) -> list[Problem]:
    """Return what may lose acknowledged records when a broker fails."""
    problems = []
    if brokers > 1 and replicas == 1:
        problems.append(
            (
                f"1 replica on {brokers} brokers: records are lost with their broker",
                "reassign its partitions to 3 replicas",
            )
        )
    if replicas > 2 and configs.get("min.insync.replicas") == "1":
        problems.append(
            (
                "min.insync.replicas=1: a record may be acknowledged by the leader alone",
                "set min.insync.replicas=2",
            )
        )
    if configs.get("unclean.leader.election.enable") == "true":
        problems.append(
            (
                "unclean.leader.election.enable=true: a failover may lose acknowledged records",
                "set it to false",
            )
        )
    return problems


def data_problems(configs: Mapping[str, str], ttl_ms: int, batch_bytes: int) -> list[Problem]:
    """Return the problems of the topic of the records.

    Args:
        configs: Its configuration, as far as it is known.
        ttl_ms: How long streams have to be kept.
        batch_bytes: The largest batch that the driver sends.
    """
    problems = []
    if "compact" in configs.get("cleanup.policy", ""):
        problems.append(
            (
                f"cleanup.policy={configs['cleanup.policy']}: only the newest record of each "
                "stream is kept",
                "set cleanup.policy=delete",
            )
        )
    retention = config_number(configs, "retention.ms")
    if retention is not None and 0 <= retention < ttl_ms:
        problems.append(
            (
                f"retention.ms={retention}: shorter than the {ttl_ms} of STREAMQ_TTL_SECONDS",
                "raise retention.ms, or lower STREAMQ_TTL_SECONDS",
            )
        )
    segment = config_number(configs, "segment.ms")
    if retention is not None and segment is not None and 0 <= retention < segment:
        problems.append(
            (
                f"segment.ms={segment}: records may stay that much longer than retention.ms",
                f"set segment.ms={max(HOUR_MS, retention // 4)}",
            )
        )
    limit = config_number(configs, "max.message.bytes")
    if limit is not None and limit < batch_bytes:
        problems.append(
            (
                f"max.message.bytes={limit}: smaller than the largest batch",
                "raise max.message.bytes, or set STREAMQ_KAFKA_BATCH_BYTES to less",
            )
        )
    return problems + _retention_problems(configs)


def directory_problems(configs: Mapping[str, str], of_data: Mapping[str, str]) -> list[Problem]:
    """Return the problems of the directory.

    Args:
        configs: Its configuration, as far as it is known.
        of_data: The configuration of the topic of the records.
    """
    policy = configs.get("cleanup.policy")
    if policy is not None and "compact" not in policy:
        return [
            (
                f"cleanup.policy={policy}: it grows with every attempt, and loses streams that "
                "are still written to",
                "set cleanup.policy=compact,delete",
            )
        ]
    problems = []
    segment = config_number(configs, "segment.ms")
    if segment is not None and segment > _COMPACTED_MS:
        problems.append(
            (
                f"segment.ms={segment}: superseded entries stay that long, and every "
                "process reads them",
                f"set segment.ms={4 * HOUR_MS}",
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
                (
                    f"retention.ms={retention}: an entry may be removed before the records of its "
                    f"stream (retention.ms={of_records}), which can then not be found",
                    f"set retention.ms={wanted}",
                )
            )
    return problems + _retention_problems(configs)


def _retention_problems(configs: Mapping[str, str]) -> list[Problem]:
    problems = []
    size = config_number(configs, "retention.bytes")
    if size is not None and size >= 0:
        problems.append(
            (
                f"retention.bytes={size}: when much is written, records are removed before "
                "retention.ms has passed",
                "set retention.bytes=-1",
            )
        )
    return problems + _clock_problems(configs)


def _clock_problems(configs: Mapping[str, str]) -> list[Problem]:
    if configs.get("message.timestamp.type") != "CreateTime":
        return []
    return [
        (
            "message.timestamp.type=CreateTime: records of a producer whose clock is behind are "
            "removed early, and a producer whose clock is ahead is refused",
            "set message.timestamp.type=LogAppendTime",
        )
    ]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 replica`` or ``3 replicas``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
