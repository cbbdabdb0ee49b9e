"""Quotas of the writers of one tenant in one process."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import (
    BackendUnavailableError,
    QuotaError,
    Settings,
    StreamId,
    load_settings,
    open_writer,
)
from streamq.driver import ChunkQueue, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.quotas import Throttle
from streamq.quotas import _writers as writers
from streamq.testing import FaultyQueue

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
    assert settings.tenant not in writers._tenants


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


async def test_more_than_the_rate_is_delayed(queue: ChunkQueue, limited: Limited) -> None:
    """Nothing is lost or refused. A second's worth may be stored at once."""
    settings = limited("written_bytes_per_second = 100_000")
    begun = time.monotonic()
    async with open_writer("a", queue=queue, settings=settings) as writer:
        for _ in range(15):
            await writer.send_chunk("x" * 10_000)
            await writer.flush()
    assert time.monotonic() - begun >= 0.3  # 150 kB are 1.5 s, of which the first second is free
    assert writer.statistics().durable_chunks == 15


async def test_writers_of_a_tenant_share_its_rate(queue: ChunkQueue, limited: Limited) -> None:
    """A tenant gets no more by dividing its work, or by opening its streams again."""
    settings = limited("written_bytes_per_second = 100_000")
    begun = time.monotonic()
    for name in "abcd":  # 2 s, of which the first is free, and the last writer delays nothing
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk("x" * 50_000)
    assert time.monotonic() - begun >= 0.2


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


def test_a_throttle_is_held_on_average() -> None:
    """Pieces larger than a second's worth are delayed as long as they deserve."""
    throttle = Throttle(1_000)
    assert throttle.delay == 0
    throttle.spend(1_000)
    throttle.spend(10_000)
    assert 9 < throttle.delay <= 10
