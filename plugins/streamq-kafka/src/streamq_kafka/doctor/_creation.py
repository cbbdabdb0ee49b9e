"""Creates the topics that are missing."""

from __future__ import annotations

from streamq.driver import QueueOptions
from streamq_kafka._naming import directory_name
from streamq_kafka._settings import KafkaSettings, data_topic
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._topic_admin import create_topic

from ._config_problems import HOUR_MS, counted

_DAY_MS, _SEGMENT_MS = 24 * HOUR_MS, 4 * HOUR_MS  # some services refuse less than the second


async def provision(cluster: Cluster, options: QueueOptions, settings: KafkaSettings) -> list[str]:
    """Create the topics that are missing.

    Returns:
        A line of text for each topic that was created.

    Raises:
        aiokafka.errors.KafkaError: They could not be created.
    """
    name = data_topic(settings)
    replicas = min(settings.replication_factor, cluster.metadata.brokers)
    retention = max(
        int(settings.retention_hours * HOUR_MS), int(options.ttl.total_seconds() * 1_000)
    )
    common = {
        "min.insync.replicas": "2" if replicas > 2 else "1",
        # With the clocks of producers, retention would depend on them.
        "message.timestamp.type": "LogAppendTime",
        "retention.bytes": "-1",
    }
    # Kafka removes records, and compacts entries, by whole segments.
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
            # An entry is written again every hour while its stream is written to, so an older
            # entry belongs to no stream that is.
            {
                "cleanup.policy": "compact,delete",
                "retention.ms": str(retention + 2 * HOUR_MS),
                "segment.ms": str(_SEGMENT_MS),
            },
        ),
    ):
        is_new = await create_topic(
            cluster,
            topic,
            partitions=settings.partitions,
            replicas=replicas,
            configs={**common, **configs},
        )
        if is_new:
            created.append(
                f"topic {topic}: {counted(settings.partitions, 'partition')}, "
                f"{counted(replicas, 'replica')} each, {configs['cleanup.policy']}"
            )
    return created
