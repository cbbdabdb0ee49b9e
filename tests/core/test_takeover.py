"""Takeover on a backend that refuses no append: the order of the log decides, for all alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from tests.kit.log_driver import Log, LogQueue

from streamq import (
    BackendError,
    FencedError,
    OnRetry,
    SealedError,
    Settings,
    StreamWriter,
    describe,
    open_reader,
    open_writer,
)
from streamq.driver import Entry, StreamId
from streamq.testing import Empty, FaultyQueue


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log()


@pytest.fixture
def queue(log: Log) -> LogQueue:
    """A queue on it."""
    return LogQueue(log)


async def attempt(
    queue: LogQueue | FaultyQueue,
    settings: Settings,
    epoch: int,
    *texts: str,
    on_retry: OnRetry = OnRetry.RESTART,
) -> StreamWriter:
    """Open an attempt and store some chunks, one record each."""
    writer = await open_writer("s", queue=queue, settings=settings, epoch=epoch, on_retry=on_retry)
    for text in texts:
        await writer.send_chunk(text)
        await writer.flush()
    return writer


async def test_stale_records_after_a_takeover_change_no_number(
    queue: LogQueue, settings: Settings
) -> None:
    """The third attempt has to count delivered events only, not those that no reader saw."""
    first = await attempt(queue, settings, 10, "a", "b")
    second = await attempt(queue, settings, 20, "c", on_retry=OnRetry.RESUME)
    for text in ("stale", "stale", "stale"):
        await first.send_chunk(text)
        await first.flush()
    third = await attempt(queue, settings, 30, on_retry=OnRetry.RESUME)
    assert (third.position, third.attempt) == (3, 3)
    await third.send_chunk("d")
    await third.finish()
    for writer in (first, second, third):
        await writer.aclose()
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["a", "b", "c", "d"]
    assert (await describe("s", queue=queue, settings=settings)).offset == 5


async def test_tail_lies_after_stale_records(queue: LogQueue, settings: Settings) -> None:
    """ "From now on" must not begin with a record that was delivered to no reader."""
    first = await attempt(queue, settings, 10, "a")
    second = await attempt(queue, settings, 20, "b", on_retry=OnRetry.RESUME)
    await first.send_chunk("stale")
    await first.flush()
    async with open_reader("s", from_="tail", queue=queue, settings=settings) as reader:
        assert reader.offset == 2
        await second.send_chunk("c")
        await second.finish()
        assert await reader.collect() == ["c"]
    await first.aclose()
    await second.aclose()


class Overtaken(LogQueue):
    """Something else is stored just before what it appends."""

    def __init__(self, log: Log, before: Callable[[], Awaitable[None]]) -> None:
        super().__init__(log)
        self.before = before

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await self.before()
        await super().append(stream, entries, ttl=ttl)


async def test_seal_that_overtakes_the_next_opening_counts(
    queue: LogQueue, log: Log, settings: Settings
) -> None:
    """The first in the log has ended the stream; the other writer has to get an error."""
    first = await attempt(queue, settings, 10, "a")
    with pytest.raises(SealedError):
        await attempt(Overtaken(log, first.finish), settings, 20)
    await first.aclose()


async def test_seal_that_the_next_opening_overtakes_is_refused(
    queue: LogQueue, log: Log, settings: Settings
) -> None:
    """It is stored, and ends nothing: believing it would lose the chunks of the next attempt."""
    seconds: list[StreamWriter] = []

    async def take_over() -> None:
        if not seconds:
            seconds.append(await attempt(queue, settings, 20, "b"))

    sealing = Overtaken(log, lambda: asyncio.sleep(0))
    first = await attempt(sealing, settings, 10, "a")
    sealing.before = take_over
    with pytest.raises(FencedError):
        await first.finish()
    assert not first.is_sealed
    await seconds[0].finish()
    for writer in (first, *seconds):
        await writer.aclose()
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["b"]


async def test_epoch_in_use_is_refused_by_the_bytes_of_its_opening(
    queue: LogQueue, settings: Settings
) -> None:
    """Two activities of one millisecond: the first one continues, the other one stops."""
    first = await attempt(queue, settings, 10, "a")
    with pytest.raises(FencedError, match="in use by another writer"):
        await attempt(queue, settings, 10)
    await first.finish()
    await first.aclose()


async def test_opening_that_cannot_be_read_is_an_error_of_the_backend(
    queue: LogQueue, settings: Settings
) -> None:
    """A driver that reads less than is stored would give two chunks one number."""
    faulty = FaultyQueue(queue)
    faulty.always("read", Empty())
    with pytest.raises(BackendError, match="does not return it"):
        await attempt(faulty, settings, 10)


async def test_trimmed_takeover_with_stale_records_after_it_can_be_taken_over(
    queue: LogQueue, log: Log, settings: Settings
) -> None:
    """Retention may leave a record of a stale attempt as the oldest of all."""
    first = await attempt(queue, settings, 10, "a", "b", "c")
    second = await attempt(queue, settings, 20, "d")
    for text in ("stale", "stale", "stale"):
        await first.send_chunk(text)
        await first.flush()
    await second.send_chunk("e")
    await second.flush()
    stream = StreamId(settings.tenant, "s")
    log.heads[stream] = len(log.records) - 4  # the first of the stale records
    third = await attempt(queue, settings, 30, "f", on_retry=OnRetry.RESUME)
    assert third.resumed_from == 2
    async with open_reader("s", from_="tail", queue=queue, settings=settings) as reader:
        await third.finish()
        await reader.collect()
        assert reader.offset == 8  # a, b, c, the reset, d, e, f, the end
    for writer in (first, second, third):
        await writer.aclose()
