"""The driver: opens queues on a cluster that can carry them."""

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
)

from ._admin import TopicFacts, data_topic, examine, look_up, provision
from ._cluster import Cluster
from ._errors import TopicMissing, kafka_errors, to_streamq
from ._positions import BACKEND
from ._producer import LARGEST_RECORD_BYTES
from ._queue import KafkaQueue
from ._settings import KafkaSettings
from ._topic import directory_name
from .embedded import EmbeddedKafka, Topic

_RECORD_OVERHEAD_BYTES = 2_048
"""What a batch needs beside one record: its header, the key, the headers."""

_SMALLEST_MESSAGE_BYTES = 4_096 + _RECORD_OVERHEAD_BYTES
"""What a topic has to take, so that there is room for the smallest record that streamq packs."""


class KafkaDriver(Driver[KafkaSettings]):
    """Many streams on the partitions of one topic, with a directory beside it."""

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
        """Connect, and check that the topics are there.

        ``durable`` and ``max_record_bytes`` are promised by what the topic's configuration says, if
        we may see it (``DescribeConfigs``); else the first is not, and the second is Kafka's
        default.

        Raises:
            BackendUnavailableError: No broker can be reached in time.
            AccessDeniedError: They refuse our credentials.
            ConfigurationError: A topic does not exist or takes too small messages, or a file cannot
                be used.
        """
        async with _connected(settings) as cluster:
            facts = TopicFacts()
            if not settings.is_per_tenant:
                try:
                    await cluster.partitions(settings.topic)
                    await cluster.partitions(directory_name(settings.topic))
                except TopicMissing as exc:
                    raise ConfigurationError(
                        str(to_streamq(exc, settings.bootstrap_servers)), backend=BACKEND
                    ) from exc
                facts = await look_up(cluster, settings.topic)
            if facts.max_message_bytes < _SMALLEST_MESSAGE_BYTES:
                raise ConfigurationError(
                    f"topic {settings.topic!r} has max.message.bytes={facts.max_message_bytes}; "
                    f"streamq needs {_SMALLEST_MESSAGE_BYTES} at least: raise it",
                    backend=BACKEND,
                )
        limit = min(LARGEST_RECORD_BYTES, facts.max_message_bytes - _RECORD_OVERHEAD_BYTES)
        capabilities = dataclasses.replace(
            cls.capabilities, durable=facts.is_durable, max_record_bytes=limit
        )
        return KafkaQueue(settings, capabilities, cluster, facts.max_message_bytes)

    @classmethod
    async def examine(cls, options: QueueOptions, settings: KafkaSettings) -> Sequence[Finding]:
        """Look at the topics and what they are configured with.

        Raises:
            BackendUnavailableError: No broker can be reached in time.
            AccessDeniedError: They refuse our credentials.
        """
        async with _connected(settings) as cluster:
            findings = await examine(cluster, options, settings)
        await cluster.close()
        return findings

    @classmethod
    async def provision(cls, options: QueueOptions, settings: KafkaSettings) -> Sequence[str]:
        """Create the topics that are missing, with the partitions and replicas in the settings.

        Raises:
            BackendUnavailableError: No broker can be reached in time.
            AccessDeniedError: They refuse our credentials, or do not let us create topics.
            BackendError: They refuse it for another reason.
        """
        async with _connected(settings) as cluster:
            created = await provision(cluster, options, settings)
        await cluster.close()
        return created

    @classmethod
    def embedded(
        cls, settings: KafkaSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an embedded broker, unless one is configured."""
        return None if "bootstrap_servers" in settings.model_fields_set else _embedded(settings)


@contextlib.asynccontextmanager
async def _connected(settings: KafkaSettings) -> AsyncIterator[Cluster]:
    """Give a connection that outlives the block, unless the block fails."""
    cluster = Cluster(settings)
    try:
        with kafka_errors(settings.bootstrap_servers):
            await cluster.start()
            yield cluster
    except BaseException:
        await cluster.close()
        raise


@contextlib.contextmanager
def _embedded(settings: KafkaSettings) -> Iterator[Mapping[str, str]]:
    topic = data_topic(settings)
    topics = (
        Topic(topic, settings.partitions),
        Topic(directory_name(topic), settings.partitions, compacted=True),
    )
    with EmbeddedKafka(topics=topics) as broker:
        yield broker.environment
