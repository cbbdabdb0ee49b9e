"""Erasing the streams of a tenant."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from streamq import BackendUnavailableError, StreamId, erase_streams, load_settings, open_writer
from streamq.driver import ChunkQueue, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import Block, FaultyQueue

SETTINGS = load_settings(backend="memory", retry_seconds=0.05)


@pytest.fixture
async def queue() -> AsyncIterator[FaultyQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with FaultyQueue(inner) as faulty:
        yield faulty


async def write(queue: ChunkQueue, *names: str, tenant: str = "default") -> None:
    settings = SETTINGS.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk("text")


async def names(queue: ChunkQueue, tenant: str = "default") -> list[str]:
    return sorted([info.stream.name async for info in queue.streams(tenant)])


async def test_other_tenants_keep_their_streams(queue: FaultyQueue) -> None:
    for tenant in ("ours", "theirs"):
        await write(queue, *(f"s{i}" for i in range(40)), tenant=tenant)
    erased: list[StreamId] = []
    count = await erase_streams(
        tenant="ours", queue=queue, settings=SETTINGS, on_erased=erased.append
    )
    assert (count, len(set(erased))) == (40, 40)
    assert await names(queue, "ours") == []
    assert len(await names(queue, "theirs")) == 40


async def test_a_stream_that_begins_meanwhile_is_erased(queue: FaultyQueue) -> None:
    """Else a story that was to be forgotten is kept for a day."""
    await write(queue, "a", "b")
    block = Block()
    queue.script("delete", block)
    erasing = asyncio.create_task(erase_streams(prefix="a", queue=queue, settings=SETTINGS))
    await block.reached()
    await write(queue, "a2")
    block.release()
    assert await erasing == 2
    assert await names(queue) == ["b"]


async def test_an_error_is_raised_as_it_is(queue: FaultyQueue) -> None:
    """And what is left can be erased by another call."""
    await write(queue, *"abc")
    queue.always("delete", Block())
    erasing = asyncio.create_task(erase_streams(queue=queue, settings=SETTINGS))
    async with asyncio.timeout(10):
        while queue.running["delete"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    queue.take_down()
    with pytest.raises(BackendUnavailableError):
        await erasing
    queue.heal()
    assert await erase_streams(queue=queue, settings=SETTINGS) == 3
    assert await names(queue) == []
