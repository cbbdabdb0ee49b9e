"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import DeleteTopicsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from tests.apache_kafka import Operator
from tests.isolation import code_blocks, reveals_nothing, tells_whole_story, written_stream

from kafka_brokers import Broker, run_apart
from streamq.driver import ChunkQueue, QueueOptions, StreamId
from streamq.testing import OpenWith, new_stream
from streamq.testing._harness import LONG_TTL
from streamq.testing.checks import BasicChecks
from streamq_kafka import KafkaDriver, KafkaSettings
from streamq_kafka._naming import key_of
from test_kafka_conformance import KafkaHarness

TENANTS = ("acme", "globex")
COMMANDS, ENVIRONMENT = code_blocks("kafka")
_TOPIC_AUTHORIZATION_FAILED = 29


async def run_command(operator: Operator, command: str) -> None:
    """Do what a line of the page does, without a Java process for each."""
    program, *arguments = shlex.split(command)
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-server", required=True)
    if program == "kafka-configs.sh":
        parser.add_argument("--alter", action="store_true", required=True)
        parser.add_argument("--entity-type", choices=["users"], required=True)
        parser.add_argument("--entity-name", required=True)
        parser.add_argument("--add-config", required=True)
        found = parser.parse_args(arguments)
        password = found.add_config.removeprefix("SCRAM-SHA-512=[password=").removesuffix("]")
        await operator.set_password(found.entity_name, password)
    else:
        assert program == "kafka-acls.sh"
        parser.add_argument("--add", action="store_true", required=True)
        parser.add_argument("--allow-principal", required=True)
        parser.add_argument("--operation", action="append", required=True)
        parser.add_argument("--topic", action="append", required=True)
        found = parser.parse_args(arguments)
        await operator.permit(found.allow_principal, found.topic, found.operation)


def settings_of(broker: Broker, tenant: str, **options: Any) -> KafkaSettings:
    """Return the settings of the page, for a tenant of a broker."""
    lines = ENVIRONMENT.replace("acme", tenant).splitlines()
    start = "STREAMQ_KAFKA_"
    variables = dict(line.removeprefix(start).split("=", 1) for line in lines if start in line)
    known = {name.lower(): value for name, value in variables.items()}
    assert known["security_protocol"] == "SASL_SSL"
    return broker.settings(
        broker.sasl_tls_address, **known, tls_ca_file=str(broker.ca_file), **options
    )


async def make_tenant(broker: Broker, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the topics of a tenant as doctor does, and run the commands of the page."""
    monkeypatch.setenv("STREAMQ_TENANT", tenant)
    topic = settings_of(broker, tenant).topic
    await KafkaDriver.provision(
        QueueOptions(ttl=LONG_TTL),
        broker.settings(topic=topic, partitions=2, replication_factor=1),
    )
    monkeypatch.delenv("STREAMQ_TENANT")
    for command in COMMANDS.replace("acme", tenant).splitlines():
        await run_command(broker.operator, command)


@pytest.fixture(scope="module")
def tenants(apache: Broker) -> Broker:
    """Return the broker, with the tenants of the page."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for tenant in TENANTS:
            run_apart(make_tenant(apache, tenant, monkeypatch))
    return apache


async def test_tenant_can_do_everything_with_its_own_streams(
    tenants: Broker, open_with: OpenWith
) -> None:
    """Rights that lack something are widened in a hurry, and then to everything."""
    settings = settings_of(tenants, "acme")
    await tells_whole_story(await open_with(settings), await open_with(settings), "acme")


async def test_tenant_gets_nothing_of_another_through_the_driver(
    tenants: Broker, open_with: OpenWith
) -> None:
    """Not even whether a stream is there."""
    owner: ChunkQueue = await open_with(settings_of(tenants, "globex"))
    theirs = await written_stream(owner, "globex")
    before = await owner.describe(theirs, last=9)
    await reveals_nothing(await open_with(settings_of(tenants, "acme")), theirs)
    assert (await owner.describe(theirs, last=9)).last == before.last


async def test_tenant_gets_nothing_of_another_through_a_bare_client(
    tenants: Broker, open_with: OpenWith
) -> None:
    """Whoever has the password does not have to use streamq."""
    settings = settings_of(tenants, "acme")
    theirs = await written_stream(await open_with(settings_of(tenants, "globex")), "globex")
    client = {
        "bootstrap_servers": tenants.sasl_address,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),  # type: ignore[union-attr]
    }
    own = {settings.topic_of("acme"), f"{settings.topic_of('acme')}.directory"}
    others = [settings.topic_of(tenant) for tenant in ("globex", "absent")]
    others += [f"{topic}.directory" for topic in others]
    admin = AIOKafkaAdminClient(**client)
    await admin.start()
    try:
        assert set(await admin.list_topics()) == own
        assert await admin.list_consumer_groups() == []
        for topic in others:
            for answer in await answers(admin, topic, theirs):
                assert set(error_codes(answer)) - {0} == {_TOPIC_AUTHORIZATION_FAILED}
            with pytest.raises(TopicAuthorizationFailedError):
                await admin.create_partitions({topic: NewPartitions(99)})
    finally:
        await admin.close()


async def answers(admin: AIOKafkaAdminClient, topic: str, stream: StreamId) -> list[Any]:
    """Return what the brokers answer to each kind of request about a topic, as plain values."""
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 999)
    batch.append(0, 0, key_of(stream), b"x", [])
    requests = [
        FetchRequest(0, 0, 999, 0, [(topic, [(0, 0, 999)])]),
        OffsetRequest(-1, 0, [(topic, [(0, -2)])]),
        ProduceRequest(None, -1, 1_000, [(topic, [(0, bytes(batch.build()))])]),
        DeleteTopicsRequest([topic], 1_000),
    ]
    found = [(await admin._send_to_controller(request)).to_object() for request in requests]
    found += await admin.describe_topics([topic])
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    found += [each.to_object() for each in await admin.describe_configs([resource])]
    created = await admin.create_topics([NewTopic(topic, 1, 1)])
    return [*found, created.to_object()]


def error_codes(answer: Any) -> Iterator[int]:
    """Return every code of an error in an answer."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            if name == "error_code":
                yield value
            else:
                yield from error_codes(value)
    elif isinstance(answer, list | tuple):
        for each in answer:
            yield from error_codes(each)


class TenantHarness(KafkaHarness):
    """Logs in with the rights of the page."""

    tenant: str

    def settings_at(self, address: str, **options: Any) -> KafkaSettings:
        """Return settings of the tenant."""
        return settings_of(self.broker, self.tenant, **options)

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the values of all records with the stream's key."""
        topic = self.settings().topic_of(stream.tenant)
        _, records = await self.broker.operator.records(topic, key_of(stream))
        return [record.value for record in records]


@pytest.mark.full
class TestTenant(BasicChecks):
    """A sample of the conformance kit, with the rights of one tenant."""

    @pytest.fixture
    async def stream(self, apache: Broker, monkeypatch: pytest.MonkeyPatch) -> StreamId:
        """Return a stream of a tenant that the page's commands have made."""
        stream = new_stream()
        await make_tenant(apache, stream.tenant, monkeypatch)
        return stream

    @pytest.fixture
    def harness(self, tmp_path: Path, apache: Broker, stream: StreamId) -> TenantHarness:
        """Return a harness on the shared broker."""
        harness = TenantHarness(tmp_path, apache)
        harness.tenant = stream.tenant
        return harness
