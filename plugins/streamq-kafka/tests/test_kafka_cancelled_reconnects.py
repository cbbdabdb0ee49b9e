"""Calls that are cancelled while they connect again leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from kafka_brokers import Broker, hang_up
from streamq.driver import START, BackendUnavailableError, ChunkQueue, Entry, QueueOptions
from streamq.testing import new_stream
from streamq.testing._cancellation import cancel_at_every_await
from streamq.testing.checks._leaving import _Held
from streamq_kafka import KafkaDriver
from streamq_kafka._queue import KafkaQueue

_SOON = 10.0
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
