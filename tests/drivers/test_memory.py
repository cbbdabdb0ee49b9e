"""The memory driver: the conformance suite, and threads, bounds and leaks of one process."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from streamq import memory
from streamq.driver import START, ChunkQueue, Entry, QueueOptions, StorageFullError, StreamId
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import BackendHarness, DriverSuite, queue_factory

OPTIONS = QueueOptions(ttl=timedelta(minutes=1))
STREAM = StreamId("test", "stream")
_STORE_BYTES = 160 * 2**20


class MemoryHarness(BackendHarness):
    """A store of this process."""

    driver = MemoryDriver

    def settings(self) -> MemorySettings:
        """Return settings that lead to the check's own store."""
        return MemorySettings(store=str(self.directory), max_bytes=_STORE_BYTES)

    @property
    def store(self) -> memory._Store:
        """Return the store; at least one queue has it open."""
        return memory._stores.get(str(self.directory))

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return what the store holds, expired or not."""
        with self.store.lock:
            found = self.store._streams.get(stream)
            return [] if found is None else [record.data for record in found.records]

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Remove the oldest records."""
        with self.store.lock:
            found = self.store._streams.get(stream)
            assert found is not None
            del found.keys[:-keep]
            del found.records[:-keep]

    @asynccontextmanager
    async def full(self) -> AsyncIterator[MemorySettings]:
        """Fill the store with a stream of another tenant."""
        async with queue_factory(MemoryDriver, self.settings()) as open_queue:
            queue = await open_queue()
            filler = StreamId("filler", "filler")
            free = _STORE_BYTES - self.store._cost_bytes - 1000
            await queue.append(filler, [Entry(1, 0, bytes(free))])
            yield self.settings()
            await queue.delete(filler)


class TestConformance(DriverSuite):
    """The driver contract, without a server and without waiting."""

    harness_type = MemoryHarness
    virtual_time = True


@pytest.fixture
def store() -> str:
    """Return a store name that no other test uses."""
    return uuid.uuid4().hex


async def read_one(queue: ChunkQueue, max_wait: float = 10) -> list[bytes]:
    """Read what is at the start of the test's stream."""
    records = await queue.read(STREAM, START, max_records=10, max_bytes=10_000, max_wait=max_wait)
    return [record.data for record in records]


async def test_append_wakes_a_reader_in_another_thread(store: str) -> None:
    """A worker and a gateway in one process often run their event loops in different threads."""
    settings = MemorySettings(store=store)
    waits = threading.Event()

    async def reader() -> list[bytes]:
        queue = await MemoryDriver.open(OPTIONS, settings)
        try:
            read = asyncio.ensure_future(read_one(queue))
            await asyncio.sleep(0)
            waits.set()
            return await read
        finally:
            await queue.aclose()

    async with queue_factory(MemoryDriver, settings) as open_queue:
        queue = await open_queue()
        other = asyncio.ensure_future(asyncio.to_thread(asyncio.run, reader()))
        assert await asyncio.to_thread(waits.wait, 10)
        await queue.append(STREAM, [Entry(1, 0, b"across")])
        assert await other == [b"across"]


async def test_append_survives_a_reader_whose_loop_was_closed(store: str) -> None:
    """A thread that ends without cleaning up must not break the producers of the process."""
    settings = MemorySettings(store=store)
    loop = asyncio.new_event_loop()
    abandoned: list[asyncio.Task[list[bytes]]] = []

    def leave_a_read_behind() -> None:
        queue = loop.run_until_complete(MemoryDriver.open(OPTIONS, settings))
        abandoned.append(loop.create_task(read_one(queue)))
        loop.run_until_complete(asyncio.sleep(0))

    async with queue_factory(MemoryDriver, settings) as open_queue:
        queue = await open_queue()
        await asyncio.to_thread(leave_a_read_behind)
        loop_is_gone = asyncio.to_thread(loop.close)
        await loop_is_gone
        await queue.append(STREAM, [Entry(1, 0, b"x")])
        assert await read_one(queue) == [b"x"]
    abandoned[0]._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_full_store_refuses_before_storing_anything(store: str) -> None:
    """A process must not be killed for memory; the refused append can be repeated as a whole."""
    settings = MemorySettings(store=store, max_bytes=10_000)
    async with queue_factory(MemoryDriver, settings) as open_queue:
        queue = await open_queue()
        await queue.append(STREAM, [Entry(1, 0, b"a" * 5000)])
        too_much = [Entry(1, i, b"b" * 1000) for i in range(1, 6)]
        with pytest.raises(StorageFullError, match="STREAMQ_MEMORY_MAX_BYTES"):
            await queue.append(STREAM, too_much)
        assert (await queue.describe(STREAM)).records == 1
        await queue.delete(STREAM)
        await queue.append(STREAM, too_much)
        assert (await queue.describe(STREAM)).records == 5


async def test_empty_records_are_bounded_too(store: str) -> None:
    """A loop that sends empty chunks would otherwise grow for ever."""
    settings = MemorySettings(store=store, max_bytes=10_000)
    async with queue_factory(MemoryDriver, settings) as open_queue:
        queue = await open_queue()
        with pytest.raises(StorageFullError):
            await queue.append(STREAM, [Entry(1, i, b"") for i in range(10_000)])


async def test_expired_streams_make_room(store: str) -> None:
    """Old streams that are never used again must not keep the store full."""
    settings = MemorySettings(store=store, max_bytes=10_000)
    ttl = timedelta(milliseconds=20)
    async with queue_factory(MemoryDriver, settings, ttl=ttl) as open_queue:
        queue = await open_queue()
        async with asyncio.timeout(10):
            for i in range(5):
                while True:
                    try:
                        await queue.append(StreamId("test", f"s{i}"), [Entry(1, 0, b"x" * 6000)])
                        break
                    except StorageFullError:
                        await asyncio.sleep(0.005)


async def test_store_goes_away_with_its_last_queue(store: str) -> None:
    """A test run opens thousands of stores; their streams must not stay in memory."""
    settings = MemorySettings(store=store)
    first = await MemoryDriver.open(OPTIONS, settings)
    second = await MemoryDriver.open(OPTIONS, settings)
    await first.append(STREAM, [Entry(1, 0, b"x")])
    await first.aclose()
    assert await read_one(second) == [b"x"]
    await second.aclose()
    gc.collect()
    assert store not in memory._stores
    async with queue_factory(MemoryDriver, settings) as open_queue:
        assert await read_one(await open_queue(), max_wait=0) == []


async def test_finished_reads_leave_no_waiter_behind(store: str) -> None:
    """A gateway polls for ever: a poll that leaves a waiter behind is a leak."""
    async with queue_factory(MemoryDriver, MemorySettings(store=store)) as open_queue:
        queue = await open_queue()
        for _ in range(3):
            assert await read_one(queue, max_wait=0.001) == []
        cancelled = asyncio.ensure_future(read_one(queue))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        del cancelled  # its error refers to the call
        await asyncio.sleep(0)
        assert memory._stores.get(store)._waiters.valuerefs() == []
