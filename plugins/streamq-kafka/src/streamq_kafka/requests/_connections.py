"""Opens and closes the connections to the brokers, and sends requests over them.

A broker answers the requests of one connection in order, so a long fetch delays every request
behind it. A process therefore has up to three connections to a broker, called lanes:
:data:`REQUEST_LANE` for requests that a broker answers at once, and :data:`LONG_FETCH_LANES`. To
change what a long fetch waits for, the caller sends a new one over the other lane and closes the
connection of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import aiokafka.errors as ke
from aiokafka.client import AIOKafkaClient

from streamq.driver import Guard
from streamq_kafka._naming import BACKEND
from streamq_kafka._settings import KafkaSettings

from ._access import BrokerAccess
from ._brokers import Brokers
from ._client import LOGIN_FAILED, REQUEST_LANE, AdaptedClient

LONG_FETCH_LANES = (1, 2)
"""The connections for fetches that a broker holds until it has records."""


class Connections:
    """The connections of one process for everything but producing.

    Args:
        settings: How to reach the cluster.

    Attributes:
        brokers: What is known of the cluster, shared with producers.
        client: aiokafka's client, which connects, logs in, encodes and decodes.
        guard: Ends calls when the connections are closed; by itself, aiokafka would wait or
            reconnect.
        on_replaced: Called when there is another cluster behind the configured servers.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        access = BrokerAccess(settings)
        self.brokers = Brokers(
            access, settings.connect_timeout_seconds, settings.operation_timeout_seconds
        )
        self.client = AIOKafkaClient(**access.client_options)
        self.on_replaced: Callable[[], None] = _do_nothing
        self._adapted = AdaptedClient(self.client, self.brokers, on_replaced=self._report_replaced)
        self.guard = Guard(BACKEND, seconds=math.inf)  # aiokafka limits each request

    async def open(self) -> None:
        """Connect to any broker.

        Raises:
            aiokafka.errors.KafkaError: No broker answers, or the reason why a broker refuses us.
            OSError: The network failed.
        """
        await self.client.bootstrap()

    async def close(self) -> None:
        """Close all connections. Calls under way fail with ``ClosedError``; idempotent."""
        self.guard.close()
        await self._adapted.close()

    def topic_error(self, topic: str) -> int:
        """Return the error code of a topic in the last metadata; 0 if there is none."""
        return self._adapted.topic_errors.get(topic, 0)

    def unanswered(self) -> ke.KafkaError:
        """Return the error for a request for metadata that no broker has answered."""
        failure = self._adapted.failure
        if isinstance(failure, LOGIN_FAILED):
            return failure
        return ke.NodeNotReadyError(f"no broker returned the metadata: {failure}")

    def current(self, node: int) -> object:
        """Return the connection for requests to a broker, to be compared with a later one."""
        return self.client._conns.get((node, REQUEST_LANE))

    async def versions(self, node: int) -> dict[int, tuple[int, int]]:
        """Return the smallest and largest version of each kind of request that a broker takes.

        Raises:
            ClosedError: The connections have been closed.
            aiokafka.errors.KafkaError: The broker cannot be reached, or did not answer in time.
        """
        async with self.guard():
            await self.client.ready(node)
        return dict(self.client._conns[node, REQUEST_LANE]._versions)

    def hang_up(self, node: int, lane: int) -> None:
        """Close the connection of a lane, so that its next request does not wait."""
        connection = self.client._conns.pop((node, lane), None)
        if connection is not None:
            connection.close()

    async def send(self, node: int, request: Any, lane: int = REQUEST_LANE) -> Any:
        """Send a request to a broker and return its answer.

        Raises:
            ClosedError: The connections have been closed.
            aiokafka.errors.KafkaError: The broker cannot be reached, or did not answer in time.
        """
        async with self.guard():
            return await self.client.send(node, request, group=lane)

    def _report_replaced(self) -> None:
        self.on_replaced()


def _do_nothing() -> None:
    return None
