"""Examines the topics and reports what is missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping

from streamq.driver import Finding, QueueOptions
from streamq_kafka._errors import TopicMissing
from streamq_kafka._naming import directory_name
from streamq_kafka._settings import KafkaSettings, data_topic
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._topic_admin import topic_configs

from ._config_problems import counted, data_problems, directory_problems, replication_problems

_CREATE = "run `streamq doctor --create`, or create it as the README of streamq-kafka says"


async def examine(
    cluster: Cluster, options: QueueOptions, settings: KafkaSettings
) -> list[Finding]:
    """Examine the topics.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    name = data_topic(settings)
    metadata = cluster.metadata
    answers = f"it answers, with {counted(metadata.brokers, 'broker')}"
    findings = [Finding("cluster", True, answers)]
    of_data: Mapping[str, str] = {}
    for topic, is_directory in ((name, False), (directory_name(name), True)):
        try:
            partitions = await metadata.partitions(topic, is_patient=False)
        except TopicMissing:
            findings.append(Finding(f"topic {topic}", False, "does not exist", _CREATE))
            continue
        configs = await topic_configs(cluster, topic)
        replicas = metadata.replicas(topic)
        seen = f"{counted(partitions, 'partition')}, {counted(replicas, 'replica')} each"
        if not configs:
            seen += "; its configuration is not visible (needs DescribeConfigs)"
        problems = replication_problems(metadata.brokers, replicas, configs)
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
