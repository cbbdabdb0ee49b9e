"""Examines the cluster and the topics and reports what is missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiokafka.errors as ke

from streamq.driver import Finding, QueueOptions
from streamq_kafka._errors import Throttled, TopicMissing
from streamq_kafka._naming import directory_name
from streamq_kafka._settings import KafkaSettings, data_topic
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._permissions import (
    DESCRIBE_CONFIGS,
    READ,
    WRITE,
    permitted_operations,
)
from streamq_kafka.requests._topic_admin import topic_configs

from ._brokers_examined import examine_brokers
from ._config_problems import (
    TopicProblem,
    compression_problems,
    counted,
    data_problems,
    directory_problems,
    replication_problems,
)

_CREATE = "run `streamq doctor --create`, or create it as the README of streamq-kafka says"
_ACLS = "add the ACLs that the README of streamq-kafka lists"


async def examine(
    cluster: Cluster, options: QueueOptions, settings: KafkaSettings
) -> list[Finding]:
    """Examine the cluster and the topics.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    name = data_topic(settings)
    topics = (name, directory_name(name))
    answers = f"it answers, with {counted(cluster.metadata.brokers, 'broker')}"
    findings = [Finding("cluster", True, answers)]
    of_brokers = await examine_brokers(cluster, is_idempotent=settings.idempotent)
    findings += of_brokers
    if sum(not each.ok for each in of_brokers) == cluster.metadata.brokers:
        return findings
    permitted = await _permitted(cluster, topics)
    of_data: Mapping[str, str] = {}
    for topic in topics:
        try:
            partitions = await cluster.metadata.partitions(topic, is_patient=False)
        except TopicMissing:
            findings.append(Finding(f"topic {topic}", False, "does not exist", _CREATE))
            continue
        except ke.TopicAuthorizationFailedError:
            why = "we may not see it, or it does not exist"
            findings.append(Finding(f"topic {topic}", False, why, f"{_ACLS}; or {_CREATE}"))
            continue
        configs = await topic_configs(cluster, topic)
        replicas = cluster.metadata.replicas(topic)
        seen = f"{counted(partitions, 'partition')}, {counted(replicas, 'replica')} each"
        if not configs:
            seen += "; its configuration is not visible (needs DescribeConfigs)"
        problems = _permission_problems(permitted.get(topic))
        problems += replication_problems(cluster.metadata.brokers, replicas, partitions, configs)
        problems += compression_problems(configs)
        if topic != name:
            problems += directory_problems(configs, of_data)
        else:
            of_data = configs
            ttl_ms = int(options.ttl.total_seconds() * 1_000)
            problems += data_problems(configs, ttl_ms, settings.batch_bytes)
        findings.append(Finding(f"topic {topic}", True, seen))
        findings += [
            Finding(
                f"topic {topic}",
                each.is_warning,
                each.detail,
                each.remedy,
                is_warning=each.is_warning,
            )
            for each in problems
        ]
    return findings + _quota_findings(cluster)


async def _permitted(cluster: Cluster, topics: Sequence[str]) -> Mapping[str, set[int]]:
    try:
        return await permitted_operations(cluster, topics)
    except NotImplementedError:
        return {}  # the brokers are too old to say


def _permission_problems(operations: set[int] | None) -> list[TopicProblem]:
    if operations is None:
        return []
    problems = []
    if READ not in operations:
        problems.append(TopicProblem("we may not read it", f"{_ACLS}: Read"))
    if WRITE not in operations:
        detail = "we may not write to it: enough for a gateway, not for a worker"
        problems.append(TopicProblem(detail, f"{_ACLS}: Write", is_warning=True))
    if DESCRIBE_CONFIGS not in operations:
        detail = "we may not see its configuration: the queue is not declared durable"
        problems.append(TopicProblem(detail, f"{_ACLS}: DescribeConfigs", is_warning=True))
    return problems


def _quota_findings(cluster: Cluster) -> list[Finding]:
    try:
        cluster.connections.brokers.throttling.raise_if_throttled()
    except Throttled as exc:
        remedy = "raise the quotas of this user and client id, or send less"
        return [Finding("quota", True, str(exc.args[0]), remedy, is_warning=True)]
    return []
