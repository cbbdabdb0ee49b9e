"""Attempts: which one may write a stream, which one is fenced, and what readers receive."""

import pytest

from streamq import (
    Chunk,
    ConfigurationError,
    FencedError,
    OnRetry,
    Reset,
    SealedError,
    Settings,
    StreamWriter,
    describe,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.testing import FaultyQueue, LoseAcknowledgement

from .test_writer import events_of


async def test_newer_attempt_fences_the_older_writer(queue: ChunkQueue, settings: Settings) -> None:
    """A stalled attempt that wakes up late cannot mix into the new story, and gets an error."""
    old = await open_writer("s", queue=queue, settings=settings, epoch=10)
    await old.send_chunk("old")
    await old.flush()
    new = await open_writer("s", queue=queue, settings=settings, epoch=20)
    await old.send_chunk("too late")
    with pytest.raises(FencedError):
        await old.flush()
    await new.send_chunk("new")
    await new.finish()
    await old.aclose()
    await new.aclose()
    events = await events_of("s", queue, settings)
    shown = [e.value if isinstance(e, Chunk) else type(e).__name__ for e in events]
    assert shown == ["old", "Reset", "new", "Seal"]
    assert [e.offset for e in events] == [1, 2, 3, 4]
    assert isinstance(events[1], Reset)
    assert events[1].attempt == new.attempt == 2


async def test_older_attempt_that_opens_later_is_refused(
    queue: ChunkQueue, settings: Settings
) -> None:
    """It does not matter which attempt opened the stream first, only which is newer."""
    async with open_writer("s", queue=queue, settings=settings, epoch=20) as stream:
        with pytest.raises(FencedError):
            await open_writer("s", queue=queue, settings=settings, epoch=10)
        await stream.send_chunk("a")
    assert len(await events_of("s", queue, settings)) == 2


async def test_resuming_attempt_continues_after_the_last_durable_chunk(
    queue: ChunkQueue, settings: Settings
) -> None:
    """With resume the reader sees one story, and the producer learns where to continue."""
    first = await open_writer("s", queue=queue, settings=settings, on_retry=OnRetry.RESUME)
    for text in "abc":
        await first.send_chunk(text)
    await first.flush()
    await first.aclose()
    async with open_writer("s", queue=queue, settings=settings, on_retry=OnRetry.RESUME) as second:
        assert second.position == second.resumed_from == 3
        assert second.attempt == 2
        await second.send_chunk("d")
    events = await events_of("s", queue, settings)
    assert [e.value for e in events if isinstance(e, Chunk)] == ["a", "b", "c", "d"]
    assert [e.offset for e in events] == [1, 2, 3, 4, 5]


async def test_attempts_that_store_nothing_are_counted(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Offsets and attempt numbers are equal for writer and reader however many attempts die."""
    first = await open_writer("s", queue=queue, settings=settings)
    await first.send_chunk("a")
    await first.aclose()
    for _ in range(40):
        await (await open_writer("s", queue=queue, settings=settings)).aclose()
    async with open_writer("s", queue=queue, settings=settings) as last:
        assert last.attempt == 42
        await last.send_chunk("b")
    events = await events_of("s", queue, settings)
    assert [e.offset for e in events] == list(range(1, 45))
    assert [e.attempt for e in events] == [*range(1, 43), 42, 42]


async def test_sealed_stream_cannot_be_opened_or_written_again(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A stream ends exactly once."""
    stream = await open_writer("s", queue=queue, settings=settings)
    await stream.finish()
    await stream.finish()
    with pytest.raises(SealedError):
        await stream.send_chunk("late")
    with pytest.raises(SealedError):
        await stream.fail("late")
    await stream.aclose()
    with pytest.raises(SealedError, match="already sealed END"):
        await open_writer("s", queue=queue, settings=settings)
    assert len(await events_of("s", queue, settings)) == 1


@pytest.mark.parametrize("epoch", [0, -1, 2**63])
async def test_epoch_outside_its_range_is_refused(
    queue: ChunkQueue, settings: Settings, epoch: int
) -> None:
    """An epoch that a backend cannot store must not become a stream that cannot be fenced."""
    with pytest.raises(ConfigurationError, match="epoch"):
        await open_writer("s", queue=queue, settings=settings, epoch=epoch)


@pytest.mark.parametrize("chunks", [0, 1])
async def test_two_writers_cannot_hold_one_epoch(
    queue: ChunkQueue, settings: Settings, chunks: int
) -> None:
    """Activities scheduled in one millisecond may get the same epoch: one must be refused."""
    async with open_writer("s", queue=queue, settings=settings, epoch=5) as stream:
        for _ in range(chunks):
            await stream.send_chunk("a")
        await stream.flush()
        with pytest.raises(FencedError, match="in use by another writer"):
            await open_writer("s", queue=queue, settings=settings, epoch=5)
        await stream.send_chunk("b")
    events = await events_of("s", queue, settings)
    assert len(events) == chunks + 2


async def test_lost_acknowledgement_of_the_announcement_is_repeated_with_the_same_bytes(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A repeated OPEN is this writer's own, not another writer of its epoch."""
    faulty.script("append", LoseAcknowledgement())
    async with open_writer("s", queue=faulty, settings=settings) as stream:
        await stream.send_chunk("a")
    assert faulty.appends[0] == faulty.appends[1]
    assert len(await events_of("s", faulty, settings)) == 2


async def test_refused_open_of_a_sealed_stream_changes_nothing(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """An attempt on an ended stream must not grow or renew it; the error names the producer."""
    async with open_writer("s", queue=faulty, settings=settings, producer="run/7") as stream:
        await stream.send_chunk("a")
    faulty.calls.clear()
    with pytest.raises(SealedError) as caught:
        await open_writer("s", queue=faulty, settings=settings)
    assert caught.value.producer == "run/7"
    assert faulty.appends == []


async def test_block_left_by_an_exception_can_leave_the_stream_open(
    queue: ChunkQueue, settings: Settings
) -> None:
    """If a next attempt will follow, the end of this attempt is not the end of the stream."""
    opened: list[StreamWriter] = []

    async def fail() -> None:
        async with open_writer("s", queue=queue, settings=settings, seals_failures=False) as stream:
            opened.append(stream)
            await stream.send_chunk("a")
            raise ValueError("passing")

    with pytest.raises(ValueError, match="passing"):
        await fail()
    await opened[0].send_chunk("b")
    await opened[0].aclose()
    status = await describe("s", queue=queue, settings=settings)
    assert (status.offset, status.seal) == (2, None)
