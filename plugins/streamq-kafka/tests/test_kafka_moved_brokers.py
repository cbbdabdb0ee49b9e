"""Brokers come back at other addresses; the configured name leads to them, or to another cluster.

A proxy stands for the name: its address stays, and it leads where the name would lead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apache_kafka import ApacheKafka, Operator

from kafka_brokers import TOPICS, Broker, need_apache, neighbours
from streamq import Settings, open_reader, open_writer
from streamq._retry import RetryPolicy
from streamq.devserver import free_port
from streamq.driver import START, ChunkQueue, Entry, StreamId
from streamq.testing import FaultProxy, OpenWith, new_stream
from streamq_kafka import KafkaSettings
from streamq_kafka._queue import KafkaQueue

_LONG = 60.0
_RETRY = RetryPolicy(_LONG)


class _Name:
    """A name that leads to a broker, wherever it is."""

    def __init__(self) -> None:
        self._port = free_port()
        self._proxy: FaultProxy | None = None

    @property
    def address(self) -> str:
        """The address that is configured."""
        return f"127.0.0.1:{self._port}"

    async def lead_to(self, port: int) -> None:
        """Lead connections to a port from now on; 0 leads nowhere."""
        if self._proxy is not None:
            await self._proxy.aclose()
            self._proxy = None
        if port:
            self._proxy = FaultProxy("127.0.0.1", port, listen_port=self._port)
            await self._proxy.__aenter__()


@pytest.fixture
async def name() -> AsyncIterator[_Name]:
    """Return a name that leads nowhere yet."""
    found = _Name()
    yield found
    await found.lead_to(0)


@contextlib.asynccontextmanager
async def _silence(port: int) -> AsyncIterator[None]:
    """Accept connections at a port, and answer nothing: a host that has been cut off."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def _append(queue: ChunkQueue, stream: StreamId, index: int) -> None:
    await _RETRY.run(lambda: queue.append(stream, [Entry(1, index, b"%d" % index)]))


async def _stored(queue: ChunkQueue, stream: StreamId) -> list[bytes]:
    async def read() -> Any:
        return await queue.read(stream, START, max_records=99, max_bytes=9_999, max_wait=0)

    return [record.data for record in await _RETRY.run(read)]


async def _names(queue: ChunkQueue, stream: StreamId) -> list[StreamId]:
    async def names() -> list[StreamId]:
        return [each.stream async for each in queue.streams(stream.tenant, stream.name)]

    return await _RETRY.run(names)


@pytest.mark.parametrize(
    "is_silent", [False, pytest.param(True, marks=pytest.mark.full)], ids=["refused", "silent"]
)
async def test_queue_follows_brokers_to_other_addresses(
    name: _Name, tmp_path: Path, open_with: OpenWith, *, is_silent: bool
) -> None:
    """A cluster in Kubernetes has moved; every connection of every process has to find it."""
    need_apache()
    before = ApacheKafka(data_dir=tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(before.stop)
        await asyncio.to_thread(before.start)
        await Operator(before.address).create(TOPICS)
        await name.lead_to(before.port)
        settings = KafkaSettings(bootstrap_servers=name.address, operation_timeout_seconds=3.0)
        writing, reading, idle = [await open_with(settings) for _ in range(3)]
        stream, other = new_stream(), new_stream()
        await _append(writing, other, 0)
        assert await _names(idle, other) == [other]
        patient = Settings(retry_seconds=_LONG)
        async with (
            await open_writer(stream, queue=writing, settings=patient) as writer,
            open_reader(stream, queue=reading, settings=patient, idle_seconds=_LONG) as reader,
        ):
            live = asyncio.ensure_future(reader.collect())
            await writer.send_chunk("before")
            await writer.flush()
            before.kill()
            if is_silent:
                await stack.enter_async_context(_silence(before.port))
            after = ApacheKafka(data_dir=tmp_path, port=free_port())
            stack.callback(after.stop)
            await asyncio.to_thread(after.start)
            await name.lead_to(after.port)
            async with asyncio.timeout(_LONG):
                await writer.send_chunk("after")
                await writer.finish()
                assert await live == ["before", "after"]
                for queue in (idle, reading, writing):
                    assert await _RETRY.run(functools.partial(queue.newest_epoch, other)) == 1
                    assert await _stored(queue, other) == [b"0"]
                    assert await _names(queue, other) == [other]
                await _append(idle, other, 1)
                assert await _stored(writing, other) == [b"0", b"1"]
                await idle.delete(other)
                assert await _names(reading, other) == []


@pytest.fixture
def resolutions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have names that end with ``.example`` resolved by a server that does not answer.

    Returns the names whose resolution has begun.
    """
    resolve, release = socket.getaddrinfo, threading.Event()
    begun: list[str] = []

    def resolve_slowly(host: Any, *args: Any, **options: Any) -> Any:
        if not str(host).endswith(".example"):
            return resolve(host, *args, **options)
        begun.append(host)
        release.wait(_LONG)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve_slowly)
    yield begun
    release.set()


async def test_silent_servers_and_slow_names_delay_nothing(
    apache: Broker, open_with: OpenWith, resolutions: list[str], stream: StreamId
) -> None:
    """Several servers are configured so that any of them may be cut off, and their names, too."""
    silent = free_port()
    servers = [f"127.0.0.1:{silent}"] * 2 + ["slow.example:9092"] * 2
    address = ",".join([*servers, f"localhost:{apache.server.port}"])
    async with _silence(silent):
        settings = apache.settings(
            address, connect_timeout_seconds=8.0, operation_timeout_seconds=4.0
        )
        queue = await open_with(settings)
        await queue.append(stream, [Entry(1, 0, b"open")])
        assert await _stored(queue, stream) == [b"open"]


async def test_slow_name_takes_one_thread(
    apache: Broker, open_with: OpenWith, resolutions: list[str]
) -> None:
    """A resolution cannot be cancelled: one for each try would take every thread of the process."""
    queue = await open_with(apache.settings())
    assert isinstance(queue, KafkaQueue)
    access = queue._cluster.connections.brokers.access
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await access.connect("slow.example", 9092, request_timeout_ms=50)
    assert resolutions == ["slow.example"]


@pytest.mark.full
async def test_another_cluster_behind_the_name_is_reported_and_used(
    name: _Name, open_with: OpenWith, caplog: pytest.LogCaptureFixture
) -> None:
    """Producers of both have the same numbers: a new batch must not pass for a repeated one."""
    need_apache()
    before, after = ApacheKafka(), ApacheKafka(cluster_id="YW5vdGhlci1jbHVzdGVyIQ")
    async with contextlib.AsyncExitStack() as stack:
        for broker in (before, after):
            stack.callback(broker.stop)
            await asyncio.to_thread(broker.start)
            await Operator(broker.address).create(TOPICS)
        await name.lead_to(before.port)
        settings = KafkaSettings(bootstrap_servers=name.address, operation_timeout_seconds=3.0)
        moving, staying = (
            await open_with(settings),
            await open_with(settings.model_copy(update={"bootstrap_servers": after.address})),
        )
        first, second, third = neighbours(3)
        await _append(moving, first, 0)
        for index in range(4):  # the other producer has sent the numbers that come next
            await _append(staying, second, index)
        waiting = asyncio.ensure_future(
            moving.read(third, START, max_records=9, max_bytes=999, max_wait=_LONG)
        )
        before.kill()
        await name.lead_to(after.port)
        async with asyncio.timeout(_LONG):
            await asyncio.wait([waiting])
            await _append(moving, third, 0)
            await _append(moving, first, 1)
            assert await _stored(staying, third) == [b"0"]
            assert await _stored(moving, third) == [b"0"]
            assert await _stored(moving, second) == [b"%d" % index for index in range(4)]
            assert await _stored(staying, first) == [b"1"]
        assert "another cluster" in caplog.text
        await asyncio.gather(waiting, return_exceptions=True)
