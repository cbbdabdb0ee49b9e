"""Tests of readers that begin at the latest value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from streamq import (
    DriverError,
    OnRetry,
    Settings,
    StreamNotFoundError,
    StreamWriter,
    describe,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, Stored, StreamId, StreamInfo
from streamq.records._wire import MAX_EPOCH, Record, RecordKind
from streamq.testing import FaultyQueue
from streamq.testing.checks._streams import delivered

STREAM = StreamId("default", "s")


class _Unfenced(FaultyQueue):
    """A queue that does not fence, where nothing stale is stored."""

    async def newest_epoch(self, stream: StreamId) -> int:
        try:
            (newest,) = (await self.describe(stream, last=1)).last
        except StreamNotFoundError:
            return 0
        return Record.decode(newest.data).epoch


@pytest.fixture(params=[True, False], ids=["fenced", "not fenced"])
def queue(queue: ChunkQueue, request: pytest.FixtureRequest) -> ChunkQueue:
    if request.param:
        return queue
    unfenced = _Unfenced(queue)
    unfenced.capabilities = dataclasses.replace(queue.capabilities, fenced=False)
    return unfenced


async def write(queue: ChunkQueue, settings: Settings, story: Sequence[Any]) -> list[StreamWriter]:
    """Write a stream by a short program; return its writers.

    A list is an attempt: its values are flushed one by one, or together where they are a tuple.
    ``"RESUME"`` begins an attempt that resumes, and ``"."`` ends the stream.
    """
    writers = []
    for attempt in story:
        resumes = attempt[:1] == ["RESUME"]
        on_retry = OnRetry.RESUME if resumes else OnRetry.RESTART
        writer = await open_writer("s", queue=queue, settings=settings, on_retry=on_retry)
        writers.append(writer)
        await writer.flush()  # stores the reset
        for step in attempt[resumes:]:
            if step == ".":
                await writer.finish()
                break
            for value in step if isinstance(step, tuple) else (step,):
                await writer.send_chunk(value)
            await writer.flush()
    return writers


STORIES: list[tuple[list[Any], list[object]]] = [
    ([["a"]], ["a"]),
    ([["a", "b"]], ["b"]),
    ([[("a", "b", "c")]], ["c"]),
    ([["a", ("b", "c"), "."]], ["c", "END"]),
    ([["."]], ["END"]),
    ([[]], []),
    ([["a", "b"], []], []),
    ([["a", "b"], *([["RESUME"]] * 6)], ["b"]),
    ([["a"], ["A"]], ["A"]),
    ([["a"], ["A", "B"], ["RESUME"]], ["B"]),
    ([["a"], ["RESUME", "b", "."]], ["b", "END"]),
    ([["a"], ["."]], ["END"]),
    ([["a", "b"], ["A", "."]], ["A", "END"]),
]


@pytest.mark.parametrize(("story", "expected"), STORIES, ids=str)
async def test_reader_begins_with_the_latest_value(
    queue: ChunkQueue, settings: Settings, story: list[Any], expected: list[object]
) -> None:
    """A dashboard shows the current value at once, and never one that a reset has voided."""
    writers = await write(queue, settings, story)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        everything = await reader.read_batch(max_wait=0)
    async with open_reader("s", from_="last", queue=queue, settings=settings) as reader:
        events = await reader.read_batch(max_wait=0)
        assert delivered(events) == expected
        assert events == everything[len(everything) - len(events) :], "offsets and attempts agree"
        if writers[-1].is_sealed:
            return
        await writers[-1].send_chunk("new")
        await writers[-1].finish()
        later = [event async for event in reader]
    assert delivered(later) == ["new", "END"]
    assert [event.offset for event in later] == [len(everything) + 1, len(everything) + 2]


async def test_value_of_a_stream_to_come_is_live(queue: ChunkQueue, settings: Settings) -> None:
    """A dashboard may be opened before its job."""
    async with open_reader("s", from_="last", queue=queue, settings=settings) as reader:
        await write(queue, settings, [["a", "b", "."]])
        assert delivered([event async for event in reader]) == ["a", "b", "END"]


async def test_attempt_that_died_before_its_reset_voids_nothing(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Readers from the beginning still show the value, too."""
    await write(queue, settings, [["a", "b"]])
    for epoch in range(40):
        opening = Record(RecordKind.OPEN, MAX_EPOCH - 40 + epoch, restarts=True)
        await queue.append(STREAM, [Entry(opening.epoch, 0, opening.encode())])
    async with open_reader("s", from_="last", queue=queue, settings=settings) as reader:
        assert delivered(await reader.read_batch(max_wait=0)) == ["b"]


@pytest.fixture
def narrow(queue: ChunkQueue) -> ChunkQueue:
    """The queue with small records, so that a chunk takes many."""
    kind = FaultyQueue if queue.capabilities.fenced else _Unfenced
    capabilities = dataclasses.replace(queue.capabilities, max_record_bytes=65_536)
    return kind(queue, capabilities=capabilities)


@pytest.mark.parametrize("after", [[], [["RESUME"]]], ids=["its attempt", "a resuming attempt"])
async def test_value_in_parts_is_the_latest_once_it_is_complete(
    narrow: ChunkQueue, settings: Settings, after: list[Any]
) -> None:
    """A value larger than a record is found by its last part, and read from its first."""
    large = "x" * 600_000
    await write(narrow, settings, [["a", large], *after])
    async with open_reader("s", from_="last", queue=narrow, settings=settings) as reader:
        assert delivered(await reader.read_batch(max_wait=0)) == [large]
    records = [Record.decode(each.data) for each in (await narrow.describe(STREAM, last=3)).last]
    part = next(record for record in records if record.kind is RecordKind.DATA)
    first = dataclasses.replace(
        part, epoch=records[0].epoch, part=0, parts=9, offset=part.offset + 1, seq=part.seq + 1
    )
    await narrow.append(STREAM, [Entry(first.epoch, 1_000_000, first.encode())])
    async with open_reader("s", from_="last", queue=narrow, settings=settings) as reader:
        assert delivered(await reader.read_batch(max_wait=0)) == [large], "the next is incomplete"


async def test_trimmed_stream_begins_with_its_latest_value(
    queue: ChunkQueue, settings: Settings
) -> None:
    """What is missing before the latest value is of no concern to a dashboard."""
    await write(queue, settings, [[str(number) for number in range(30)]])
    (kept,) = (await queue.describe(STREAM, last=1)).last
    await queue.delete(STREAM)
    record = Record.decode(kept.data)
    await queue.append(STREAM, [Entry(record.epoch, 40, kept.data)])
    async with open_reader("s", from_="last", queue=queue, settings=settings) as reader:
        assert delivered(await reader.read_batch(max_wait=0)) == ["29"]
        assert reader.offset == 30


class _Counts(FaultyQueue):
    """Counts the records that are read."""

    records = 0

    async def read(self, *args: Any, **options: Any) -> Sequence[Stored]:
        found = await super().read(*args, **options)
        self.records += len(found)
        return found

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=last)
        self.records += len(info.last)
        return info


async def test_no_stream_is_read_for_its_latest_value(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A thousand dashboards of a long stream must not read it a thousand times."""
    await write(queue, settings, [[str(number) for number in range(2_000)]])
    counts = _Counts(queue)
    async with open_reader("s", from_="last", queue=counts, settings=settings) as reader:
        assert delivered(await reader.read_batch(max_wait=0)) == ["1999"]
    assert counts.records < 20


async def test_stream_without_a_record_is_an_error_that_says_so(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A driver that knows the stream and returns none of its records must not crash core."""

    class Forgets(FaultyQueue):
        async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
            return dataclasses.replace(await super().describe(stream), last=())

    await write(queue, settings, [["a"]])
    forgets = Forgets(queue)
    with pytest.raises(DriverError, match="returned no record of stream"):
        await open_reader("s", from_="last", queue=forgets, settings=settings)
    if queue.capabilities.fenced:
        with pytest.raises(DriverError, match="returned no record of stream"):
            await open_reader("s", from_="tail", queue=forgets, settings=settings)
        with pytest.raises(DriverError, match="returned no record of stream"):
            await describe("s", queue=forgets, settings=settings)
