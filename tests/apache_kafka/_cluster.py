"""Runs several processes of Apache Kafka that form one cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from streamq.devserver import READY_POLL_SECONDS, free_port

from ._broker import ApacheKafka


class ApacheCluster:
    """A loopback cluster of Apache Kafka; every node is broker and controller.

    New topics have a replica on each of up to three nodes. A record that was acknowledged with
    ``acks=all`` is on two of them.

    Args:
        size: How many nodes.
        advertised_ports: Ports of proxies in front of the nodes, in the order of their numbers. A
            node has then also a listener, ``proxied_port``, that sends its clients to these.
        properties: More settings of every node; they override all others.

    Attributes:
        brokers: The nodes, from number 1; each may be killed and started by itself.
    """

    def __init__(
        self,
        *,
        size: int = 3,
        advertised_ports: Sequence[int] = (),
        properties: Mapping[str, str] | None = None,
    ) -> None:
        numbers = range(1, size + 1)
        voters = {number: free_port() for number in numbers}
        defaults = {
            "default.replication.factor": str(min(size, 3)),
            "min.insync.replicas": str(min(size, 2)),
        }
        self.brokers = [
            ApacheKafka(
                port=free_port(),
                advertised_port=advertised_ports[number - 1] if advertised_ports else None,
                node_id=number,
                voters=voters,
                properties={**defaults, **(properties or {})},
            )
            for number in numbers
        ]

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, for clients to connect to."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> Self:
        """Start all nodes and wait until each serves.

        Raises:
            ConfigurationError: There is no Java, or no Kafka.
            BackendUnavailableError: A node does not start; the message ends with its log.
        """
        try:
            with ThreadPoolExecutor(len(self.brokers)) as threads:
                for launched in [threads.submit(broker.launch) for broker in self.brokers]:
                    launched.result()
            for broker in self.brokers:
                while not broker.is_ready():
                    time.sleep(READY_POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill all nodes and remove their files. Idempotent."""
        for broker in self.brokers:
            broker.kill()
        for broker in self.brokers:
            broker.stop()

    def broker(self, node_id: int) -> ApacheKafka:
        """Return the node of a number, such as the leader of a partition."""
        return next(broker for broker in self.brokers if broker.node_id == node_id)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()
