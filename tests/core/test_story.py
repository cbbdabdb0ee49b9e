"""Tests the story: the last attempt of a stream in one call, with its state and the place after."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from streamq import (
    CapabilityError,
    ConfigurationError,
    IdleTimeoutError,
    OnRetry,
    SerializationError,
    Settings,
    StoryTooLargeError,
    StreamNotFoundError,
    TrimmedError,
    open_reader,
    open_writer,
    read_story,
)
from streamq.driver import ChunkQueue, Entry, Stored, StreamId, StreamInfo
from streamq.records._wire import MAX_EPOCH, Record, RecordKind
from streamq.testing import FaultyQueue
from streamq.testing.checks._streams import delivered


async def write(
    queue: ChunkQueue, settings: Settings, *values: object, on_retry: OnRetry = OnRetry.RESTART
) -> None:
    """Write an attempt that does not end the stream."""
    writer = await open_writer("s", queue=queue, settings=settings, on_retry=on_retry)
    for value in values:
        await writer.send_chunk(value)
    await writer.flush()
    await writer.aclose()


async def test_story_is_the_last_attempt_and_its_cursor_goes_on(
    anywhere: tuple[Settings, ChunkQueue],
) -> None:
    """A page that loads late shows the answer at once, and then what comes, each chunk once."""
    settings, queue = anywhere
    await write(queue, settings, "wr", "ong")
    await write(queue, settings, "Hel", "lo")
    story = await read_story("s", queue=queue, settings=settings)
    assert (story.text, story.values, story.state) == ("Hello", ["Hel", "lo"], "OPEN")
    assert (story.attempt, story.offset, story.seal, story.gaps) == (2, 5, None, ())
    async with (
        open_reader("s", from_=story.cursor, queue=queue, settings=settings) as reader,
        open_writer("s", queue=queue, settings=settings, on_retry=OnRetry.RESUME) as writer,
    ):
        await writer.send_chunk("!")
        await writer.finish()
        events = [event async for event in reader]
    assert delivered(events) == ["!", "END"]
    assert [event.offset for event in events] == [6, 7]
    ended = await read_story("s", queue=queue, settings=settings)
    assert (ended.text, ended.state, ended.attempt, ended.offset) == ("Hello!", "END", 3, 7)
    async with open_reader("s", from_=ended.cursor, queue=queue, settings=settings) as reader:
        assert delivered([event async for event in reader]) == ["END"]


async def test_story_opens_a_queue_of_its_own(anywhere: tuple[Settings, ChunkQueue]) -> None:
    """A script asks in one line."""
    settings, queue = anywhere
    await write(queue, settings, "a")
    assert (await read_story("s", settings=settings)).text == "a"


@pytest.mark.parametrize("state", ["ERROR", "CANCELLED"])
async def test_story_of_a_failure_keeps_its_text(
    queue: ChunkQueue, settings: Settings, state: str
) -> None:
    """The text of an answer that was stopped is what its reader has paid for."""
    kind = asyncio.CancelledError if state == "CANCELLED" else RuntimeError
    with contextlib.suppress(kind):
        async with open_writer("s", queue=queue, settings=settings) as writer:
            await writer.send_chunk("half an ans")
            raise kind
    story = await read_story("s", queue=queue, settings=settings)
    assert (story.text, story.state) == ("half an ans", state)
    assert story.seal is not None
    assert story.offset == story.seal.offset


async def test_attempt_that_has_sent_nothing_voids_nothing(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A reader of the events shows the old text until the reset comes, and so does the story."""
    await write(queue, settings, "a", "b")
    opening = Record(RecordKind.OPEN, MAX_EPOCH, restarts=True)
    await queue.append(StreamId("default", "s"), [Entry(MAX_EPOCH, 0, opening.encode())])
    story = await read_story("s", queue=queue, settings=settings)
    assert (story.text, story.attempt) == ("ab", 2)


async def test_story_of_nothing_is_an_error_or_empty(queue: ChunkQueue, settings: Settings) -> None:
    """A mistyped name must not look like an answer without words, unless the caller wants that."""
    with pytest.raises(StreamNotFoundError, match="must_exist=False"):
        await read_story("nope", queue=queue, settings=settings)
    empty = await read_story("s", queue=queue, settings=settings, must_exist=False)
    assert (empty.text, empty.state, empty.attempt, empty.offset) == ("", "OPEN", 0, 0)
    async with open_reader("s", from_=empty.cursor, queue=queue, settings=settings) as reader:
        await write(queue, settings, "first")
        assert delivered(await reader.read_batch()) == ["first"]


class _NeverCaughtUp(FaultyQueue):
    """Another chunk is stored before each read: a producer that is quicker than its reader."""

    settings: Settings
    writer: Any = None

    async def read(self, stream: StreamId, after: str, **options: Any) -> Sequence[Stored]:
        if self.writer is not None:
            await self.writer.send_chunk("later")
            await self.writer.flush()
        return await super().read(stream, after, **options)


async def test_story_ends_although_its_producer_goes_on(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A request for what there is now has to be answered now."""
    busy = _NeverCaughtUp(queue)
    async with open_writer("s", queue=queue, settings=settings) as writer:
        await writer.send_chunk("now")
        await writer.flush()
        busy.writer = writer
        async with asyncio.timeout(5):
            story = await read_story("s", queue=busy, settings=settings)
        busy.writer = None
        assert (story.text, story.offset) == ("now", 1)
        async with open_reader("s", from_=story.cursor, queue=queue, settings=settings) as reader:
            assert delivered(await reader.read_batch()) == ["later"]


async def test_story_beyond_its_bound_is_an_error_not_a_part(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Half of an answer that looks whole is worse than none, and memory has an end."""
    await write(queue, settings, *["x" * 1_000] * 10)
    with pytest.raises(StoryTooLargeError, match=r"10,000 bytes.*max_bytes"):
        await read_story("s", queue=queue, settings=settings, max_bytes=10_000)
    assert len((await read_story("s", queue=queue, settings=settings, max_bytes=11_000)).text)
    await write(queue, settings, *["x"] * 3_000)
    await write(queue, settings, "short")
    story = await read_story("s", queue=queue, settings=settings, max_bytes=200)
    assert story.text == "short", "an attempt that was voided takes no part of the bound"
    with pytest.raises(ConfigurationError, match="max_bytes"):
        await read_story("s", queue=queue, settings=settings, max_bytes=0)


async def test_values_that_are_no_text_are_an_error_where_text_is_asked_for(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A dict in the middle of a sentence is a mistake of the caller, and is said to be one."""
    await write(queue, settings, {"step": 1}, "a")
    story = await read_story("s", queue=queue, settings=settings)
    assert story.values == [{"step": 1}, "a"]
    with pytest.raises(SerializationError, match=r"event 1 .*dict, not text"):
        _ = story.text


async def test_bytes_are_text_also_where_a_chunk_ends_within_a_character(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The output of a process comes in pieces of any length."""
    sea = "Straße, Meer".encode()
    await write(queue, settings, sea[:5])
    assert (await read_story("s", queue=queue, settings=settings)).text == "Stra"
    await write(queue, settings, sea[5:], on_retry=OnRetry.RESUME)
    assert (await read_story("s", queue=queue, settings=settings)).text == "Straße, Meer"
    await write(queue, settings, b"\xff\xfe")
    broken = await read_story("s", queue=queue, settings=settings)
    assert broken.values == [b"\xff\xfe"]
    with pytest.raises(SerializationError, match="not text in UTF-8"):
        _ = broken.text


async def test_value_type_is_that_of_every_value(queue: ChunkQueue, settings: Settings) -> None:
    """Results are used with their types; one of another type hides no other."""

    @dataclasses.dataclass
    class Step:
        number: int

    await write(queue, settings, {"number": 1}, {"number": "x"})
    story = await read_story("s", queue=queue, settings=settings, value_type=Step)
    assert story.chunks[0].value == Step(1)
    with pytest.raises(SerializationError, match="Step"):
        _ = story.values


class _Trimmed(FaultyQueue):
    """Withholds the oldest records."""

    async def read(self, stream: StreamId, after: str, **options: Any) -> Sequence[Stored]:
        found = await super().read(stream, after, **options)
        return found[2:] if after == "" else found


async def test_missing_events_are_an_error_unless_gaps_are_accepted(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A text whose beginning is gone must not look whole."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        for value in ("a", "b", "c"):
            await writer.send_chunk(value)
            await writer.flush()
    trimmed = _Trimmed(queue)
    with pytest.raises(TrimmedError) as caught:
        await read_story("s", queue=trimmed, settings=settings)
    assert caught.value.oldest == 2
    story = await read_story("s", queue=trimmed, settings=settings, gaps_as_events=True)
    assert (story.text, [(gap.first, gap.offset) for gap in story.gaps]) == ("bc", [(1, 1)])


async def test_missing_events_of_a_voided_attempt_are_of_no_concern(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The last attempt is whole, whatever has been trimmed before it."""
    for value in ("a", "b"):
        await write(queue, settings, value)
    story = await read_story("s", queue=_Trimmed(queue), settings=settings)
    assert (story.text, story.gaps) == ("b", ())


class _Promises(FaultyQueue):
    """Describes a stream that is gone by the time that it is read."""

    other: ChunkQueue

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await self.other.describe(StreamId("default", "longer"), last=last)
        return dataclasses.replace(info, stream=stream)


async def test_stream_that_began_again_meanwhile_does_not_hang(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Between the question and the reading a stream may be deleted and written anew."""
    await write(queue, settings, "a")
    async with open_writer("longer", queue=queue, settings=settings) as writer:
        for value in ("a", "b", "c"):
            await writer.send_chunk(value)
    promises = _Promises(queue)
    promises.other = queue
    quick = settings.model_copy(update={"operation_seconds": 0.05})
    with pytest.raises(IdleTimeoutError, match="only 1 of them"):
        await read_story("s", queue=promises, settings=quick)


async def test_backend_whose_reader_takes_records_away_is_refused(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A look at the text must not take it from the one reader that waits for it."""
    await write(queue, settings, "a")
    capabilities = dataclasses.replace(queue.capabilities, replay=False)
    with pytest.raises(CapabilityError, match="replay"):
        await read_story("s", queue=FaultyQueue(queue, capabilities=capabilities))


async def test_backend_that_does_not_fence_has_the_same_story(
    queue: ChunkQueue, settings: Settings
) -> None:
    """What a stale attempt has stored late is no part of the last attempt."""

    class Unfenced(FaultyQueue):
        async def newest_epoch(self, stream: StreamId) -> int:
            return 0

    await write(queue, settings, "a")
    await write(queue, settings, "b", "c")
    unfenced = Unfenced(queue, capabilities=dataclasses.replace(queue.capabilities, fenced=False))
    story = await read_story("s", queue=unfenced, settings=settings)
    assert (story.text, story.offset, story.attempt) == ("bc", 4, 2)
