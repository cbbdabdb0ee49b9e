"""The findings of ``streamq doctor`` about topics, and the topics that it creates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from aiokafka import codec

from kafka_brokers import Broker
from streamq.driver import START, AccessDeniedError, Entry, Finding, QueueOptions, StreamId
from streamq.testing import new_stream
from streamq_kafka import KafkaDriver, KafkaSettings
from streamq_kafka._naming import key_of
from streamq_kafka._queue import KafkaQueue
from streamq_kafka.embedded import TopicSpec

OPTIONS = QueueOptions(ttl=timedelta(hours=24))
STREAM = StreamId("tenant", "stream")


@pytest.fixture
async def topic(broker: Broker) -> AsyncIterator[str]:
    """Return the name of a topic that does not exist yet."""
    name = f"doctor-{new_stream().name}"
    yield name
    if broker.name == "apache":
        present = await broker.operator.topics()
        await broker.operator.delete(
            *(each for each in (name, f"{name}.directory") if each in present)
        )


def _problems(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if not finding.ok]


def _remarks(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if not finding.ok or finding.is_warning]


async def test_missing_topics_are_found_and_created(broker: Broker, topic: str) -> None:
    """One command turns an empty cluster into a working deployment."""
    settings = broker.settings(topic=topic, partitions=3)
    missing = _problems(await KafkaDriver.examine(OPTIONS, settings))
    assert [each.subject for each in missing] == [f"topic {topic}", f"topic {topic}.directory"]
    assert all("streamq doctor --create" in each.remedy for each in missing)
    created = await KafkaDriver.provision(OPTIONS, settings)
    assert len(created) == 2
    assert all("3 partitions" in line for line in created)
    assert _problems(await KafkaDriver.examine(OPTIONS, settings)) == []
    assert list(await KafkaDriver.provision(OPTIONS, settings)) == []
    queue = await KafkaDriver.open(OPTIONS, settings)
    assert isinstance(queue, KafkaQueue)
    async with queue:
        await queue.append(STREAM, [Entry(1, 0, b"open")])
        (stored,) = await queue.read(STREAM, START, max_records=9, max_bytes=99, max_wait=0)
        listing = queue._topics[topic].directory.peek(key_of(STREAM))
    assert stored.data == b"open"
    assert listing is not None
    assert abs(listing.written_ms - listing.created_ms) < 60_000


async def test_topic_that_would_lose_records_is_found(apache: Broker, topic: str) -> None:
    """A compacted topic keeps one record of each stream, which is noticed only when it matters."""
    await apache.operator.create(
        (TopicSpec(topic, 1),),
        settings={
            "cleanup.policy": "compact",
            "retention.ms": "60000",
            "max.message.bytes": "9000",
            "retention.bytes": "100000",
        },
    )
    await apache.operator.create((TopicSpec(f"{topic}.directory", 1),))
    findings = _remarks(await KafkaDriver.examine(OPTIONS, apache.settings(topic=topic)))
    said = "\n".join(f"{each.subject}: {each.detail}: {each.remedy}" for each in findings)
    for word in (
        "=delete",
        "retention.ms=60000",
        "max.message.bytes=9000",
        "retention.bytes=100000",
        "segment.ms=604800000: records",
        "LogAppendTime",
        "compact,delete",
    ):
        assert word in said
    assert all(finding.remedy for finding in findings)


async def test_directory_that_would_lose_streams_or_never_shrinks_is_found(
    apache: Broker, topic: str
) -> None:
    """Without its entry a stream cannot be found, though all of its records are there."""
    await apache.operator.create((TopicSpec(topic, 1),), settings={"retention.ms": "90000000"})
    await apache.operator.create(
        (TopicSpec(f"{topic}.directory", 1),),
        settings={
            "cleanup.policy": "compact,delete",
            "retention.ms": "90000000",
            "retention.bytes": "100000",
        },
    )
    findings = _remarks(await KafkaDriver.examine(OPTIONS, apache.settings(topic=topic)))
    said = [each.remedy for each in findings if each.subject.endswith(".directory")]
    assert said == [
        "reassign its partitions to 3 replicas, on 3 brokers",
        "set segment.ms=14400000",
        "set retention.ms=97200000",
        "set retention.bytes=-1",
        "set message.timestamp.type=LogAppendTime",
    ]


async def test_topic_that_only_others_can_read_is_found(
    apache: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers compress again what they get, and the first reader fails."""
    await apache.operator.create((TopicSpec(topic, 1),), settings={"compression.type": "zstd"})
    settings = apache.settings(topic=topic)
    found = _problems(await KafkaDriver.examine(OPTIONS, settings))
    assert not [each for each in found if "zstd" in each.detail]
    monkeypatch.setattr(codec, "cramjam", None)
    found = _problems(await KafkaDriver.examine(OPTIONS, settings))
    (problem,) = [each for each in found if "compression.type=zstd" in each.detail]
    assert "pip install 'streamq-kafka[compression]'" in problem.remedy


async def test_broker_whose_advertised_address_leads_nowhere_is_named(apache: Broker) -> None:
    """The first address works, so that everybody looks for the fault somewhere else."""
    settings = apache.settings(f"127.0.0.1:{apache.proxied_port}", operation_timeout_seconds=3.0)
    (problem,) = _problems(await KafkaDriver.examine(OPTIONS, settings))
    assert problem.subject == f"broker 1 at 127.0.0.1:{apache.advertised_port}"
    assert "advertised.listeners" in problem.remedy


async def test_operations_that_are_not_permitted_are_named(apache: Broker) -> None:
    """A gateway needs to read only, and a worker that may not write fails at its first chunk."""
    found = await KafkaDriver.examine(OPTIONS, apache.settings_of("reader"))
    assert _problems(found) == []
    said = [each.remedy for each in _remarks(found) if each.subject == "topic streamq"]
    assert [each.rpartition(": ")[2] for each in said if "ACLs" in each] == [
        "Write",
        "DescribeConfigs",
    ]
    found = await KafkaDriver.examine(OPTIONS, apache.settings_of("stranger"))
    assert [each.subject for each in _problems(found)] == [
        "topic streamq",
        "topic streamq.directory",
    ]


async def test_creating_without_permission_is_an_access_error(apache: Broker, topic: str) -> None:
    """Most developers may not create topics; the message has to name the missing permission."""
    settings = KafkaSettings(
        bootstrap_servers=apache.sasl_address,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="reader",
        sasl_password=apache.passwords["reader"],  # type: ignore[arg-type]
        topic=topic,
    )
    with pytest.raises(AccessDeniedError, match="ACLs"):
        await KafkaDriver.provision(OPTIONS, settings)


async def test_topics_of_a_tenant_are_those_of_the_configured_one(
    apache: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a topic for each tenant, the doctor examines the topics of the configured tenant."""
    name = new_stream().name
    monkeypatch.setenv("STREAMQ_TENANT", "acme")
    settings = apache.settings(topic=f"{name}-{{tenant}}", partitions=1)
    created = await KafkaDriver.provision(OPTIONS, settings)
    assert created[0].startswith(f"topic {name}-acme:")
    assert _problems(await KafkaDriver.examine(OPTIONS, settings)) == []
    await apache.operator.delete(f"{name}-acme", f"{name}-acme.directory")
