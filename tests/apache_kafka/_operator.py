"""Does the work of an operator without the driver: topics, permissions, reading the log."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import for_code
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.protocol.admin import CreateAclsRequest

from streamq_kafka.embedded import TopicSpec

from ._requests import AlterQuotas, AlterScramUsers

_TOPIC, _LITERAL, _ALLOW = 2, 3, 3
_OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}
_SHA_512, _ITERATIONS = 2, 4_096
_choose = DefaultPartitioner()


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it is in the log of a partition."""

    offset: int
    value: bytes


class Operator:
    """A plain client with all permissions.

    Args:
        bootstrap: The addresses of brokers, as host:port,host:port.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    async def create(
        self,
        topics: Sequence[TopicSpec],
        *,
        replicas: int = 1,
        nodes: Sequence[int] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Create topics and wait until all partitions are served; existing topics stay as they are.

        Args:
            topics: The topics.
            replicas: How many replicas each partition has, on nodes that the cluster chooses.
            nodes: Used instead of ``replicas``: every one of these nodes has a replica of each
                partition. They lead the partitions in turn, in every topic the same ones.
            settings: The configuration of the topics, by Kafka's names.
        """
        wanted = [
            NewTopic(
                topic.name,
                *((-1, -1) if nodes else (topic.partitions, replicas)),
                replica_assignments=_by_turns(topic.partitions, nodes) if nodes else None,
                topic_configs={**(settings or {})}
                | ({"cleanup.policy": "compact"} if topic.compacted else {}),
            )
            for topic in topics
        ]
        async with self._admin() as admin:
            present = set(await admin.list_topics())
            answer: Any = await admin.create_topics(
                [topic for topic in wanted if topic.name not in present]
            )
            for _, code, message in answer.topic_errors:
                if code:
                    raise for_code(code)(message)
        async with self._consumer() as consumer:
            for topic in topics:
                # This repeats its request until the leaders know the topic, which takes a moment.
                await consumer.end_offsets(await self._partitions(consumer, topic.name))

    async def delete(self, *topics: str) -> None:
        """Delete topics."""
        async with self._admin() as admin:
            answer: Any = await admin.delete_topics(list(topics))
            for _, code in answer.topic_error_codes:
                if code:
                    raise for_code(code)()

    async def topics(self) -> list[str]:
        """Return the names of all topics, including the internal ones of the cluster."""
        async with self._admin() as admin:
            return list(await admin.list_topics())

    async def records(self, topic: str, key: bytes) -> tuple[TopicPartition, list[LogRecord]]:
        """Return the partition of a key, and its records there, oldest first."""
        found: list[LogRecord] = []
        async with self._consumer() as consumer:
            numbers = [each.partition for each in await self._partitions(consumer, topic)]
            partition = TopicPartition(topic, _choose(key, numbers, numbers))
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            end = (await consumer.end_offsets([partition]))[partition]
            while await consumer.position(partition) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += (LogRecord(r.offset, r.value) for r in records if r.key == key)
        return partition, found

    async def trim(self, partition: TopicPartition, before: int) -> None:
        """Delete all records of a partition before an offset."""
        async with self._admin() as admin:
            await admin.delete_records({partition: RecordsToDelete(before_offset=before)})

    async def leader(self, partition: TopicPartition) -> int:
        """Return the number of the node that leads a partition; -1 if there is none."""
        return int((await self._describe(partition))["leader"])

    async def in_sync(self, partition: TopicPartition) -> list[int]:
        """Return the numbers of the nodes whose replica of a partition is in sync."""
        return list((await self._describe(partition))["isr"])

    async def permit_reading(self, user: str, topics: Sequence[str]) -> None:
        """Allow a user to read topics, and nothing else."""
        await self.permit(f"User:{user}", topics, ("Read", "Describe"))

    async def permit(
        self, principal: str, topics: Sequence[str], operations: Sequence[str]
    ) -> None:
        """Allow a principal operations on topics, by the names that Kafka's tools give them."""
        requests = [
            CreateAclsRequest(
                _TOPIC, topic, _LITERAL, principal, "*", _OPERATIONS[operation], _ALLOW
            )
            for topic in topics
            for operation in operations
        ]
        async with self._admin() as admin:
            for request in requests:
                answer = await admin._send_to_controller(request)
                for code, message in answer.creation_responses:
                    if code:
                        raise for_code(code)(message)

    async def limit(self, client_id: str, quota: str, value: float | None) -> None:
        """Set a quota of a client id, such as ``producer_byte_rate``; ``None`` removes it."""
        entity = [("client-id", client_id)]
        request = AlterQuotas([(entity, [(quota, value or 0.0, value is None)])])
        async with self._admin() as admin:
            answer = await admin._send_to_controller(request)
            for code, message, _ in answer.entries:
                if code:
                    raise for_code(code)(message)

    async def set_password(self, user: str, password: str) -> None:
        """Set the password of a user for SCRAM-SHA-512."""
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
        async with self._admin() as admin:
            answer = await admin._send_to_controller(
                AlterScramUsers([(user, _SHA_512, _ITERATIONS, salt, salted)])
            )
            for _, code, message, *_ in answer.results:
                if code:
                    raise for_code(code)(message)

    async def configure(self, topic: str, settings: Mapping[str, str]) -> None:
        """Replace the configuration of a topic."""
        async with self._admin() as admin:
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, dict(settings))
            answers: Any = await admin.alter_configs([resource])
            for answer in answers:
                for code, message, *_ in answer.resources:
                    if code:
                        raise for_code(code)(message)

    async def _describe(self, partition: TopicPartition) -> dict[str, Any]:
        async with self._admin() as admin:
            (topic,) = await admin.describe_topics([partition.topic])
            found: dict[str, Any] = next(
                each for each in topic["partitions"] if each["partition"] == partition.partition
            )
            return found

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
            max_partition_fetch_bytes=8 * 2**20,
        )
        async with consumer:
            yield consumer

    async def _partitions(self, consumer: Any, topic: str) -> list[TopicPartition]:
        # A consumer does not request metadata of a topic that it is not assigned to.
        await consumer._client.add_topic(topic)
        while not (numbers := consumer.partitions_for_topic(topic)):
            await consumer._client.force_metadata_update()  # a new topic is not known at once
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


def _by_turns(partitions: int, nodes: Sequence[int]) -> dict[int, list[int]]:
    """Return the nodes of each partition, the one that leads first."""
    count = len(nodes)
    return {p: [nodes[(p + i) % count] for i in range(count)] for p in range(partitions)}
