"""Quotas of the writers of one tenant in one process."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamq import (
    BackendUnavailableError,
    QuotaError,
    Settings,
    StreamId,
    StreamWriter,
    load_settings,
    open_writer,
)
from streamq.driver import ChunkQueue, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.quotas import Throttle
from streamq.quotas import _writers as writers
from streamq.quotas._writers import WriterQuota
from streamq.testing import FaultyQueue, run_in_virtual_time

Limited = Callable[[str], Settings]


@pytest.fixture
async def queue() -> AsyncIterator[ChunkQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex)) as opened:
        yield opened


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    """Return a function that returns settings with some quotas, for a tenant of this test."""
    tenant = f"t-{uuid.uuid4().hex}"

    def limited(text: str) -> Settings:
        path = tmp_path / f"{uuid.uuid4().hex}.toml"
        path.write_text(f"[tenants.{tenant}]\n{text.format(tenant=tenant)}\n")
        return load_settings(tenant=tenant, quotas=path, retry_seconds=0.05)

    return limited


async def test_a_tenant_has_as_many_writers_as_its_quota(
    queue: ChunkQueue, limited: Limited
) -> None:
    """One more is refused before anything is stored; the place of one that ends is free again."""
    settings = limited("writers = 2")
    other = settings.model_copy(update={"tenant": "another-" + settings.tenant})
    async with open_writer("a", queue=queue, settings=settings):
        async with open_writer("b", queue=queue, settings=settings):
            with pytest.raises(QuotaError, match=r"has 2 open writers.*writers in STR") as caught:
                await open_writer("c", queue=queue, settings=settings)
            assert caught.value.retryable
            assert caught.value.stream == f"{settings.tenant}/c"
            async with open_writer("c", queue=queue, settings=other):
                pass
        async with open_writer("c", queue=queue, settings=settings):
            pass
    found = [info.stream.name async for info in queue.streams(settings.tenant)]
    assert sorted(found) == ["a", "b", "c"]
    assert settings.tenant not in writers._process.tenants


async def test_a_writer_that_cannot_be_opened_takes_no_place(
    queue: ChunkQueue, limited: Limited
) -> None:
    settings = limited("writers = 1")
    faulty = FaultyQueue(queue)
    faulty.take_down()
    with pytest.raises(BackendUnavailableError):
        await open_writer("a", queue=faulty, settings=settings)
    async with open_writer("a", queue=queue, settings=settings):
        pass


async def test_an_attempt_sends_as_much_as_its_quota(queue: ChunkQueue, limited: Limited) -> None:
    """What fits is stored, and the stream can still be ended."""
    settings = limited("attempt_bytes = 10")
    async with open_writer("a", queue=queue, settings=settings) as writer:
        await writer.send_chunk("12345678")
        with pytest.raises(QuotaError, match=r"has 11 bytes.*the 10 that") as caught:
            await writer.send_chunk("123")
        assert not caught.value.retryable
        with pytest.raises(QuotaError):
            writer.send_nowait("123")
        await writer.send_chunk("12")
    assert writer.is_sealed
    assert writer.statistics().chunk_bytes == 10


Paced = Callable[[Callable[[ChunkQueue, Settings], Coroutine[Any, Any, None]]], float]


@pytest.fixture
def paced(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> Paced:
    """Return a function that runs writers of a tenant with 100 kB/s in virtual time.

    It returns the seconds that they took. What is stored is some hundred bytes more than the text.
    """
    settings = limited("written_bytes_per_second = 100_000")

    def paced(write: Callable[[ChunkQueue, Settings], Coroutine[Any, Any, None]]) -> float:
        async def run() -> float:
            clock = asyncio.get_running_loop().time
            monkeypatch.setattr(writers, "Throttle", partial(Throttle, clock=clock))
            options = QueueOptions(ttl=timedelta(days=1))
            memory = MemorySettings(store=uuid.uuid4().hex)
            async with await MemoryDriver.open(options, memory) as queue:
                begun = clock()
                await write(queue, settings)
                return clock() - begun

        return run_in_virtual_time(run)

    return paced


def test_more_than_the_rate_is_delayed(paced: Paced) -> None:
    """Nothing is lost or refused. A second's worth is stored at once."""

    async def write(queue: ChunkQueue, settings: Settings) -> None:
        async with open_writer("a", queue=queue, settings=settings) as writer:
            for _ in range(50):
                await writer.send_chunk("x" * 10_000)
                await writer.flush()
        assert writer.statistics().durable_chunks == 50

    assert 3.8 < paced(write) < 4.1


def test_writers_of_a_tenant_share_its_rate(paced: Paced) -> None:
    """A tenant gets no more by dividing its work, at once or one after the other."""

    async def write(queue: ChunkQueue, settings: Settings) -> None:
        async def one(name: str) -> None:
            async with open_writer(name, queue=queue, settings=settings) as writer:
                await writer.send_chunk("x" * 10_000)
                await writer.flush()

        await asyncio.gather(*(one(f"a-{i}") for i in range(40)))
        for i in range(10):
            await one(f"b-{i}")

    assert 3.8 < paced(write) < 4.3


def test_a_slow_tenant_gets_its_endings(paced: Paced) -> None:
    """Readers must not wait for the end of a producer that has failed, for as long as its debt."""
    endings: dict[str, Callable[[StreamWriter[str]], Coroutine[Any, Any, None]]] = {
        "failed": lambda writer: writer.fail("broken"),
        "cancelled": lambda writer: writer.cancel(),
        "finished": lambda writer: writer.finish(),
        "left": lambda writer: writer.aclose(),
    }

    async def write(queue: ChunkQueue, settings: Settings) -> None:
        async with open_writer("first", queue=queue, settings=settings) as first:
            await first.send_chunk("x" * 1_000_000)
            await first.flush()
        for name, end in endings.items():
            writer = await open_writer(name, queue=queue, settings=settings)
            await writer.send_chunk("y" * 10_000)
            await asyncio.sleep(0.01)  # it waits for its turn
            await end(writer)
            await writer.aclose()
            assert (writer.durable_position, writer.is_sealed) == (1, name != "left")

    assert paced(write) < 0.5


def test_what_is_not_stored_is_not_counted(paced: Paced) -> None:
    """A writer that is abandoned while it waits gives back what it has booked."""

    async def write(queue: ChunkQueue, settings: Settings) -> None:
        async with open_writer("a", queue=queue, settings=settings) as writer:
            await writer.send_chunk("x" * 300_000)
            await writer.flush()
            left = await open_writer("b", queue=queue, settings=settings)
            await left.send_chunk("x" * 500_000)
            await asyncio.sleep(0.1)
            left._sender.abandon()
            await writer.send_chunk("x")
            await writer.flush()

    assert 1.5 < paced(write) < 2.5


def test_a_child_has_none_of_its_parents_writers(limited: Limited) -> None:
    """A worker that forks must not count what only its parent has."""
    settings = limited("writers = 1")
    stream = StreamId(settings.tenant, "a")
    WriterQuota.take(stream, settings)
    with pytest.raises(QuotaError):
        WriterQuota.take(stream, settings)
    with writers._process.lock:
        child = os.fork()
        if not child:
            code = 1
            try:
                WriterQuota.take(stream, settings)
                code = 0
            finally:
                os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


async def left(queue: ChunkQueue, stream: StreamId) -> float:
    """Return how many seconds a stream is still kept."""
    found = (await queue.describe(stream)).expires_in
    assert found is not None
    return found.total_seconds()


KEPT = """kept_seconds = 100

[tenants.{tenant}.kept_below]
"chat-7/" = 50
"chat-7/brief" = 20
"long/" = 100_000_000
"""


@pytest.mark.parametrize(
    ("name", "most"), [("a", 100), ("chat-70", 100), ("chat-7/a", 50), ("chat-7/brief/a", 20)]
)
async def test_a_stream_is_kept_as_long_as_its_quota(
    queue: ChunkQueue, limited: Limited, name: str, most: int
) -> None:
    """From its opening on, with each append and after its end, and however long others are kept."""
    settings = limited(KEPT)
    stream = StreamId(settings.tenant, name)
    async with open_writer(name, queue=queue, settings=settings) as writer:
        assert most - 15 < await left(queue, stream) <= most
        await writer.send_chunk("text")
        await writer.flush()
        assert most - 15 < await left(queue, stream) <= most
    assert most - 15 < await left(queue, stream) <= most


async def test_a_quota_makes_nothing_last_longer(queue: ChunkQueue, limited: Limited) -> None:
    settings = limited(KEPT)
    async with open_writer("long/a", queue=queue, settings=settings):
        assert await left(queue, StreamId(settings.tenant, "long/a")) <= 300


def test_a_throttle_spaces_what_is_booked() -> None:
    """Whoever books later waits longer; pieces larger than a second's worth count in full."""
    throttle = Throttle(1_000, clock=lambda: 0.0)
    assert throttle.is_idle
    assert [throttle.book(500) for _ in range(4)] == [0, 0, 0, 0.5]
    assert throttle.book(10_000) == 1.0
    assert throttle.book(1) == 11.0
    throttle.refund(10_001)
    assert throttle.book(1) == 1.0
    assert not throttle.is_idle
