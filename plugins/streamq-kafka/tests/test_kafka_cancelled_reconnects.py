"""Calls that are cancelled while they connect again leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from kafka_brokers import Broker, hang_up
from streamq.driver import START, BackendUnavailableError, ChunkQueue, Entry, QueueOptions
from streamq.testing import new_stream
from streamq.testing._cancellation import cancel_at_every_await
from streamq.testing.checks._leaving import _Held
from streamq_kafka import KafkaDriver
from streamq_kafka._queue import KafkaQueue

_SOON = 10.0
_NEW_LANE = 99
_OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


async def test_reconnecting_is_cancelled_at_every_await_again_and_again(apache: Broker) -> None:
    """Clients go away while brokers are restarted; each one must give its connections back."""
    settings = apache.settings()
    stream = new_stream()
    used: ChunkQueue | None = None

    async def call() -> None:
        assert isinstance(used, KafkaQueue)
        with contextlib.suppress(BackendUnavailableError):
            hang_up(used)
            await used.newest_epoch(stream)
        with contextlib.suppress(BackendUnavailableError):
            hang_up(used)
            used._cluster.metadata.invalidate()
            await used.append(stream, [Entry(1, 0, b"open")])
        with contextlib.suppress(BackendUnavailableError):
            hang_up(used)
            await used.read(stream, START, max_records=9, max_bytes=99, max_wait=0.01)

    async def nothing_is_left() -> None:
        nonlocal used
        if used is not None:
            await used.aclose()
        until = asyncio.get_running_loop().time() + _SOON
        while left := held.left():
            assert asyncio.get_running_loop().time() < until, left
            await asyncio.sleep(0.01)
        used = await KafkaDriver.open(_OPTIONS, settings)

    for insists in (False, True):
        await (await KafkaDriver.open(_OPTIONS, settings)).aclose()
        held = _Held()
        await nothing_is_left()
        await cancel_at_every_await(call, nothing_is_left, insists=insists)
        assert used is not None
        await used.aclose()
        used = None


async def test_connection_is_closed_whose_caller_leaves_as_it_is_made(apache: Broker) -> None:
    """The caller is cancelled in the same turn of the event loop: nobody else has it."""
    loop = asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    queue = await KafkaDriver.open(_OPTIONS, apache.settings())
    assert isinstance(queue, KafkaQueue)
    connections = queue._cluster.connections
    access, nodes = connections.brokers.access, connections.client.cluster.brokers()
    connect, made = access.connect, []

    async def connect_and_leave(*args: Any, **options: Any) -> Any:
        made.append(await connect(*args, **options))
        loop.call_soon(caller.cancel)
        return made[-1]

    access.connect = connect_and_leave  # type: ignore[method-assign]
    connecting = connections._adapted._connected(nodes.pop().nodeId, group=_NEW_LANE)
    caller = asyncio.ensure_future(connecting)
    await asyncio.wait([caller])
    assert [each.connected() for each in made] == [False] * len(made)
    assert made
    access.connect = connect  # type: ignore[method-assign]
    await queue.aclose()
    assert reports == []
