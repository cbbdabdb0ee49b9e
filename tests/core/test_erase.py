"""Erasing the streams of a tenant."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    StreamId,
    StreamsLeftError,
    erase_streams,
    load_settings,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, QueueOptions, StreamInfo
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
        every=True, tenant="ours", queue=queue, settings=SETTINGS, on_erased=erased.append
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
    erasing = asyncio.create_task(erase_streams(every=True, queue=queue, settings=SETTINGS))
    async with asyncio.timeout(10):
        while queue.running["delete"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    queue.take_down()
    with pytest.raises(BackendUnavailableError):
        await erasing
    queue.heal()
    assert await erase_streams(every=True, queue=queue, settings=SETTINGS) == 3
    assert await names(queue) == []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"workflow": None},
        {"prefix": None, "workflow": None},
        {"workflow": "a", "prefix": "b"},
        {"every": True, "prefix": "a"},
        {"prefix": ""},
        {"workflow": ""},
    ],
)
async def test_what_is_to_be_erased_is_said_once(queue: FaultyQueue, given: dict[str, Any]) -> None:
    """An id that is None or empty by mistake must not delete a tenant's streams."""
    await write(queue, "a")
    with pytest.raises(ConfigurationError, match="erased"):
        await erase_streams(**given, queue=queue, settings=SETTINGS)
    assert await names(queue) == ["a"]


class _Restarting(FaultyQueue):
    """A stream of it begins anew when it is deleted, some times."""

    restarts = 0

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        if self.restarts and stream.name.endswith("2"):
            self.restarts -= 1
            await self.append(stream, [Entry(1, 0, b"text")])


async def test_what_producers_begin_anew_is_an_error(queue: FaultyQueue) -> None:
    """Text that has to be forgotten is there, and whoever asked believes that it is not."""
    async with _Restarting(queue.inner) as restarting:
        await write(restarting, "b2")
        for restarts in (2, 3):
            restarting.restarts = restarts
            await write(restarting, "a1", "a2")
            erasing = erase_streams(prefix="a", queue=restarting, settings=SETTINGS)
            if restarts == 2:
                assert await erasing == 2
                continue
            with pytest.raises(StreamsLeftError, match=r"1 are left \(a2\).*stop") as caught:
                await erasing
            assert (caught.value.erased, caught.value.left) == (2, ("a2",))
        assert await names(restarting) == ["a2", "b2"]


async def test_a_listing_that_lags_behind_is_no_error(queue: FaultyQueue) -> None:
    """A stream that is listed and gone is not left."""

    class Lagging(FaultyQueue):
        async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
            yield StreamInfo(StreamId(tenant, "gone"), records=1, size_bytes=1)

    async with Lagging(queue.inner) as lagging:
        assert await erase_streams(every=True, queue=lagging, settings=SETTINGS) == 1
