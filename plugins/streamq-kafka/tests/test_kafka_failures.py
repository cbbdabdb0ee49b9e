"""Failures at a real broker: each one is a clear error of streamq, in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from kafka_brokers import Broker
from streamq import Settings, open_reader, open_writer
from streamq.devserver import free_port
from streamq.driver import (
    START,
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ChunkQueue,
    ClosedError,
    ConfigurationError,
    Entry,
    QueueOptions,
    Stored,
    StreamId,
    StreamqError,
)
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaDriver, KafkaSettings
from streamq_kafka._queue import KafkaQueue
from streamq_kafka.embedded import TopicSpec

_SOON = 8.0
"""Longer than any of the deadlines below, and short enough for a test."""

_DEADLINES: Mapping[str, Any] = {"connect_timeout_seconds": 3.0, "operation_timeout_seconds": 3.0}


@asynccontextmanager
async def _own_topic(broker: Broker, **settings: str) -> AsyncIterator[str]:
    """Yield a topic with its directory, which are deleted at the end."""
    name = f"own-{new_stream().name}"
    names = [name, f"{name}.directory"]
    config = {key.replace("_", "."): value for key, value in settings.items()}
    await broker.operator.create((TopicSpec(name, 2),), settings=config)
    await broker.operator.create((TopicSpec(names[1], 2, compacted=True),))
    try:
        yield name
    finally:
        await broker.operator.delete(*names)


async def _refused(call: Awaitable[object], kind: type[StreamqError]) -> str:
    """Return the message of a call that has to fail soon with this kind of error."""
    async with asyncio.timeout(_SOON):
        with pytest.raises(kind) as caught:
            await call
    assert caught.value.backend == "kafka"
    return str(caught.value)


async def _read(queue: ChunkQueue, stream: StreamId, max_wait: float = 0.0) -> Sequence[Stored]:
    return await queue.read(stream, START, max_records=100, max_bytes=2**20, max_wait=max_wait)


async def _text(queue: ChunkQueue, stream: StreamId) -> list[object]:
    async with open_reader(stream, queue=queue, idle_seconds=_SOON) as reader:
        return list(await reader.collect())


def _open(settings: KafkaSettings) -> Awaitable[ChunkQueue]:
    return KafkaDriver.open(QueueOptions(ttl=timedelta(minutes=5)), settings)


async def test_unreachable_cluster_is_reported_at_once() -> None:
    """A wrong address is the most common mistake; the message has to contain it."""
    address = f"127.0.0.1:{free_port()}"
    settings = KafkaSettings(bootstrap_servers=address, **_DEADLINES)
    assert address in await _refused(_open(settings), BackendUnavailableError)


async def test_first_bootstrap_server_may_be_down(apache: Broker, stream: StreamId) -> None:
    """Several servers are listed so that any one of them can be down."""
    servers = f"127.0.0.1:{free_port()},{apache.server.address}"
    async with await _open(apache.settings(servers, **_DEADLINES)) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        assert await _text(queue, stream) == ["a"]


async def test_error_of_a_missing_topic_names_the_remedy(
    broker: Broker,
) -> None:
    """The operator creates the topics, so the error has to say how."""
    settings = broker.settings(topic="never-created", **_DEADLINES)
    said = await _refused(_open(settings), ConfigurationError)
    assert "never-created" in said
    assert "streamq doctor --create" in said


async def test_error_of_a_missing_directory_names_it(apache: Broker) -> None:
    """The second topic is easy to forget, and nothing works without it."""
    name = f"half-{new_stream().name}"
    await apache.operator.create((TopicSpec(name, 1),))
    try:
        said = await _refused(_open(apache.settings(topic=name)), ConfigurationError)
    finally:
        await apache.operator.delete(name)
    assert f"{name}.directory" in said


async def test_missing_topic_of_a_tenant_is_reported_when_it_is_used(
    broker: Broker, open_with: OpenWith
) -> None:
    """With a topic for each tenant, one tenant's mistake must not stop the others."""
    queue = await open_with(broker.settings(topic="absent-{tenant}", **_DEADLINES))
    stream = StreamId("acme", "s")
    for call in (
        queue.append(stream, [Entry(1, 0, b"a")]),
        _read(queue, stream, max_wait=1.0),
        queue.describe(stream),
    ):
        assert "absent-acme" in await _refused(call, BackendError)


async def test_opening_a_queue_creates_no_topic(apache: Broker) -> None:
    """A mistyped topic must not be created with the broker's defaults."""
    await _refused(_open(apache.settings(topic="a-typo", **_DEADLINES)), ConfigurationError)
    assert not [name for name in await apache.operator.topics() if name.startswith("a-typo")]


async def test_readers_and_writers_of_a_deleted_topic_get_an_error(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A reader of a topic that an operator deletes must not wait for ever."""
    async with _own_topic(apache) as name:
        queue = await open_with(apache.settings(topic=name, **_DEADLINES))
        await queue.append(stream, [Entry(1, 0, b"a")])
        (first,) = await _read(queue, stream)
        waiting = asyncio.ensure_future(
            queue.read(stream, first.position, max_records=1, max_bytes=1, max_wait=30.0)
        )
        await asyncio.sleep(0)
        await apache.operator.delete(name)
        assert name in await _refused(waiting, BackendError)
        assert name in await _refused(queue.append(stream, [Entry(1, 1, b"b")]), BackendError)
        await apache.operator.create((TopicSpec(name, 2),))


async def test_message_beyond_the_limit_of_its_topic_is_refused_whole(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A record that the broker refuses must be an error now, and must not block its stream."""
    async with _own_topic(apache, max_message_bytes="20000") as name:
        queue = await open_with(apache.settings(topic=name, **_DEADLINES))
        limit = queue.capabilities.max_record_bytes
        assert 4_096 <= limit < 20_000
        await queue.append(stream, [Entry(1, 0, bytes(limit))])
        said = await _refused(queue.append(stream, [Entry(1, 1, bytes(30_000))]), BackendError)
        assert "max.message.bytes" in said
        await queue.append(stream, [Entry(1, 1, b"small")])
        assert [len(each.data) for each in await _read(queue, stream)] == [limit, 5]


async def test_topic_with_a_limit_below_one_record_is_refused_at_once(apache: Broker) -> None:
    """The message has to name the limit to raise, and not a size below zero."""
    async with _own_topic(apache, max_message_bytes="1000") as name:
        said = await _refused(_open(apache.settings(topic=name)), ConfigurationError)
        assert f"topic '{name}' has max.message.bytes=1000" in said


async def test_chunk_beyond_the_limit_of_its_topic_is_cut_and_joined(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """Applications need not know the limits of a topic."""
    chunk = "x" * 100_000
    async with _own_topic(apache, max_message_bytes="20000") as name:
        queue = await open_with(apache.settings(topic=name))
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk(chunk)
        assert await _text(queue, stream) == [chunk]


async def test_broker_that_is_down_is_reported_and_used_again_when_it_is_back(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """A restart costs an error within a stated time, or a pause where streamq retries."""
    queue = await open_with(apache.settings(**_DEADLINES))
    writer = await open_writer(stream, queue=queue, settings=Settings(retry_seconds=60))
    async with writer:
        await writer.send_chunk("before")
        await writer.flush()
        apache.server.kill()
        try:
            other = new_stream()
            calls = (queue.append(other, [Entry(1, 0, b"a")]), queue.describe(stream))
            await asyncio.gather(*(_refused(call, BackendUnavailableError) for call in calls))
            await writer.send_chunk("during")
        finally:
            await asyncio.to_thread(apache.server.start)
        await writer.send_chunk("after")
    assert await _text(queue, stream) == ["before", "during", "after"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_right_credentials_log_in_and_wrong_ones_are_refused(
    apache: Broker, stream: StreamId, mechanism: str
) -> None:
    """The message has to name the credentials as the reason, and must not contain the password."""
    known: dict[str, Any] = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_username": "writer",
        **_DEADLINES,
    }
    password = apache.passwords["writer"]
    right = apache.settings(apache.sasl_address, sasl_password=password, **known)
    async with await _open(right) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        assert await _text(queue, stream) == ["a"]
    wrong = apache.settings(apache.sasl_address, sasl_password="n0t-the-one", **known)
    said = await _refused(_open(wrong), AccessDeniedError)
    assert "n0t-the-one" not in said
    assert "credentials" in said


async def test_missing_credentials_are_named_as_a_possible_reason(apache: Broker) -> None:
    """The broker only closes the connection; the error has to come soon, with likely reasons."""
    settings = apache.settings(apache.sasl_address, **_DEADLINES)
    said = await _refused(_open(settings), BackendUnavailableError)
    assert "STREAMQ_KAFKA_SECURITY_PROTOCOL" in said


async def test_credentials_for_a_listener_without_them_are_refused(apache: Broker) -> None:
    """The message of aiokafka is the address of an object in memory."""
    known = {"sasl_username": "writer", "sasl_password": apache.passwords["writer"]}
    settings = apache.settings(security_protocol="SASL_PLAINTEXT", **known, **_DEADLINES)
    said = await _refused(_open(settings), AccessDeniedError)
    assert "it expects none on this port; check STREAMQ_KAFKA_SECURITY_PROTOCOL" in said


async def test_tls_needs_the_authority(apache: Broker, stream: StreamId) -> None:
    """An untrusted certificate is refused, and the message names the setting."""
    tls: dict[str, Any] = {"security_protocol": "SSL", **_DEADLINES}
    trusting = apache.settings(apache.tls_address, tls_ca_file=str(apache.ca_file), **tls)
    async with await _open(trusting) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        assert await _text(queue, stream) == ["a"]
    said = await _refused(_open(apache.settings(apache.tls_address, **tls)), AccessDeniedError)
    assert "TLS_CA_FILE" in said


async def test_reader_without_permission_to_write_reads(apache: Broker, stream: StreamId) -> None:
    """Gateways get credentials that may only read, and need no others."""
    async with (
        await _open(apache.settings()) as queue,
        open_writer(stream, queue=queue) as writer,
    ):
        await writer.send_chunk("a")
    reading = apache.settings(
        apache.sasl_address,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="reader",
        sasl_password=apache.passwords["reader"],
    )
    async with await _open(reading) as queue:
        assert await _text(queue, stream) == ["a"]
        await _refused(queue.append(new_stream(), [Entry(1, 0, b"b")]), AccessDeniedError)


async def test_no_group_and_no_transaction_is_used(apache: Broker, stream: StreamId) -> None:
    """Groups rebalance, and their topic may be unavailable; streams are read without them."""
    async with await _open(apache.settings()) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        assert await _text(queue, stream) == ["a"]
    # The broker creates its topic for groups, or for transactions, with the first request for one.
    assert not [name for name in await apache.operator.topics() if name.startswith("__")]


async def test_calls_that_wait_for_a_frozen_broker_end_with_their_queue(apache: Broker) -> None:
    """The shutdown of a worker must not wait for a frozen broker."""
    slow: dict[str, Any] = {"connect_timeout_seconds": 60.0, "operation_timeout_seconds": 60.0}
    queue = await _open(apache.settings(topic="{tenant}", **slow))
    known, unknown = StreamId("streamq", new_stream().name), new_stream()
    assert await _read(queue, known) == []
    assert isinstance(queue, KafkaQueue)
    os.kill(apache.server.pid, signal.SIGSTOP)
    try:
        for connection in queue._cluster.connections.client._conns.values():
            connection.close()  # so that it has to connect as well
        calls = [
            asyncio.ensure_future(call)
            for call in (
                _read(queue, known),
                _read(queue, unknown, max_wait=30.0),
                queue.describe(known),
                queue.newest_epoch(known),
            )
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(_SOON):
            await queue.aclose()
            ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in ended] == [ClosedError] * len(calls)
        assert not queue._cluster.connections.client._conns
    finally:
        os.kill(apache.server.pid, signal.SIGCONT)
