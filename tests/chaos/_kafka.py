"""Runs three brokers of Apache Kafka that replicate each other, each behind a link of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.apache_kafka import ApacheCluster, Operator

from streamq.devserver import free_port
from streamq_kafka.embedded import TopicSpec

from ._backend import Backend
from ._processes import ServerVictim
from ._schedule import FaultKind, Source

BROKERS = ("broker-1", "broker-2", "broker-3")
_TOPICS = (TopicSpec("streamq"), TopicSpec("streamq.directory", compacted=True))


class KafkaCluster(Backend):
    """Three brokers; what is acknowledged is on two of them. Killing one moves its partitions."""

    name = "kafka"
    links = tuple(f"link-{broker}" for broker in BROKERS)
    is_fenced = False
    streams_per_second = 1.5
    sources = (
        Source(6, FaultKind.KILL, BROKERS, 0.05, 1.5),
        Source(4, FaultKind.PAUSE, BROKERS, 0.2, 4.0),
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._listening = {link: free_port() for link in self.links}
        self._cluster = ApacheCluster(advertised_ports=list(self._listening.values()))
        brokers = self._cluster.brokers
        self._behind = dict(zip(self.links, brokers, strict=True))
        self.victims = {
            name: ServerVictim(name, broker) for name, broker in zip(BROKERS, brokers, strict=True)
        }

    def port_of(self, link: str) -> int:
        """Return the port at which a broker takes what comes through its link."""
        return self._behind[link].proxied_port

    def listen_port_of(self, link: str) -> int:
        """Return the port that the broker sends its clients to."""
        return self._listening.get(link, 0)

    def address_of(self, side: str, addresses: Mapping[str, str]) -> str:
        """Return the addresses of all brokers, the same ones for everybody."""
        return ",".join(addresses[link] for link in self.links)

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches the cluster."""
        return {
            "STREAMQ_KAFKA_BOOTSTRAP_SERVERS": address,
            # Short, so that half-open connections are detected many times within a run.
            "STREAMQ_KAFKA_CONNECT_TIMEOUT_SECONDS": "2",
            "STREAMQ_KAFKA_OPERATION_TIMEOUT_SECONDS": "3",
        }

    async def start(self) -> None:
        """Start the brokers, and create the topics."""
        await asyncio.to_thread(self._cluster.start)
        await Operator(self._cluster.bootstrap).create(_TOPICS, replicas=len(BROKERS))

    def stop(self) -> None:
        """Stop the brokers."""
        self._cluster.stop()
