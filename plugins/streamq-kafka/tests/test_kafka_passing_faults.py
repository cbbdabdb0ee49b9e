"""Faults that pass by themselves: they are waited for, and named while they last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kafka_brokers import Broker
from streamq._retry import RetryPolicy
from streamq.driver import (
    START,
    Entry,
    StreamId,
    ThrottledError,
)
from streamq.testing import OpenWith, new_stream
from streamq_kafka.embedded import TopicSpec

_LATER = 1.5
_RETRY = RetryPolicy(30.0)


@pytest.fixture
async def topic(apache: Broker) -> AsyncIterator[str]:
    """Return the name of a topic that does not exist yet."""
    name = f"passing-{new_stream().name}"
    yield name
    present = await apache.operator.topics()
    await apache.operator.delete(*(each for each in (name, f"{name}.directory") if each in present))


async def test_topic_that_is_known_a_moment_later_is_waited_for(
    apache: Broker, open_with: OpenWith, topic: str, stream: StreamId
) -> None:
    """On a slow cluster the brokers learn of a new topic seconds after it was created."""
    opening = asyncio.ensure_future(open_with(apache.settings(topic=topic)))
    await asyncio.sleep(_LATER)
    await apache.operator.create(
        (TopicSpec(topic, 1), TopicSpec(f"{topic}.directory", 1, compacted=True))
    )
    queue = await opening
    await queue.append(stream, [Entry(1, 0, b"open")])
    assert await queue.newest_epoch(stream) == 1


@pytest.mark.full
async def test_quota_is_named_and_waited_for(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A broker that delays answers looks dead, and a new connection would only use up more."""
    client_id = f"limited-{stream.name}"
    settings = apache.settings(client_id=client_id, operation_timeout_seconds=2.0)
    queue = await open_with(settings)
    await queue.append(stream, [Entry(1, 0, b"open")])
    await apache.operator.limit(client_id, "producer_byte_rate", 15_000.0)
    await queue.append(stream, [Entry(1, 1, bytes(300_000))])
    for _ in range(2):
        with pytest.raises(ThrottledError, match="quota"):
            await queue.append(stream, [Entry(1, 2, b"more")])
    await apache.operator.limit(client_id, "producer_byte_rate", None)
    await _RETRY.run(lambda: queue.append(stream, [Entry(1, 2, b"more")]))
    found = await queue.read(stream, START, max_records=9, max_bytes=10**6, max_wait=0)
    assert [each.data for each in found] == [b"open", bytes(300_000), b"more"]
