"""The driver contract, on genuine Apache Kafka and on the broker of the demo."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from tests.apache_kafka import ApacheKafka

from kafka_brokers import Broker
from streamq.driver import StreamId
from streamq.testing import DriverSuite, ServerHarness
from streamq_kafka import KafkaDriver, KafkaSettings
from streamq_kafka._naming import key_of
from streamq_kafka.directory._listing import Listing
from streamq_kafka.embedded import EmbeddedKafka


class KafkaHarness(ServerHarness[ApacheKafka | EmbeddedKafka, KafkaSettings]):
    """A broker that all checks share, behind a proxy of each check.

    There is no ``full``: a broker whose disk is full stops, so that no call gets an error from it.
    """

    driver = KafkaDriver
    answer_seconds = 10.0

    def __init__(self, directory: Path, broker: Broker) -> None:
        super().__init__(
            directory,
            broker.server,
            port=broker.proxied_port,
            listen_port=broker.advertised_port,
        )
        self.broker = broker

    @property
    def label(self) -> str:
        """The name of the broker."""
        return f"kafka ({self.broker.label})"

    def settings_at(self, address: str, **options: Any) -> KafkaSettings:
        """Return settings that lead to an address, with deadlines that suit a test."""
        deadlines = {"connect_timeout_seconds": 2.0, "operation_timeout_seconds": 4.0}
        return self.broker.settings(address, **{**deadlines, **options})

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the values of all records with the stream's key."""
        _, records = await self.broker.operator.records("streamq", key_of(stream))
        return [record.value for record in records]

    async def plant(self, tenant: str) -> None:
        """Write entries of the directory, and records, under keys that are those of no stream."""
        start = f"{tenant}/".encode()
        entry = Listing(0, 0, 1, 1).encode()
        producer = AIOKafkaProducer(bootstrap_servers=self.server.address)
        await producer.start()
        try:
            for name in (b"", b"l\xff", b"x\xed\xa0\x80", b"a" + b"n" * 2_000):
                for topic in ("streamq", "streamq.directory"):
                    await producer.send_and_wait(topic, entry, key=start + name)
            await producer.send_and_wait("streamq.directory", b"{}", key=start + b"ab")
        finally:
            await producer.stop()


class ApacheHarness(KafkaHarness):
    """Adds what only the genuine broker can do: remove records, and ask for credentials."""

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Delete the oldest records of the partition, as an operator would."""
        operator = self.broker.operator
        partition, records = await operator.records("streamq", key_of(stream))
        await operator.trim(partition, records[-keep].offset)

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[KafkaSettings]:
        """Log in as a user who may not write."""
        yield self._as("reader", self.broker.passwords["reader"])

    def wrong_credentials(self) -> tuple[KafkaSettings, str]:
        """Log in with a wrong password."""
        secret = "s3cr3t-of-nobody"
        return self._as("writer", secret), secret

    def _as(self, name: str, password: str) -> KafkaSettings:
        return self.settings_at(
            self.broker.sasl_address,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username=name,
            sasl_password=password,
        )


class TestApacheKafka(DriverSuite):
    """Everything that the driver declares, on genuine Apache Kafka."""

    @pytest.fixture
    def harness(self, tmp_path: Path, apache: Broker) -> ApacheHarness:
        """Return a harness on the shared broker."""
        return ApacheHarness(tmp_path, apache)


@pytest.mark.full
class TestTansu(DriverSuite):
    """The same on the broker of the demo, which stores nothing on disk and deletes no records."""

    @pytest.fixture
    def harness(self, tmp_path: Path, tansu_behind_proxy: Broker) -> KafkaHarness:
        """Return a harness on a broker that only this suite uses."""
        return KafkaHarness(tmp_path, tansu_behind_proxy)
