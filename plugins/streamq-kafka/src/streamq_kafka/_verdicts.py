"""What the configuration of a topic means for streams: each problem, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

Problem = tuple[str, str]
"""What is wrong, and the remedy."""

HOUR_MS = 3_600_000
_RENEWED_MS = HOUR_MS
"""Age of the oldest entry in the directory that may belong to a stream still written to."""

_COMPACTED_MS = 24 * HOUR_MS


def number(configs: Mapping[str, str], name: str) -> int | None:
    """Return a setting that is a number; ``None`` if it is not known."""
    try:
        return int(configs[name])
    except (KeyError, ValueError):
        return None


def replication_problems(brokers: int, replicas: int, configs: Mapping[str, str]) -> list[Problem]:
    """Judge whether what is acknowledged survives the end of a broker."""
    problems = []
    if brokers > 1 and replicas == 1:
        problems.append(
            (
                f"1 replica on {brokers} brokers: what is stored goes with its broker",
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
    """Judge the topic of the records.

    Args:
        configs: Its configuration, as far as it is known.
        ttl_ms: How long streams are to be kept.
        batch_bytes: The largest batch that would be sent.
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
    retention = number(configs, "retention.ms")
    if retention is not None and 0 <= retention < ttl_ms:
        problems.append(
            (
                f"retention.ms={retention}: shorter than the {ttl_ms} of STREAMQ_TTL_SECONDS",
                "raise retention.ms, or lower STREAMQ_TTL_SECONDS",
            )
        )
    segment = number(configs, "segment.ms")
    if retention is not None and segment is not None and 0 <= retention < segment:
        problems.append(
            (
                f"segment.ms={segment}: records may stay so much longer than retention.ms",
                f"set segment.ms={max(HOUR_MS, retention // 4)}",
            )
        )
    limit = number(configs, "max.message.bytes")
    if limit is not None and limit < batch_bytes:
        problems.append(
            (
                f"max.message.bytes={limit}: less than a batch may have",
                "raise max.message.bytes, or set STREAMQ_KAFKA_BATCH_BYTES to less",
            )
        )
    return problems + _retention_problems(configs)


def directory_problems(configs: Mapping[str, str], of_data: Mapping[str, str]) -> list[Problem]:
    """Judge the directory.

    Args:
        configs: Its configuration, as far as it is known.
        of_data: That of the topic of the records.
    """
    policy = configs.get("cleanup.policy")
    if policy is not None and "compact" not in policy:
        return [
            (
                f"cleanup.policy={policy}: it grows with every attempt, and forgets streams that "
                "are still written to",
                "set cleanup.policy=compact,delete",
            )
        ]
    problems = []
    segment = number(configs, "segment.ms")
    if segment is not None and segment > _COMPACTED_MS:
        problems.append(
            (
                f"segment.ms={segment}: what is superseded stays as long as that, and every "
                "process reads it",
                f"set segment.ms={4 * HOUR_MS}",
            )
        )
    if policy is None or "delete" not in policy:
        return problems + _clock_problems(configs)
    retention, of_records = number(configs, "retention.ms"), number(of_data, "retention.ms")
    if retention is not None and of_records is not None and retention >= 0:
        wanted = of_records + 2 * HOUR_MS if of_records >= 0 else -1
        if wanted < 0 or retention < of_records + _RENEWED_MS:
            problems.append(
                (
                    f"retention.ms={retention}: entries may go before the records of their "
                    f"streams (retention.ms={of_records}), which cannot be found any more then",
                    f"set retention.ms={wanted}",
                )
            )
    return problems + _retention_problems(configs)


def _retention_problems(configs: Mapping[str, str]) -> list[Problem]:
    problems = []
    size = number(configs, "retention.bytes")
    if size is not None and size >= 0:
        problems.append(
            (
                f"retention.bytes={size}: when much is written, what is stored goes before "
                "retention.ms is over",
                "set retention.bytes=-1",
            )
        )
    return problems + _clock_problems(configs)


def _clock_problems(configs: Mapping[str, str]) -> list[Problem]:
    if configs.get("message.timestamp.type") != "CreateTime":
        return []
    return [
        (
            "message.timestamp.type=CreateTime: a producer whose clock is behind has what it "
            "stores removed early, and one whose clock is ahead is refused",
            "set message.timestamp.type=LogAppendTime",
        )
    ]
