"""The reader: cursors, batches, tail, deadlines, damage."""

import asyncio
import dataclasses
import itertools
import time

import pytest

from streamq import (
    BackendUnavailableError,
    CapabilityError,
    Chunk,
    ClosedError,
    ConfigurationError,
    CorruptRecordError,
    CursorError,
    Event,
    Gap,
    IdleTimeoutError,
    Reset,
    Seal,
    SealState,
    Settings,
    StreamCancelledError,
    StreamNotFoundError,
    StreamReader,
    TrimmedError,
    describe,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.records._values import Encoding
from streamq.records._wire import Record, RecordKind, SealBody
from streamq.testing import FaultyQueue


async def write(name: str, queue: ChunkQueue, settings: Settings, *texts: str) -> None:
    """Write a sealed stream whose chunks are packed into as few records as possible."""
    async with open_writer(name, queue=queue, settings=settings) as stream:
        for text in texts:
            await stream.send_chunk(text)


def values(events: list[Event]) -> list[object]:
    return [event.value for event in events if isinstance(event, Chunk)]


async def append(queue: ChunkQueue, name: str, record: Record) -> None:
    """Store a record directly, as another writer's bytes."""
    index = record.seq + len(record.chunks) + 1
    entry = Entry(record.epoch, index, record.encode())
    await queue.append(StreamId("default", name), [entry])


async def test_reader_that_joins_after_the_end_gets_everything(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A browser opened a minute later shows the same story."""
    await write("s", queue, settings, "a", "b")
    async with open_reader("s", queue=queue, settings=settings) as reader:
        events = [event async for event in reader]
        assert values(events) == ["a", "b"]
        assert isinstance(events[-1], Seal)
        assert [event async for event in reader] == []


async def test_ten_readers_each_get_everything_with_the_same_offsets(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Reading removes nothing, and an offset means the same to every reader."""

    async def read(from_the_start: asyncio.Event) -> list[Event]:
        async with open_reader("s", queue=queue, settings=settings) as reader:
            from_the_start.set()
            return [event async for event in reader]

    started = [asyncio.Event() for _ in range(10)]
    readers = [asyncio.create_task(read(event)) for event in started]
    for event in started:
        await event.wait()
    await write("s", queue, settings, *map(str, range(500)))
    results = await asyncio.gather(*readers)
    assert all(result == results[0] for result in results)
    assert [event.offset for event in results[0]] == list(range(1, 502))


async def test_chunk_arrives_while_the_producer_still_runs(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The whole point: the reader gets a chunk at once, not at the end."""
    async with (
        open_reader("s", queue=queue, settings=settings) as reader,
        open_writer("s", queue=queue, settings=settings) as stream,
    ):
        for text in ("a", "b"):
            await stream.send_chunk(text)
            event = await anext(reader)
            assert isinstance(event, Chunk)
            assert event.value == text
            assert not stream.is_sealed


async def test_cursor_in_the_middle_of_a_packed_record_continues_with_the_next_chunk(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Packing is invisible: a new reader can resume at every single place of a stream."""
    await write("s", queue, settings, *map(str, range(20)))
    cursors = []
    async with open_reader("s", queue=queue, settings=settings) as reader:
        cursors.append(reader.cursor)
        async for _ in reader:
            cursors.append(reader.cursor)
        assert reader.statistics().records <= 3, "the chunks should be packed for this test"
    for place, cursor in enumerate(cursors):
        async with open_reader("s", from_=cursor, queue=queue, settings=settings) as reader:
            assert reader.offset == min(place, 20)
            events = [event async for event in reader]
            assert values(events) == [str(i) for i in range(place, 20)]
            assert isinstance(events[-1], Seal), "also a cursor taken after the end ends at once"


async def test_batches_cover_the_stream_once_whatever_their_limits(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Poll activities read in batches; limits must not lose or repeat a chunk."""
    texts = [str(i) * (i % 7) for i in range(50)]
    await write("s", queue, settings, *texts)
    for max_events, max_bytes in itertools.product((1, 3, 1_000), (1, 10, 10_000)):
        got: list[Event] = []
        cursor = "beginning"
        while not (got and isinstance(got[-1], Seal)):
            async with open_reader("s", from_=cursor, queue=queue, settings=settings) as reader:
                batch = await reader.read_batch(
                    max_events=max_events, max_bytes=max_bytes, max_wait=1
                )
                cursor = reader.cursor
            assert 0 < len(batch) <= max_events
            size = sum(len(e.data) for e in batch if isinstance(e, Chunk))
            assert len(batch) == 1 or size <= max_bytes
            got += batch
        assert values(got) == texts
        assert [event.offset for event in got] == list(range(1, 52))


async def test_batch_waits_no_longer_than_requested_and_is_empty_then(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A poll of an idle stream ends in time, so that its activity can end."""
    async with open_reader("s", queue=queue, settings=settings) as reader:
        before = time.monotonic()
        async with asyncio.timeout(60):
            assert await reader.read_batch(max_wait=0.05) == []
        assert time.monotonic() - before >= 0.04


async def test_batch_after_the_end_is_empty_at_once(queue: ChunkQueue, settings: Settings) -> None:
    """Reading an ended stream again must not wait."""
    await write("s", queue, settings, "a")
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert len(await reader.read_batch(max_wait=1)) == 2
        async with asyncio.timeout(1):
            assert await reader.read_batch(max_wait=30) == []


async def test_cancelled_read_loses_nothing(queue: ChunkQueue, settings: Settings) -> None:
    """A consumer that races a reader against a timeout may cancel it at any time."""
    got: list[object] = []
    async with open_reader("s", queue=queue, settings=settings) as reader:
        writing = asyncio.create_task(write("s", queue, settings, *map(str, range(300))))
        while not reader.seal:
            try:
                async with asyncio.timeout(0.0005):
                    event = await anext(reader)
            except TimeoutError:
                continue
            if isinstance(event, Chunk):
                got.append(event.value)
        await writing
    assert got == [str(i) for i in range(300)]


async def test_tail_is_resolved_once_and_misses_nothing_after_it(
    queue: ChunkQueue, settings: Settings
) -> None:
    """ "Live only" must not skip what is sent between attaching and the first read."""
    async with open_writer("s", queue=queue, settings=settings) as stream:
        await stream.send_chunk("old")
        await stream.flush()
        async with open_reader("s", from_="tail", queue=queue, settings=settings) as reader:
            await stream.send_chunk("new")
            await stream.finish()
            events = [event async for event in reader]
    assert values(events) == ["new"]
    assert [event.offset for event in events] == [2, 3]


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "b", "c"]])
async def test_tail_of_an_ended_stream_ends_at_once(
    queue: ChunkQueue, settings: Settings, texts: list[str]
) -> None:
    """A late live reader must learn of the ending instead of waiting for its deadline."""
    await write("s", queue, settings, *texts)
    async with open_reader("s", from_="tail", queue=queue, settings=settings) as reader:
        events = [event async for event in reader]
    assert [type(event) for event in events] == [Seal]
    assert events[0].offset == len(texts) + 1


async def test_tail_of_a_stream_that_does_not_exist_yet_sees_all_of_it(
    queue: ChunkQueue, settings: Settings
) -> None:
    """All of its events come after now."""
    async with open_reader("s", from_="tail", queue=queue, settings=settings) as reader:
        await write("s", queue, settings, "a")
        assert await reader.collect() == ["a"]


async def test_tail_after_a_takeover_continues_the_numbering(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A live reader of the second attempt sees the same offsets as a reader from the beginning."""
    first = await open_writer("s", queue=queue, settings=settings)
    await first.send_chunk("a")
    await first.aclose()
    async with (
        open_writer("s", queue=queue, settings=settings) as second,
        open_reader("s", from_="tail", queue=queue, settings=settings) as reader,
    ):
        assert await anext(reader) == Reset(2, 2)
        await second.send_chunk("A")
        event = await anext(reader)
    assert (event.offset, event.attempt) == (3, 2)


async def test_collect_returns_the_successful_attempt_only(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Only the values after the last reset are valid."""
    first = await open_writer("s", queue=queue, settings=settings)
    await first.send_chunk("draft")
    await first.aclose()
    await write("s", queue, settings, "final")
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["final"]


async def test_idle_deadline_ends_a_reader_whose_producer_is_gone(
    queue: ChunkQueue, settings: Settings
) -> None:
    """No reader waits for ever."""
    stream = await open_writer("s", queue=queue, settings=settings)
    await stream.send_chunk("a")
    await stream.aclose()
    async with open_reader("s", queue=queue, settings=settings, idle_seconds=0.05) as reader:
        await anext(reader)
        with pytest.raises(IdleTimeoutError, match=r"nothing arrived on stream default/s for"):
            await anext(reader)


async def test_stream_that_must_exist_and_does_not_is_an_error(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A mistyped name must not look like a stream that is slow to start."""
    with pytest.raises(StreamNotFoundError):
        await open_reader("nope", queue=queue, settings=settings, must_exist=True)
    with pytest.raises(StreamNotFoundError):
        await describe("nope", queue=queue, settings=settings)


async def test_cursor_of_another_stream_is_refused_at_open(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Before anything is read."""
    async with open_reader("a", queue=queue, settings=settings) as reader:
        token = reader.cursor
    with pytest.raises(CursorError, match="another stream"):
        await open_reader("b", from_=token, queue=queue, settings=settings)
    with pytest.raises(CursorError, match="is not a cursor"):
        await open_reader("a", from_="begining", queue=queue, settings=settings)


async def test_corrupted_bytes_come_after_the_good_ones_and_stay_an_error(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Intact events are delivered; then the reader raises the same error every time."""
    stream = await open_writer("s", queue=queue, settings=settings, epoch=5)
    await stream.send_chunk("good")
    await stream.aclose()
    await queue.append(StreamId("default", "s"), [Entry(5, 99, b"\x01\x07garbage!")])
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert values([await anext(reader)]) == ["good"]
        for _ in range(2):
            with pytest.raises(CorruptRecordError, match="checksum") as caught:
                await anext(reader)
            assert caught.value.stream == "default/s"
        with pytest.raises(CorruptRecordError):
            await reader.read_batch(max_wait=0)


async def test_trimmed_head_raises_or_is_delivered_as_a_gap(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A backend that dropped old records must not make a stream look shorter."""
    record = Record(RecordKind.DATA, 5, True, 1, 3, 4, (), SealBody(SealState.END))
    await append(queue, "s", record)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        with pytest.raises(TrimmedError) as caught:
            await anext(reader)
        assert caught.value.oldest == 4
    async with open_reader("s", queue=queue, settings=settings, gaps_as_events=True) as reader:
        first = await anext(reader)
        assert first == Gap(1, 3, 1)


async def test_outage_is_retried_and_then_raised(queue: ChunkQueue, settings: Settings) -> None:
    """A reader recovers within its deadline, and never stays silent beyond it."""
    await write("s", queue, settings, "a")
    real = queue.read
    failures = iter([True, True, False])

    async def flaky(*args: object, **kwargs: object) -> object:
        if next(failures, False):
            raise BackendUnavailableError("down")
        return await real(*args, **kwargs)  # type: ignore[arg-type]

    queue.read = flaky  # type: ignore[method-assign, assignment]
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["a"]

    failures = iter([True])
    impatient = settings.model_copy(update={"retry_seconds": 0.0})
    async with open_reader("s", queue=queue, settings=impatient) as reader:
        with pytest.raises(BackendUnavailableError):
            await anext(reader)


async def test_closed_reader_raises(queue: ChunkQueue, settings: Settings) -> None:
    """Use after close is the caller's mistake, reported as such; closing twice is not."""
    reader = await open_reader("s", queue=queue, settings=settings)
    await reader.aclose()
    await reader.aclose()
    with pytest.raises(ClosedError):
        await anext(reader)
    assert isinstance(reader, StreamReader)


async def test_reset_is_an_event_with_its_own_offset(queue: ChunkQueue, settings: Settings) -> None:
    """Readers learn of the second attempt even before it has sent a chunk."""
    first = await open_writer("s", queue=queue, settings=settings)
    await first.send_chunk("a")
    await first.aclose()
    async with open_reader("s", queue=queue, settings=settings) as reader:
        await anext(reader)
        second = await open_writer("s", queue=queue, settings=settings)
        assert await anext(reader) == Reset(2, 2)
        token = reader.cursor
        await second.send_chunk("A")
        await second.finish()
        await second.aclose()
    async with open_reader("s", from_=token, queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["A"]


async def test_required_capability_that_is_missing_is_refused_at_open(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A caller that needs durability must not find out after the crash; the message helps."""
    for opening in (
        open_reader("s", queue=queue, settings=settings, require={"durable"}),
        open_writer("s", queue=queue, settings=settings, require=["replay", "durable"]),
    ):
        with pytest.raises(CapabilityError, match=r"does not offer durable; .*sqlite"):
            await opening
    with pytest.raises(StreamNotFoundError):
        await describe("s", queue=queue, settings=settings)
    with pytest.raises(ConfigurationError, match="'speed' is not a capability"):
        await open_reader("s", queue=queue, settings=settings, require={"speed"})


async def test_tail_of_a_backend_without_fence_and_order_is_refused(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Where stale records may follow an opening, and in any order, the tail proves nothing."""
    await write("s", queue, settings, "a")
    fenced = dataclasses.replace(queue.capabilities, ordered=False)
    neither = FaultyQueue(queue, capabilities=dataclasses.replace(fenced, fenced=False))
    with pytest.raises(CapabilityError, match="takes replay, and a fence or order"):
        await open_reader("s", from_="tail", queue=neither, settings=settings)
    with pytest.raises(CapabilityError, match="does not fence"):
        await open_writer("t", queue=neither, settings=settings)
    with pytest.raises(StreamNotFoundError):
        await describe("t", queue=FaultyQueue(queue, capabilities=fenced), settings=settings)


async def test_a_cursor_stays_before_records_that_are_held_back(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Where records overtake each other, a reader that resumes needs the early ones as well."""
    queue = FaultyQueue(queue, capabilities=dataclasses.replace(queue.capabilities, ordered=False))
    stream = StreamId("default", "s")

    async def store(index: int, offset: int, seal: SealBody | None = None) -> None:
        chunks = ((Encoding.TEXT, b"%d" % offset),)
        record = Record(RecordKind.DATA, 5, True, 1, offset - 1, offset, chunks, seal)
        await queue.append(stream, [Entry(5, index, record.encode())])

    await store(1, 1)
    async with open_reader("s", queue=queue, settings=settings) as early:
        assert values(await early.read_batch(max_wait=0)) == ["1"]
        await store(2, 3, SealBody(SealState.END))
        assert await early.read_batch(max_wait=0) == []
        assert early.statistics().buffered_bytes == 1
        cursor = early.cursor
        await store(3, 2)
        assert values(await early.read_batch(max_wait=0)) == ["2", "3"]
        assert early.statistics().buffered_bytes == 0
    async with open_reader("s", from_=cursor, queue=queue, settings=settings) as late:
        assert await late.collect() == ["2", "3"]


async def test_the_error_of_a_cancelled_stream_names_it(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A caller that collects from many streams has to know which one was cancelled."""
    writer = await open_writer("s", queue=queue, settings=settings)
    await writer.cancel()
    await writer.aclose()
    async with open_reader("s", queue=queue, settings=settings) as reader:
        with pytest.raises(StreamCancelledError) as caught:
            await reader.collect()
    assert caught.value.stream == "default/s"


async def test_waiting_for_an_event_delivers_none(queue: ChunkQueue, settings: Settings) -> None:
    """Who reads several streams waits for all of them, and takes from one."""
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert not reader.is_ready
        assert await reader.read_batch(max_events=0, max_wait=0) == []
        waiting = asyncio.create_task(reader.read_batch(max_events=0, max_wait=5))
        await write("s", queue, settings, "a", "b")
        assert await waiting == []
        assert (reader.is_ready, reader.offset) == (True, 0)
        assert values(await reader.read_batch(max_events=1)) == ["a"]
