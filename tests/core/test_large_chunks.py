"""Chunks larger than the backend's records: split into parts, joined by readers."""

from __future__ import annotations

import dataclasses

import pytest

from streamq import (
    BackendError,
    Chunk,
    ChunkTooLargeError,
    Gap,
    OnRetry,
    Seal,
    Settings,
    describe,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, StreamId
from streamq.testing import Block, FaultyQueue, LoseAcknowledgement, StorePrefix

from .test_writer import events_of

LIMIT = 4_096
STREAM = StreamId("default", "s")


@pytest.fixture
def narrow(queue: ChunkQueue) -> FaultyQueue:
    """The memory queue with the smallest records that are allowed."""
    return FaultyQueue(
        queue, capabilities=dataclasses.replace(queue.capabilities, max_record_bytes=LIMIT)
    )


@pytest.mark.parametrize("size", [0, LIMIT - 71, LIMIT - 70, LIMIT - 69, LIMIT, 5 * LIMIT, 100_000])
async def test_chunks_of_any_size_arrive_whole(
    narrow: FaultyQueue, settings: Settings, size: int
) -> None:
    """Users need not know the record limit of a backend."""
    values = ["before", "x" * size, "after"]
    async with open_writer("s", queue=narrow, settings=settings) as writer:
        for value in values:
            await writer.send_chunk(value)
    async with open_reader("s", queue=narrow, settings=settings) as reader:
        events = [event async for event in reader]
        assert reader.statistics().buffered_bytes == 0
    assert [event.value for event in events if isinstance(event, Chunk)] == values
    assert [event.offset for event in events] == [1, 2, 3, 4]
    assert max(len(entry.data) for append in narrow.appends for entry in append) <= LIMIT


async def test_a_cursor_next_to_a_large_chunk_repeats_and_loses_nothing(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """A reader that stops after any event continues at exactly the next one."""
    values = ["a", "b" * 10_000, "c" * 9_000, "d"]
    async with open_writer("s", queue=narrow, settings=settings) as writer:
        for value in values:
            await writer.send_chunk(value)
    cursors = ["beginning"]
    async with open_reader("s", queue=narrow, settings=settings) as reader:
        async for _ in reader:
            cursors.append(reader.cursor)
    for place, cursor in enumerate(cursors[:-1]):
        async with open_reader("s", from_=cursor, queue=narrow, settings=settings) as reader:
            assert await reader.collect() == values[place:]


async def test_a_reader_that_leaves_among_the_parts_comes_back_to_the_whole_chunk(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """A cursor never points into a chunk: the first parts would be missing."""
    writer = await open_writer("s", queue=narrow, settings=settings)
    await writer.send_chunk("a")
    await writer.flush()
    repetition = Block()
    narrow.script("append", StorePrefix(2), repetition)
    await writer.send_chunk("b" * 10_000)
    await repetition.reached()
    async with open_reader("s", queue=narrow, settings=settings) as early:
        assert len(await early.read_batch(max_wait=1)) == 1
        await early.read_batch(max_wait=0.01)
        assert 8_000 < early.statistics().buffered_bytes < 10_000, "the parts are held, too"
        cursor = early.cursor
    repetition.release()
    await writer.finish()
    await writer.aclose()
    async with open_reader("s", from_=cursor, queue=narrow, settings=settings) as reader:
        assert await reader.collect() == ["b" * 10_000]


async def test_the_tail_of_a_stream_with_an_incomplete_chunk_lies_before_it(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """ "From now on" includes a chunk that is not complete yet, however many parts it has."""
    writer = await open_writer("s", queue=narrow, settings=settings)
    await writer.send_chunk("a")
    await writer.flush()
    repetition = Block()
    narrow.script("append", StorePrefix(20), repetition)
    await writer.send_chunk("b" * 100_000)
    await repetition.reached()
    async with open_reader("s", from_="tail", queue=narrow, settings=settings) as reader:
        assert reader.offset == 1
        repetition.release()
        await writer.finish()
        assert await reader.collect() == ["b" * 100_000]
    await writer.aclose()


@pytest.mark.parametrize("policy", OnRetry)
async def test_a_takeover_among_the_parts_drops_them(
    narrow: FaultyQueue, settings: Settings, policy: OnRetry
) -> None:
    """Half a chunk of a dead attempt belongs to no reader."""
    impatient = settings.model_copy(update={"retry_seconds": 0.0})
    first = await open_writer("s", queue=narrow, settings=impatient, epoch=10, on_retry=policy)
    await first.send_chunk("a")
    await first.flush()
    narrow.script("append", StorePrefix(1))
    await first.send_chunk("b" * 10_000)
    await first.wait_stopped()
    await first.aclose()
    assert (await describe("s", queue=narrow, settings=settings)).offset == 1
    async with open_writer(
        "s", queue=narrow, settings=settings, epoch=20, on_retry=policy
    ) as second:
        for value in ["a", "B" * 10_000][second.position :]:
            await second.send_chunk(value)
    async with open_reader("s", queue=narrow, settings=settings) as reader:
        assert await reader.collect() == ["a", "B" * 10_000]


async def test_a_lost_acknowledgement_repeats_the_same_parts(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """Splitting the chunk again could number its parts differently."""
    async with open_writer("s", queue=narrow, settings=settings) as writer:
        narrow.script("append", LoseAcknowledgement())
        await writer.send_chunk("x" * 20_000)
    assert narrow.appends[1] == narrow.appends[2]
    events = await events_of("s", narrow, settings)
    assert [len(e.data) for e in events if isinstance(e, Chunk)] == [20_000]


async def test_a_chunk_whose_head_was_trimmed_is_one_gap(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """The rest of it is still stored but is no chunk: it is missing, once, and nothing else is."""
    async with open_writer("s", queue=narrow, settings=settings) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        await writer.send_chunk("b" * 10_000)
        await writer.send_chunk("c")
    stored = await narrow.read(STREAM, "", max_records=3, max_bytes=10**6, max_wait=0)
    trimmed = FaultyQueue(narrow)
    at = stored[-1].position
    original = trimmed.read

    async def read(stream: StreamId, after: str, **bounds: object) -> object:
        return await original(stream, after or at, **bounds)  # type: ignore[arg-type]

    trimmed.read = read  # type: ignore[method-assign, assignment]
    async with open_reader("s", queue=trimmed, settings=settings, gaps_as_events=True) as reader:
        events = [event async for event in reader]
    assert isinstance(events[0], Gap)
    assert (events[0].first, events[0].offset) == (1, 1)
    assert isinstance(events[1], Gap)
    assert (events[1].first, events[1].offset) == (2, 2)
    assert isinstance(events[2], Chunk)
    assert events[2].value == "c"
    assert isinstance(events[3], Seal)


async def test_the_users_own_limit_still_refuses_before_anything_is_stored(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """STREAMQ_MAX_CHUNK_BYTES is a decision, not a property of the backend."""
    small = settings.model_copy(update={"max_chunk_bytes": 10_000})
    async with open_writer("s", queue=narrow, settings=small) as writer:
        await writer.send_chunk("x" * 10_000)
        with pytest.raises(ChunkTooLargeError):
            await writer.send_chunk("x" * 10_001)
    assert len(await events_of("s", narrow, settings)) == 2


async def test_a_long_failure_message_fits_the_smallest_record(
    narrow: FaultyQueue, settings: Settings
) -> None:
    """A seal is never split, so a text that is too long for it is cut."""
    writer = await open_writer("s", queue=narrow, settings=settings, producer="p" * 2_000)
    await writer.fail("ü" * 5_000, error_type="E" * 1_000)
    await writer.aclose()
    seal = (await events_of("s", narrow, settings))[-1]
    assert isinstance(seal, Seal)
    assert seal.message
    assert set(seal.message) == {"ü"}
    assert max(len(entry.data) for append in narrow.appends for entry in append) <= LIMIT


async def test_a_backend_with_tiny_records_is_refused_at_open(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Better than a stream that cannot be ended."""
    tiny = FaultyQueue(
        queue, capabilities=dataclasses.replace(queue.capabilities, max_record_bytes=4_095)
    )
    with pytest.raises(BackendError, match="4096"):
        await open_writer("s", queue=tiny, settings=settings)
    assert tiny.appends == []
