"""Attempts that send everything again: chunks that are stored are compared and dropped."""

from __future__ import annotations

import pytest

from streamq import (
    Chunk,
    ConfigurationError,
    CorruptRecordError,
    OnFull,
    OnRetry,
    ReplayError,
    Reset,
    Seal,
    SealState,
    Settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.records._values import Encoding
from streamq.records._wire import Record, RecordKind
from streamq.testing import FaultyQueue

from .test_writer import events_of


async def first_attempt(
    queue: ChunkQueue, settings: Settings, *values: str, on_retry: OnRetry = OnRetry.REPLAY
) -> None:
    """An attempt that dies without an ending."""
    writer = await open_writer("s", queue=queue, settings=settings, epoch=10, on_retry=on_retry)
    for value in values:
        await writer.send_chunk(value)
    await writer.aclose()


async def test_stored_chunks_are_dropped_and_the_rest_follows(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A deterministic producer starts from the top, and readers notice nothing."""
    await first_attempt(queue, settings, "a", "b")
    async with open_writer(
        "s", queue=queue, settings=settings, epoch=20, on_retry=OnRetry.REPLAY
    ) as writer:
        assert (writer.position, writer.resumed_from, writer.durable_position) == (0, 2, 2)
        for value in "abc":
            await writer.send_chunk(value)
        assert writer.position == 3
        assert writer.statistics().replayed_chunks == 2
    events = await events_of("s", queue, settings)
    assert [event.value for event in events if isinstance(event, Chunk)] == ["a", "b", "c"]
    assert not any(isinstance(event, Reset) for event in events)
    assert [event.offset for event in events] == [1, 2, 3, 4]


async def test_repeated_chunks_cost_no_append(queue: ChunkQueue, settings: Settings) -> None:
    """Catching up is free: nothing goes to the backend until there is something new."""
    await first_attempt(queue, settings, "a", "b")
    faulty = FaultyQueue(queue)
    async with open_writer(
        "s", queue=faulty, settings=settings, epoch=20, on_retry=OnRetry.REPLAY
    ) as writer:
        appends = len(faulty.appends)
        for value in "ab":
            await writer.send_chunk(value)
        await writer.flush()
        assert len(faulty.appends) == appends


@pytest.mark.parametrize("other", ["B", b"b", {"b": 1}], ids=["value", "type", "json"])
async def test_a_chunk_that_differs_is_refused_and_the_failure_can_be_sealed(
    queue: ChunkQueue, settings: Settings, other: object
) -> None:
    """Two different stories must never be mixed in one attempt."""
    await first_attempt(queue, settings, "a", "b")
    writer = await open_writer(
        "s", queue=queue, settings=settings, epoch=20, on_retry=OnRetry.REPLAY
    )
    await writer.send_chunk("a")
    with pytest.raises(ReplayError, match=r"chunk 1 .* differs") as caught:
        await writer.send_chunk(other)
    assert caught.value.seq == writer.position == 1
    await writer.fail(caught.value)
    await writer.aclose()
    seal = (await events_of("s", queue, settings))[-1]
    assert isinstance(seal, Seal)
    assert (seal.state, seal.error_type) == (SealState.ERROR, "ReplayError")


async def test_a_replay_that_ends_early_seals_its_failure(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An END after chunks that this attempt never sent would be false; readers get an ERROR."""
    await first_attempt(queue, settings, "a", "b")
    with pytest.raises(ReplayError, match="only 1 of the 2 chunks"):
        async with open_writer(
            "s", queue=queue, settings=settings, epoch=20, on_retry=OnRetry.REPLAY
        ) as writer:
            await writer.send_chunk("a")
    seal = (await events_of("s", queue, settings))[-1]
    assert isinstance(seal, Seal)
    assert seal.error_type == "ReplayError"


async def test_replay_counts_from_the_last_reset(queue: ChunkQueue, settings: Settings) -> None:
    """Chunks voided by a reset are not part of the story that has to be sent again."""
    await first_attempt(queue, settings, "old", on_retry=OnRetry.RESTART)
    second = await open_writer("s", queue=queue, settings=settings, epoch=15)
    await second.send_chunk("a")
    await second.aclose()
    async with open_writer(
        "s", queue=queue, settings=settings, epoch=20, on_retry=OnRetry.REPLAY
    ) as third:
        assert third.resumed_from == 1
        await third.send_chunk("a")
        await third.send_chunk("b")
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["a", "b"]


async def test_a_restart_without_a_reset_changes_nothing_for_the_next_attempt(
    queue: ChunkQueue, settings: Settings
) -> None:
    """It died between its opening and its reset: readers still hold the older story."""
    await first_attempt(queue, settings, "a", "b")
    faulty = FaultyQueue(queue)
    silent = await open_writer("s", queue=faulty, settings=settings, epoch=15)
    faulty.take_down()
    async with open_writer(
        "s", queue=queue, settings=settings, epoch=20, on_retry=OnRetry.RESUME
    ) as writer:
        assert writer.position == 2
        await writer.send_chunk("c")
    faulty.bring_up()
    await silent.aclose()
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == ["a", "b", "c"]


async def test_the_error_of_a_damaged_record_found_by_a_replay_names_the_stream(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The log line of a failed opening has to name the stream."""
    chunk = ((Encoding.TEXT, b"a"),)
    good = [
        Entry(10, i, Record(RecordKind.DATA, 10, True, 1, i - 1, i, chunk).encode())
        for i in range(2, 8)  # so that the damage is not among the newest records
    ]
    await queue.append(StreamId("default", "s"), [Entry(10, 1, b"damaged"), *good])
    with pytest.raises(CorruptRecordError) as caught:
        await open_writer("s", queue=queue, settings=settings, on_retry=OnRetry.REPLAY)
    assert (caught.value.backend, caught.value.stream) == ("memory", "default/s")


async def test_dropping_chunks_and_replaying_them_exclude_each_other(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A dropped chunk takes no place, so the next attempt could only fail: refused at once."""
    with pytest.raises(ConfigurationError, match=r"OnFull\.DROP"):
        await open_writer(
            "s", queue=queue, settings=settings, on_retry=OnRetry.REPLAY, on_full=OnFull.DROP
        )
    assert [info async for info in queue.streams("default")] == []
