"""Helpers for the tests of the Kafka backend: running brokers, and how to reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.apache_kafka import ApacheCluster, ApacheKafka, Operator, class_path, find_java
from tests.programs import missing

from streamq import ConfigurationError
from streamq.driver import ChunkQueue, StreamId
from streamq.testing import new_stream
from streamq_kafka import KafkaSettings
from streamq_kafka._naming import key_of, partition_of
from streamq_kafka._queue import KafkaQueue
from streamq_kafka.embedded import FETCH_WAIT_MS, EmbeddedKafka, TopicSpec

TOPICS = (TopicSpec("streamq"), TopicSpec("streamq.directory", compacted=True))
PASSWORDS = {
    "writer": "s3cr3t-of-writer",
    "reader": "s3cr3t-of-reader",
    "stranger": "s3cr3t-of-stranger",
}

StartCluster: TypeAlias = Callable[..., ApacheCluster]
"""Starts three genuine brokers with the topics of the driver."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files.

    Attributes:
        authority: The certificate that both sides trust.
        broker: A key with the certificate of loopback.
        writer: A key with the certificate of the user ``writer``.
        reader: A key with the certificate of the user ``reader``.
    """

    authority: Path
    broker: Path
    writer: Path
    reader: Path


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker with the topics of the driver.

    Attributes:
        name: ``apache`` or ``tansu``.
        label: Its name with its version.
        server: The process.
        proxied_port: The port that a proxy connects to.
        advertised_port: The port that such a proxy has to listen on: clients are sent there.
        ca_file: The authority of the TLS listener's certificate, if there is such a listener.
    """

    name: str
    label: str
    server: ApacheKafka | EmbeddedKafka
    proxied_port: int
    advertised_port: int
    ca_file: Path | None = None

    @property
    def sasl_address(self) -> str:
        """The listener that needs credentials."""
        assert isinstance(self.server, ApacheKafka)
        return f"127.0.0.1:{self.server.sasl_port}"

    @property
    def tls_address(self) -> str:
        """The listener with TLS, with a certificate of ``ca_file``."""
        assert isinstance(self.server, ApacheKafka)
        return f"127.0.0.1:{self.server.tls_port}"

    @property
    def sasl_tls_address(self) -> str:
        """The listener that needs credentials, with TLS."""
        assert isinstance(self.server, ApacheKafka)
        return f"127.0.0.1:{self.server.sasl_tls_port}"

    @property
    def passwords(self) -> Mapping[str, str]:
        """Passwords by user: ``writer`` may do everything, ``reader`` may read, ``stranger`` may
        nothing."""
        return PASSWORDS

    def settings_of(self, user: str, **options: Any) -> KafkaSettings:
        """Return settings to log in as a user."""
        return self.settings(
            self.sasl_address,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username=user,
            sasl_password=PASSWORDS[user],
            **options,
        )

    @property
    def operator(self) -> Operator:
        """A plain client, without the driver."""
        return Operator(self.server.address)

    def settings(self, address: str = "", **options: Any) -> KafkaSettings:
        """Return settings that lead to the broker, or to an address in front of it."""
        known: dict[str, Any] = {"bootstrap_servers": address or self.server.address}
        if self.name == "tansu":
            known |= {"idempotent": False, "fetch_wait_ms": FETCH_WAIT_MS}
        return KafkaSettings(**{**known, **options})


def run_apart(job: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine in a loop of its own, for fixtures that must not use the test's loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, job).result()


def neighbours(count: int) -> list[StreamId]:
    """Return new streams that share one partition."""
    found: list[StreamId] = []
    while len(found) < count:
        stream = new_stream()
        if partition_of(key_of(stream), 12) == 3:
            found.append(stream)
    return found


def hang_up(queue: ChunkQueue) -> None:
    """Break all connections of a queue, as a load balancer or an administrator does."""
    assert isinstance(queue, KafkaQueue)
    clients = [queue._cluster.connections.client]
    if (producer := queue._producer._producer.current) is not None:
        clients.append(producer.client)
    for client in clients:
        for connection in tuple(client._conns.values()):
            connection.close()


def need_apache() -> None:
    """Skip the test if Apache Kafka cannot be started on this machine."""
    try:
        find_java()
        class_path()
    except ConfigurationError as exc:
        missing(str(exc))
