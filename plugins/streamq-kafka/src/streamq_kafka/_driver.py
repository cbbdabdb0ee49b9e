"""Opens queues, and connects the driver to ``streamq doctor`` and ``streamq demo``.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    ConfigurationError,
    Driver,
    Finding,
    LatencyClass,
    QueueOptions,
    close_all,
)

from ._errors import TopicMissing, kafka_errors, translator
from ._naming import BACKEND, directory_name
from ._queue import KafkaQueue
from ._settings import KafkaSettings, data_topic
from ._writing import LARGEST_RECORD_BYTES
from .doctor._config_problems import SMALLEST_MESSAGE_BYTES
from .doctor._creation import provision
from .doctor._findings import examine
from .embedded import EmbeddedKafka, TopicSpec
from .requests._cluster import Cluster
from .requests._topic_admin import TopicLimits, topic_limits

_RECORD_OVERHEAD_BYTES = 2_048
"""What a batch contains in addition to the data of one record: batch header, key, headers."""


class KafkaDriver(Driver[KafkaSettings]):
    """Stores many streams on the partitions of one topic, with a directory in a second topic."""

    name = BACKEND
    summary = "Kafka: many machines, a few milliseconds, streams on shared topics"
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=False,
        durable=True,
        cross_process=True,
        cross_host=True,
        expires=False,
        erases=False,
        max_record_bytes=LARGEST_RECORD_BYTES,
        latency=LatencyClass.MILLISECONDS,
    )
    settings_type = KafkaSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: KafkaSettings) -> ChunkQueue:
        """Connect, and check that the topics exist.

        ``durable`` and ``max_record_bytes`` follow from the topic's configuration, if we may read
        it (``DescribeConfigs``). Otherwise the queue is not declared durable, and
        ``max_record_bytes`` is Kafka's default.

        Raises:
            BackendUnavailableError: No broker can be reached in time.
            AccessDeniedError: The brokers refuse our credentials.
            ConfigurationError: A topic does not exist, its messages are limited to too few bytes,
                or a file cannot be used.
        """
        async with _connected(settings) as cluster:
            limits = TopicLimits()
            if not settings.is_per_tenant:
                try:
                    await cluster.metadata.partitions(settings.topic)
                    await cluster.metadata.partitions(directory_name(settings.topic))
                except TopicMissing as exc:
                    raise ConfigurationError(
                        str(translator(settings.bootstrap_servers)(exc, None)), backend=BACKEND
                    ) from exc
                limits = await topic_limits(cluster, settings.topic)
            if limits.max_message_bytes < SMALLEST_MESSAGE_BYTES:
                raise ConfigurationError(
                    f"topic {settings.topic!r} has max.message.bytes={limits.max_message_bytes}; "
                    f"streamq needs {SMALLEST_MESSAGE_BYTES} at least: raise it",
                    backend=BACKEND,
                )
        room = limits.max_message_bytes - _RECORD_OVERHEAD_BYTES
        capabilities = dataclasses.replace(
            cls.capabilities,
            durable=limits.is_durable,
            max_record_bytes=min(LARGEST_RECORD_BYTES, room),
        )
        return KafkaQueue(settings, capabilities, cluster, limits.max_message_bytes)

    @classmethod
    async def examine(cls, options: QueueOptions, settings: KafkaSettings) -> Sequence[Finding]:
        """Examine the topics and their configuration.

        Raises:
            BackendUnavailableError: No broker can be reached in time.
            AccessDeniedError: The brokers refuse our credentials.
        """
        async with _connected(settings) as cluster:
            findings = await examine(cluster, options, settings)
        await close_all(cluster.close)
        return findings

    @classmethod
    async def provision(cls, options: QueueOptions, settings: KafkaSettings) -> Sequence[str]:
        """Create the topics that are missing, with the partitions and replicas in the settings.

        Raises:
            BackendUnavailableError: No broker can be reached in time.
            AccessDeniedError: The brokers refuse our credentials, or we may not create topics.
            BackendError: The brokers refuse it for another reason.
        """
        async with _connected(settings) as cluster:
            created = await provision(cluster, options, settings)
        await close_all(cluster.close)
        return created

    @classmethod
    def embedded(
        cls, settings: KafkaSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an embedded broker, unless brokers are configured."""
        return None if "bootstrap_servers" in settings.model_fields_set else _embedded(settings)


@contextlib.asynccontextmanager
async def _connected(settings: KafkaSettings) -> AsyncIterator[Cluster]:
    """Yield a connected cluster. It stays open after the block, unless the block fails."""
    cluster = Cluster(settings)
    try:
        with kafka_errors(settings.bootstrap_servers):
            await cluster.start()
            yield cluster
    except BaseException:
        await close_all(cluster.close)
        raise


@contextlib.contextmanager
def _embedded(settings: KafkaSettings) -> Iterator[Mapping[str, str]]:
    topic = data_topic(settings)
    topics = (
        TopicSpec(topic, settings.partitions),
        TopicSpec(directory_name(topic), settings.partitions, compacted=True),
    )
    with EmbeddedKafka(topics=topics) as broker:
        yield broker.environment
