"""Opens queues in memory, writes what earlier attempts wrote, and reads what is stored.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from temporalio.client import Client
from temporalio.converter import DataConverter

from streamq._events import Event, StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.opening._open import open_reader
from streamq.temporal._serializer import conversion, load_converter
from streamq.testing._faulty_queue import FaultyQueue
from streamq.writing._writer import StreamWriter


async def memory_queue(settings: Settings) -> FaultyQueue:
    """Return a queue on a store in memory of its own, whose faults can be scripted."""
    # Without the environment, which has nothing to say about this store.
    chosen = MemorySettings.model_construct(store=uuid.uuid4().hex)
    return FaultyQueue(await MemoryDriver.open(QueueOptions(ttl=settings.ttl), chosen))


def chosen_converter(
    given: DataConverter | None, client: Client | None, settings: Settings
) -> DataConverter:
    """Return the data converter: the given one, the client's, the configured, or the default.

    Raises:
        ConfigurationError: ``STREAMQ_DATA_CONVERTER`` is wrong.
    """
    if given is not None:
        return given
    if client is not None:
        return client.data_converter
    if settings.data_converter:
        return load_converter(settings.data_converter)
    return DataConverter.default


async def write_earlier(
    opened: Callable[[], Awaitable[StreamWriter[Any]]], values: Sequence[Any], *, ends: bool = False
) -> None:
    """Write what an earlier attempt wrote before it was lost.

    Args:
        opened: Opens the writer of that attempt.
        values: What it sent.
        ends: Whether it sealed the stream.
    """
    writer = await opened()
    try:
        for value in values:
            await writer.send_chunk(value)
        if ends:
            await writer.finish()
    finally:
        await writer.aclose()


async def stored_events(
    stream: StreamId,
    *,
    queue: ChunkQueue,
    settings: Settings,
    converter: DataConverter,
    namespace: str,
    value_type: type[Any] | None,
) -> list[Event[Any]]:
    """Return all events of a stream that are stored, whatever faults are scripted."""
    serializer, codec = conversion(converter, stream.name, namespace, value_type)
    events: list[Event[Any]] = []
    used = queue.inner if isinstance(queue, FaultyQueue) else queue
    async with open_reader(
        stream, queue=used, settings=settings, serializer=serializer, codec=codec
    ) as reader:
        while batch := await reader.read_batch(max_wait=0):
            events += batch
    return events
