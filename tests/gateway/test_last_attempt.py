"""Tests events without the attempts that a stored reset has voided (``?attempts=last``)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from httpx_sse import ServerSentEvent

from streamq import OnRetry, StreamWriter, open_writer
from streamq.driver import Entry, StreamId
from streamq.gateway._places import EventPlace
from streamq.records._wire import MAX_EPOCH, Record, RecordKind

from .served import Serve, WatchedQueue, eventually

STREAM = StreamId("default", "a")


async def attempt(
    queue: WatchedQueue, *values: object, resumes: bool = False, name: str = "a"
) -> StreamWriter:
    """Write an attempt and leave the stream open."""
    on_retry = OnRetry.RESUME if resumes else OnRetry.RESTART
    writer = await open_writer(name, queue=queue, on_retry=on_retry)
    for value in values:
        await writer.send_chunk(value)
    await writer.flush()
    return writer


def shown(events: list[ServerSentEvent]) -> list[Any]:
    """Return values of chunks, and the kinds of other events."""
    return [
        event.json()["value"] if event.event == "chunk" else event.event
        for event in events
        if event.data
    ]


@pytest.fixture
async def ended(queue: WatchedQueue) -> None:
    """A stream of three attempts, of which the second one resumed the first."""
    await attempt(queue, "a", "b")
    await attempt(queue, "c", resumes=True)
    writer = await attempt(queue, "A", "B")
    await writer.finish()


@pytest.mark.usefixtures("ended")
async def test_stored_attempts_that_are_void_are_not_sent(start: Serve) -> None:
    """A page that loads late must not play the failure first."""
    served = await start()
    assert shown(await served.collect("a", "attempts=last")) == ["A", "B", "end"]
    assert shown(await served.collect("a")) == ["a", "b", "c", "reset", "A", "B", "end"]
    assert shown(await served.collect("a", "attempts=all"))[:1] == ["a"]
    again = await served.collect("a", "attempts=last")
    assert [event.id for event in again] == [
        event.id for event in (await served.collect("a"))[4:]
    ], "the same ids as for every other client"


@pytest.mark.usefixtures("ended")
async def test_story_without_void_attempts_begins_at_the_last_reset(
    start: Serve, queue: WatchedQueue
) -> None:
    """Its pages would otherwise be those of attempts that a later page makes void."""
    served = await start()
    story = (await served.get("/story/a?attempts=last")).json()
    assert [each["value"] for each in story["chunks"]] == ["A", "B"]
    assert (story["is_complete"], story["starts_over"], story["attempt"]) == (True, False, 3)
    whole = (await served.get("/story/a")).json()
    assert (whole["chunks"], whole["after"]) == (story["chunks"], story["after"])
    assert whole["starts_over"]
    first = (await served.collect("a"))[0].id
    again = (await served.get(f"/story/a?attempts=last&after={first}")).json()
    assert (again["chunks"], again["starts_over"]) == (story["chunks"], True)
    assert (await served.get("/story/a?as=text&attempts=last")).text == "AB"
    assert (await served.get("/story/a?as=text&attempts=all")).status_code == 400


async def test_resets_that_come_later_are_sent(start: Serve, queue: WatchedQueue) -> None:
    """What the client has got becomes void then, and it has to hear that."""
    served = await start()
    await attempt(queue, "a")
    await attempt(queue, "b")
    async with served.events("a", "attempts=last") as source:
        events = source.aiter_sse()
        assert shown([await anext(events)]) == ["b"]
        writer = await attempt(queue, "c")
        assert shown([await anext(events), await anext(events)]) == ["reset", "c"]
        # Who comes now gets only the newest attempt, also from the memory of this process.
        async with served.events("a", "attempts=last") as late:
            assert shown([await anext(late.aiter_sse())]) == ["c"]
        await writer.finish()
        assert shown([await anext(events)]) == ["end"]


async def test_client_with_a_place_gets_the_reset_that_voids_what_it_has(
    start: Serve, queue: WatchedQueue
) -> None:
    """It has text of an attempt that is void, and would otherwise add to it."""
    served = await start()
    await attempt(queue, "a")
    async with served.events("a", "attempts=last") as source:
        place = (await anext(source.aiter_sse())).id
    await attempt(queue, "b")
    await attempt(queue, "c")
    writer = await attempt(queue, "d")
    await writer.finish()
    assert shown(await served.collect("a", "attempts=last", place)) == ["reset", "d", "end"]
    assert shown(await served.collect("a", f"attempts=last&after={place}"))[0] == "reset"
    last = (await served.collect("a"))[-2].id
    assert shown(await served.collect("a", f"attempts=last&after={last}")) == ["end"]


async def test_place_of_an_earlier_stream_is_refused(start: Serve, queue: WatchedQueue) -> None:
    """The search compares the place as reading does."""
    served = await start()
    await attempt(queue, "a", "b")
    place = (await served.get("/story/a")).json()["after"]
    await queue.delete(STREAM)
    for _ in range(3):
        writer = await attempt(queue, "x", "y", "z")
    await writer.finish()
    served.gateway.end_readers(STREAM)
    events = await served.client.get(f"/events/a?attempts=last&after={place}")
    found = events.json() if events.status_code == 409 else json.loads(_last_data(events.text))
    assert found["error"] == "cursor"


def _last_data(text: str) -> str:
    return [line for line in text.splitlines() if line.startswith("data: ")][-1][6:]


async def test_long_stream_is_searched_in_pages_and_once(start: Serve, queue: WatchedQueue) -> None:
    """A thousand pages that load at once must not read a long stream a thousand times."""
    await attempt(queue, *("x" * 2_000 for _ in range(500)))
    writer = await attempt(queue, "short")
    await writer.finish()
    served = await start()
    assert shown(await served.collect("a", "attempts=last")) == ["short", "end"]
    before = queue.records_read
    many = await asyncio.gather(*(served.collect("a", "attempts=last") for _ in range(20)))
    assert all(shown(each) == ["short", "end"] for each in many)
    assert queue.records_read - before < 40


async def test_what_was_searched_is_not_searched_again(start: Serve, queue: WatchedQueue) -> None:
    """Also where no page is kept, the next client does not read the void attempt."""
    await attempt(queue, *("x" * 2_000 for _ in range(500)))
    await attempt(queue, "short")
    served = await start(pages_bytes=1)
    for most in (1_000, 10, 10):
        before = queue.records_read
        async with served.events("a", "attempts=last") as source:
            assert shown([await anext(source.aiter_sse())]) == ["short"]
        assert queue.records_read - before <= most


async def test_reset_that_was_seen_live_is_not_searched_for(
    start: Serve, queue: WatchedQueue
) -> None:
    """A stream that is watched for days has been read already."""
    served = await start(ring_bytes=10_000, pages_bytes=1)
    await attempt(queue, "a")
    await attempt(queue, "b")
    async with served.events("a", "attempts=last") as source:
        events = source.aiter_sse()
        assert shown([await anext(events)]) == ["b"]
        await attempt(queue, *("x" * 2_000 for _ in range(100)), "y", resumes=True)
        await attempt(queue, "c")
        while shown([await anext(events)]) != ["c"]:
            pass
        before = queue.records_read
        async with served.events("a", "attempts=last") as late:
            assert shown([await anext(late.aiter_sse())]) == ["c"]
        assert queue.records_read == before


async def test_only_resets_up_to_a_moment_count_for_it(start: Serve, queue: WatchedQueue) -> None:
    """The text of a story is that of the moment which its headers state."""
    for value in ("a", "b", "c"):
        writer = await attempt(queue, value)
    await writer.finish()
    gateway = (await start()).gateway
    # Events: a, reset, b, reset, c, end.
    for until, first in ((1, 1), (2, 3), (3, 3), (4, 5), (6, 5)):
        follower = await gateway.follow(STREAM, EventPlace(0), last_attempt=True, until=until)
        assert follower is not None
        while not (data := await follower.read(1.0)):
            pass
        gateway.leave(follower)
        assert int(data.split(b"@")[0].removeprefix(b"id: ")) == first, until


async def test_stream_of_one_attempt_is_not_searched(start: Serve, queue: WatchedQueue) -> None:
    """Most streams have one: for them the option costs nothing."""
    writer = await attempt(queue, *range(5))
    served = await start()
    async with served.events("a", "attempts=last") as source:
        events = source.aiter_sse()
        first = [await anext(events) for _ in range(5)]
        assert [event.json()["value"] for event in first] == list(range(5))
        await writer.finish()


async def test_attempt_that_has_sent_nothing_voids_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """As for every reader: the reset comes with its first chunk."""
    served = await start()
    await attempt(queue, "a")
    opening = Record(RecordKind.OPEN, MAX_EPOCH, restarts=True)
    await queue.append(STREAM, [Entry(MAX_EPOCH, 0, opening.encode())])
    async with served.events("a", "attempts=last") as source:
        assert shown([await anext(source.aiter_sse())]) == ["a"]


async def test_awaited_stream_is_sent_whole(start: Serve, queue: WatchedQueue) -> None:
    """A page may open before its job."""
    served = await start()
    async with served.events("a", "attempts=last&wait=20") as source:
        await eventually(lambda: served.gateway.statistics().waiting == 1)
        writer = await attempt(queue, "a")
        await writer.finish()
        events = [event async for event in source.aiter_sse()]
    assert shown(events) == ["a", "end"]


async def test_many_streams_on_one_connection_have_the_option(
    start: Serve, queue: WatchedQueue
) -> None:
    """A chat that loads late shows all its answers, and none of what failed before them."""
    for name in ("a", "b"):
        await attempt(queue, "void", name=name)
        writer = await attempt(queue, f"of {name}", name=name)
        await writer.finish()
    served = await start()
    got = await served.get("/events?stream=a&stream=b&attempts=last")
    posted = await served.client.post("/events", json={"streams": ["a", "b"], "attempts": "last"})
    for answer in (got, posted):
        assert "of a" in answer.text
        assert "of b" in answer.text
        assert "void" not in answer.text
        assert "reset" not in answer.text
    both = await served.client.post("/events", json={"streams": ["a", "b"]})
    assert both.text.count("void") == 2
    wrong = await served.client.post("/events", json={"streams": ["a"], "attempts": 1})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "bad_request")


async def test_option_that_is_neither_is_refused(start: Serve, queue: WatchedQueue) -> None:
    """A mistyped option would otherwise replay the failure."""
    await attempt(queue, "a")
    served = await start()
    answer = await served.get("/events/a?attempts=newest")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert "'all' or 'last'" in answer.json()["message"]
