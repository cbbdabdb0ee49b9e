"""Knows the partitions of topics, the leader of each partition, and the brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka._errors import TopicMissing
from streamq_kafka._naming import partition_label

from ._connections import Connections
from ._error_codes import error_of

T = TypeVar("T")

# A topic that was created a moment ago, or is created anew, is not known to every broker yet.
_MISSING_AGAIN_SECONDS = (0.0, 0.1, 0.4, 0.5, 1.0, 1.0)
_NOT_HERE = (ke.NoError.errno, ke.UnknownTopicOrPartitionError.errno)


class Metadata:
    """The cluster's metadata, requested again when an answer contradicts it.

    Args:
        connections: To request it over.
        timeout_seconds: Longest time for a request.
    """

    def __init__(self, connections: Connections, timeout_seconds: float) -> None:
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._patience = 0.7 * timeout_seconds  # callers have to get the reason, not a time-out
        self._topics: set[str] = set()
        self._is_stale = False

    async def partitions(self, topic: str, *, is_patient: bool = True) -> int:
        """Return how many partitions a topic has.

        Args:
            topic: The topic.
            is_patient: Whether to wait some seconds for a topic that is not there.

        Raises:
            TopicMissing: It does not exist.
            aiokafka.errors.KafkaError: We may not see it, or no broker answers.
        """
        client = self._connections.client
        metadata = client.cluster
        if topic not in self._topics:
            self._topics.add(topic)
            self._is_stale = True
            client.add_topic(topic)
        found = metadata.partitions_for_topic(topic)
        waited = 0.0
        for pause in _MISSING_AGAIN_SECONDS if is_patient else (0.0, 0.5):
            waited += pause
            if found or topic in metadata.unauthorized_topics or waited > self._patience:
                break
            async with self._connections.guard():
                await asyncio.sleep(pause)
            await self._refresh()
            found = metadata.partitions_for_topic(topic)
        if not found:
            if topic in metadata.unauthorized_topics:
                raise ke.TopicAuthorizationFailedError(topic)
            # Later requests for metadata must not include it.
            self._topics.discard(topic)
            client._topics.discard(topic)
            code = self._connections.topic_error(topic)
            raise TopicMissing(topic) if code in _NOT_HERE else error_of(code, topic)
        return len(found)

    async def leader(self, partition: TopicPartition) -> int:
        """Return the broker that leads a partition.

        Raises:
            TopicMissing: The topic no longer exists.
            aiokafka.errors.LeaderNotAvailableError: The partition has no leader now.
        """
        if self._is_stale or self.known_leader(partition) is None:
            await self._refresh()
        node = self.known_leader(partition)
        if node is None:
            await self.partitions(partition.topic)
            raise _leaderless(partition)
        return node

    def known_leader(self, partition: TopicPartition) -> int | None:
        """Return the leader that was named last, without a request."""
        node: int | None = self._connections.client.cluster.leader_for_partition(partition)
        return None if node == -1 else node

    async def by_leader(
        self, partitions: Iterable[TopicPartition]
    ) -> tuple[dict[int, list[TopicPartition]], dict[TopicPartition, Exception]]:
        """Return the partitions of each leader, and an error for each partition without one."""
        partitions = list(partitions)
        if self._is_stale or any(self.known_leader(each) is None for each in partitions):
            try:
                await self._refresh()
            except (ke.KafkaError, TimeoutError) as exc:
                return {}, dict.fromkeys(partitions, exc)
        by_node: dict[int, list[TopicPartition]] = {}
        failed: dict[TopicPartition, Exception] = {}
        for partition in partitions:
            node = self.known_leader(partition)
            if node is not None:
                by_node.setdefault(node, []).append(partition)
            elif self._connections.client.cluster.partitions_for_topic(partition.topic):
                failed[partition] = _leaderless(partition)
            else:
                failed[partition] = ke.UnknownTopicOrPartitionError(partition.topic)
        return by_node, failed

    def invalidate(self) -> None:
        """Request metadata again before the next request: an answer contradicted it."""
        self._is_stale = True

    async def explain(
        self, error: ke.KafkaError, topic: str, *, is_patient: bool = True
    ) -> ke.KafkaError:
        """Return the cause of an error: an unknown topic may be deleted, or its leader moving.

        This takes some seconds, so call it where no other task waits for the answer.
        """
        self._is_stale = True
        if isinstance(error, ke.UnknownTopicOrPartitionError):
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._refresh()
                    await self.partitions(topic, is_patient=is_patient)
            except ke.KafkaError as exc:
                return exc
            except TimeoutError:
                return error
        return error

    @property
    def brokers(self) -> int:
        """How many brokers there are."""
        return len(self._connections.client.cluster.brokers())

    def addresses(self) -> dict[int, str]:
        """Return the advertised address of each broker."""
        return {
            broker.nodeId: f"{broker.host}:{broker.port}"
            for broker in self._connections.client.cluster.brokers()
        }

    def replicas(self, topic: str) -> int:
        """Return the smallest number of replicas of the partitions of a topic."""
        partitions = self._connections.client.cluster._partitions.get(topic, {}).values()
        return min((len(partition.replicas) for partition in partitions), default=0)

    async def refresh(self) -> None:
        """Request the metadata.

        Raises:
            aiokafka.errors.KafkaError: No broker returned it.
            TimeoutError: There was no answer in time.
        """
        await self._refresh()

    def controller(self) -> int:
        """Return the controller of the cluster; any broker if no controller is known."""
        client = self._connections.client
        controller = client.cluster.controller
        node: int = client.get_random_node() if controller is None else controller.nodeId
        return node

    def controller_and_others(self) -> list[int]:
        """Return all brokers, the controller first; with KRaft all of them pass requests on."""
        first = self.controller()
        return [first, *(node for node in self.addresses() if node != first)]

    async def _refresh(self) -> None:
        client = self._connections.client
        async with asyncio.timeout(self._timeout_seconds), self._connections.guard():
            if not await client.force_metadata_update():
                raise self._connections.unanswered()
        self._is_stale = False


def _leaderless(partition: TopicPartition) -> ke.KafkaError:
    return ke.LeaderNotAvailableError(f"{partition_label(partition)} has no leader")
