"""Ids name the life of a stream: a name that was used again is noticed, and old ids stay valid."""

from __future__ import annotations

import asyncio

import pytest

from streamq import Chunk, CursorError, OnRetry, Settings, StreamId, open_reader, open_writer

from .served import Serve, WatchedQueue

NAME = StreamId("default", "s")


async def write(queue: WatchedQueue, *values: str, is_sealed: bool = True, epoch: int) -> None:
    writer = await open_writer("s", queue=queue, epoch=epoch)
    for value in values:
        await writer.send_chunk(value)
        await writer.flush()
    if is_sealed:
        await writer.finish()
    await writer.aclose()


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "open"])
@pytest.mark.parametrize("chunks", [1, 2, 3, 9], ids=["shorter", "equal", "longer", "long"])
async def test_an_id_of_a_stream_that_was_deleted_is_refused(
    start: Serve, queue: WatchedQueue, chunks: int, is_sealed: bool
) -> None:
    """204, or going on in the middle of the new stream, would hide what it began with."""
    await write(queue, "old 1", "old 2", epoch=10)
    before = await start()
    ids = [event.id for event in await before.collect("s")]
    assert ids == ["1@10", "2@10", "3@10"]
    await queue.delete(NAME)
    await write(queue, *map(str, range(chunks)), is_sealed=is_sealed, epoch=11)
    for served in (before, await start()):  # a gateway that has read the old one, and another
        for place in ids:
            response = await served.get(f"/streams/s/events?after={place}")
            assert (response.status_code, response.json()["error"]) == (409, "cursor")
            assert "began again" in response.json()["message"]


async def test_an_id_is_good_across_attempts_and_in_every_process(
    start: Serve, queue: WatchedQueue
) -> None:
    """Each attempt has an epoch of its own, in the one life of a stream."""
    for epoch in (10, 11, 12):
        await write(queue, "a", "b", is_sealed=epoch == 12, epoch=epoch)
    first = await start()
    events = await first.collect("s")
    places = [event.id for event in events]
    assert places == [f"{i + 1}@{epoch}" for i, epoch in enumerate([10] * 2 + [11] * 3 + [12] * 4)]
    small = await start(ring_bytes=64)
    for served in (first, small, await start()):
        for i, place in enumerate(places[:-1]):
            rest = await served.collect("s", last_event_id=place)
            assert [event.id for event in rest] == places[i + 1 :]
        assert (await served.get(f"/streams/s/events?after={places[-1]}")).status_code == 204


async def test_an_id_of_an_earlier_stream_is_noticed_among_several_attempts(
    start: Serve, queue: WatchedQueue
) -> None:
    """Only reading shows who wrote the event, so that the response has begun by then."""
    await write(queue, "old 1", "old 2", is_sealed=False, epoch=10)
    await queue.delete(NAME)
    await write(queue, "new 1", "new 2", is_sealed=False, epoch=11)
    await write(queue, "new 3", is_sealed=False, epoch=12)
    for served in (await start(), await start(ring_bytes=64)):
        (error,) = await served.collect("s", last_event_id="2@10")
        assert (error.event, error.json()["error"]) == ("error", "cursor")
        assert "began again" in error.json()["message"]
        assert (await served.get("/streams/s/events?after=3@13")).status_code == 409


async def test_an_id_just_before_the_seal_is_compared(start: Serve, queue: WatchedQueue) -> None:
    """There the hub begins, which does not know who wrote the event before it."""
    await write(queue, "old 1", "old 2", "old 3", "old 4", is_sealed=False, epoch=10)
    await queue.delete(NAME)
    await write(queue, "new 1", is_sealed=False, epoch=11)
    await write(queue, "new 2", epoch=12)  # a reset, a chunk, the seal
    for options in ({}, {"ring_bytes": 64}):
        served = await start(**options)
        for number in (1, 2, 3):
            events = await served.collect("s", last_event_id=f"{number}@10")
            assert [event.event for event in events] == ["error"], number
            assert events[0].json()["error"] == "cursor"
        assert [event.id for event in await served.collect("s", last_event_id="3@12")] == ["4@12"]


async def test_a_place_beyond_the_end_is_refused(start: Serve, queue: WatchedQueue) -> None:
    """204 would end an EventSource for good, which has not seen the stream of this name."""
    await write(queue, "a", epoch=10)
    served = await start()
    assert (await served.get("/streams/s/events?after=2")).status_code == 204
    for read in (False, True):
        for place in ("3", "7", "7@9"):
            response = await served.get(f"/streams/s/events?after={place}")
            assert (response.status_code, response.json()["error"]) == (409, "cursor"), read
        await served.collect("s")


async def test_ids_without_an_epoch_stay_valid(start: Serve, queue: WatchedQueue) -> None:
    """Clients keep ids of an older gateway; they are taken as before."""
    await write(queue, "a", "b", epoch=10)
    served = await start()
    assert [event.id for event in await served.collect("s", "after=1")] == ["2@10", "3@10"]
    assert (await served.get("/streams/s/events?last_event_id=3")).status_code == 204


async def test_an_attempt_that_has_sent_nothing_changes_no_place(
    start: Serve, queue: WatchedQueue
) -> None:
    """Its opening is newer than every event; a client that has them all is still right."""
    await write(queue, "a", is_sealed=False, epoch=10)
    await write(queue, is_sealed=False, epoch=11)
    served = await start()
    for query in ("after=1@10", "from=tail"):
        async with served.events("s", query) as source, asyncio.timeout(10):
            assert source.response.status_code == 200
            if query == "from=tail":
                assert (await anext(source.response.aiter_lines())).startswith("retry")


async def test_a_stopped_gateway_says_that_the_stream_goes_on(
    queue: WatchedQueue, settings: Settings, start: Serve
) -> None:
    """A program that is no EventSource takes the end of a response for the end of the stream."""
    served = await start()
    await write(queue, "a", is_sealed=False, epoch=10)
    async with served.events("s") as source, asyncio.timeout(10):
        events = source.aiter_sse()
        assert (await anext(events)).id == "1@10"
        served.gateway.stop_connections()
        ending = await anext(events)
        assert (ending.event, ending.json()["reason"]) == ("reconnect", "stopping")
        assert ending.json()["after"] == "1@10"
        with pytest.raises(StopAsyncIteration):
            await anext(events)


@pytest.mark.parametrize("chunks", [1, 3, 5])
async def test_a_cursor_of_a_stream_that_was_deleted_is_refused(
    queue: WatchedQueue, settings: Settings, chunks: int
) -> None:
    """Readers resume by cursors, polls and ``tail --from`` as well."""
    await write(queue, "1", "2", "3", is_sealed=False, epoch=10)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        for _ in range(3):
            await anext(reader)
        cursor = reader.cursor
    await queue.delete(NAME)
    await write(queue, *(f"new {i}" for i in range(chunks)), epoch=11)
    async with (
        open_reader("s", from_=cursor, queue=queue, settings=settings, idle_seconds=30) as reader,
        asyncio.timeout(20),
    ):
        with pytest.raises(CursorError, match="began again"):
            await anext(reader)


async def test_a_cursor_is_good_across_attempts(queue: WatchedQueue, settings: Settings) -> None:
    """What the refusal must not hit: a retry, a resumed attempt, one that sent nothing."""
    await write(queue, "1", "2", is_sealed=False, epoch=10)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        await anext(reader)
        await anext(reader)
        cursor = reader.cursor
    await write(queue, is_sealed=False, epoch=11)
    async with open_writer("s", queue=queue, epoch=12, on_retry=OnRetry.RESUME) as writer:
        await writer.send_chunk("3")
    async with open_reader("s", from_=cursor, queue=queue, settings=settings) as reader:
        assert [event.value async for event in reader if isinstance(event, Chunk)] == ["3"]
