"""Reads the configuration of topics, and creates topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as ke
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.structs import TopicPartition

from streamq_kafka._errors import Throttled, TopicMissing

from ._cluster import Cluster
from ._error_codes import error_of

DEFAULT_MESSAGE_BYTES = 1_048_588
"""The largest batch that a topic takes by Kafka's default."""

_CREATE_MS = 5_000
_HIDDEN = (ke.TopicAuthorizationFailedError, ke.ClusterAuthorizationFailedError)
_PASSING = (
    ke.NotControllerError,
    ke.RequestTimedOutError,
    ke.BrokerNotAvailableError,
    Throttled,
)
_TOPIC = 2
_CREATED_SECONDS, _VISIBLE_SECONDS, _LOOK_AGAIN_SECONDS = 30.0, 10.0, 0.05


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """What a topic's configuration allows the driver to promise.

    Attributes:
        max_message_bytes: Largest batch of records.
        is_durable: Whether acknowledged records survive a restart of the brokers.
    """

    max_message_bytes: int = DEFAULT_MESSAGE_BYTES
    is_durable: bool = False


async def topic_limits(cluster: Cluster, topic: str) -> TopicLimits:
    """Return what a topic's configuration allows the driver to promise.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    configs = await topic_configs(cluster, topic)
    return TopicLimits(
        config_number(configs, "max.message.bytes") or DEFAULT_MESSAGE_BYTES,
        # Only Apache Kafka and its relatives return this one; an in-memory stand-in has no
        # replicas.
        "min.insync.replicas" in configs,
    )


async def topic_configs(cluster: Cluster, topic: str) -> dict[str, str]:
    """Return the configuration of a topic; empty if we may not see it."""
    try:
        answer = await cluster.ask_controller(DescribeConfigsRequest([(_TOPIC, topic, None)]))
    except ke.IncompatibleBrokerVersion:
        return {}
    found: dict[str, str] = {}
    for code, message, _, _, entries in answer.resources:
        error = error_of(code, topic, message) if code else None
        if error is not None and not isinstance(error, _HIDDEN):
            raise error
        found.update((name, value) for name, value, *_ in entries if value is not None)
    return found


def config_number(configs: Mapping[str, str], name: str) -> int | None:
    """Return a configuration value that is a number; ``None`` if it is not known."""
    try:
        return int(configs[name])
    except (KeyError, ValueError):
        return None


async def create_topic(
    cluster: Cluster, topic: str, *, partitions: int, replicas: int, configs: Mapping[str, str]
) -> bool:
    """Create a topic and wait until it is served; return ``False`` if it existed already.

    Raises:
        aiokafka.errors.KafkaError: It could not be created.
    """
    wanted: Any = (topic, partitions, replicas, [], list(configs.items()))
    request = CreateTopicsRequest([wanted], _CREATE_MS, validate_only=False)
    is_repeated = False
    async with asyncio.timeout(_CREATED_SECONDS) as deadline:
        while True:
            answer = await cluster.ask_controller(request)
            (_, code, *rest), *_ = answer.topic_errors
            error = error_of(code, topic, rest[0] if rest else None) if code else None
            if isinstance(error, ke.TopicAlreadyExistsError) and not is_repeated:
                return False
            if error is None or isinstance(error, ke.TopicAlreadyExistsError):
                break
            throttled_ms = getattr(answer, "throttle_time_ms", 0)
            wait = max(_LOOK_AGAIN_SECONDS, throttled_ms / 1_000)
            until = deadline.when() or 0.0
            if not isinstance(error, _PASSING) or asyncio.get_running_loop().time() + wait > until:
                raise error
            is_repeated = True
            await asyncio.sleep(wait)
            await cluster.metadata.refresh()
    await _wait_until_served(cluster, topic, partitions)
    return True


async def _wait_until_served(cluster: Cluster, topic: str, partitions: int) -> None:
    """Wait until every broker knows a new topic and its leaders serve it."""
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    async with asyncio.timeout(_VISIBLE_SECONDS):
        while True:
            with contextlib.suppress(TopicMissing, ke.LeaderNotAvailableError):
                await cluster.metadata.partitions(topic, is_patient=False)
                found = await cluster.end_offsets(wanted)
                if not any(isinstance(offset, Exception) for offset in found.values()):
                    return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
