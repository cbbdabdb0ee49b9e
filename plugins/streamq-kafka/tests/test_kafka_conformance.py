"""The contract of drivers, on genuine Apache Kafka and on the broker of the demo."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kafka_brokers import Broker
from streamq.devserver import free_port
from streamq.driver import StreamId
from streamq.testing import BackendHarness, DriverSuite, FaultProxy
from streamq_kafka import KafkaDriver, KafkaSettings


class KafkaHarness(BackendHarness):
    """A broker that all checks share, behind a proxy of the check's.

    There is no ``full``: a broker whose disk is full stops, so that nobody is told anything.
    """

    driver = KafkaDriver
    answer_seconds = 10.0

    def __init__(self, directory: Path, broker: Broker) -> None:
        super().__init__(directory)
        self.broker = broker
        self.proxy = FaultProxy(
            "127.0.0.1", broker.proxied_port, listen_port=broker.advertised_port
        )

    @property
    def label(self) -> str:
        """Say which broker it is."""
        return f"kafka ({self.broker.label})"

    def settings(self, address: str = "", **options: Any) -> KafkaSettings:
        """Return settings that lead to the broker, with deadlines that suit a test."""
        deadlines = {"connect_timeout_seconds": 2.0, "operation_timeout_seconds": 4.0}
        return self.broker.settings(address or self.proxy.address, **{**deadlines, **options})

    async def start(self) -> None:
        """Put a proxy in front of the broker, where it says that it is."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Take the proxy away."""
        await self.proxy.aclose()

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the values of all records with the stream's key."""
        _, records = await self.broker.operator.records("streamq", str(stream).encode())
        return [record.value for record in records]

    async def break_connections(self) -> None:
        """Reset them at both ends."""
        self.proxy.cut()

    @asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        """Keep every answer back, and every request."""
        self.proxy.delay_seconds = seconds / 2
        try:
            yield
        finally:
            self.proxy.heal()

    async def restart(self) -> None:
        """Kill the broker and start it again on its log."""
        self.broker.server.kill()
        await asyncio.to_thread(self.broker.server.start)

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Stop the process: the kernel accepts connections, and nobody answers."""
        os.kill(self.broker.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.broker.server.pid, signal.SIGCONT)

    def unreachable(self) -> KafkaSettings:
        """Return settings for a port where nobody listens."""
        return self.settings(f"127.0.0.1:{free_port()}")


class ApacheHarness(KafkaHarness):
    """What only the genuine broker can do: remove records, and ask for credentials."""

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Delete the oldest records of the partition, as an operator would."""
        operator = self.broker.operator
        partition, records = await operator.records("streamq", str(stream).encode())
        await operator.trim(partition, records[-keep].offset)

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[KafkaSettings]:
        """Log in as somebody who may not write."""
        yield self._as("reader", self.broker.passwords["reader"])

    def wrong_credentials(self) -> tuple[KafkaSettings, str]:
        """Log in with a password that nobody has."""
        secret = "s3cr3t-of-nobody"
        return self._as("writer", secret), secret

    def _as(self, name: str, password: str) -> KafkaSettings:
        return self.settings(
            self.broker.sasl_address,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username=name,
            sasl_password=password,
        )


class TestApacheKafka(DriverSuite):
    """All that the driver declares, on the real thing."""

    @pytest.fixture
    def harness(self, tmp_path: Path, apache: Broker) -> ApacheHarness:
        """Return a harness on the shared broker."""
        return ApacheHarness(tmp_path, apache)


class TestTansu(DriverSuite):
    """The same on the broker of the demo, which keeps nothing and deletes no records."""

    @pytest.fixture
    def harness(self, tmp_path: Path, tansu_behind_proxy: Broker) -> KafkaHarness:
        """Return a harness on a broker of the suite's own."""
        return KafkaHarness(tmp_path, tansu_behind_proxy)
