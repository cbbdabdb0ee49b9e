"""Tests many streams in one iteration: turns, places, endings, failures, prefixes, leaving."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from streamq import (
    ClosedError,
    ConfigurationError,
    CorruptRecordError,
    CursorError,
    Gap,
    IdleTimeoutError,
    Reset,
    Settings,
    StreamNotFoundError,
    TrimmedError,
    open_readers,
    open_writer,
)
from streamq.driver import ChunkQueue, Stored, StreamId
from streamq.testing import FaultyQueue

from .many_readers import Consuming, of, rest, shown, write, write_on


async def test_each_stream_is_read_to_its_own_ending(
    anywhere: tuple[Settings, ChunkQueue],
) -> None:
    """A dashboard of ten jobs is one loop, and ends with the last of them."""
    settings, queue = anywhere
    await write(queue, settings, "a", 1, 2)
    async with open_readers(["a", "b", "c"], queue=queue, settings=settings) as readers:
        assert {each.name for each in readers.streams} == {"a", "b", "c"}
        writing = [asyncio.create_task(write(queue, settings, each, each)) for each in "bc"]
        items = await rest(readers)
        await asyncio.gather(*writing)
    assert of("a", items) == [1, 2, "END"]
    assert of("b", items) == ["b", "END"]
    assert of("c", items) == ["c", "END"]
    assert readers.streams == ()


async def test_each_stream_goes_on_at_its_own_place(anywhere: tuple[Settings, ChunkQueue]) -> None:
    """A program that restarts misses nothing of any stream, and sees nothing twice."""
    settings, queue = anywhere
    await write(queue, settings, "a", 1, 2, 3)
    await write_on(queue, settings, "b", 1, 2)
    before: list[tuple[str, object]] = []
    async with open_readers(["a", "b"], queue=queue, settings=settings) as readers:
        for _ in range(3):
            before.append(shown(await anext(readers)))
        cursors = readers.cursors
    await write_on(queue, settings, "b", 3)
    await write(queue, settings, "c", 1)
    by_name = {stream.name: cursor for stream, cursor in cursors.items()}
    for places in (cursors, by_name):
        streams = ["a", "b", "c"]
        async with open_readers(streams, from_=places, queue=queue, settings=settings) as readers:
            after: list[tuple[str, object]] = []
            while len(after) < 9 - len(before):
                after.append(shown(await anext(readers)))
        assert of("a", [*before, *after]) == [1, 2, 3, "END"]
        assert of("b", [*before, *after]) == [1, 2, 3]
        assert of("c", after) == [1, "END"]


async def test_place_of_a_stream_that_has_ended_is_before_its_ending(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Who resumes hears the ending again, at once, instead of waiting for an event."""
    await write(queue, settings, "a", 1)
    async with open_readers(["a"], queue=queue, settings=settings) as readers:
        assert await rest(readers) == [("a", 1), ("a", "END")]
        cursors = readers.cursors
    async with open_readers(["a"], from_=cursors, queue=queue, settings=settings) as readers:
        assert await rest(readers) == [("a", "END")]


async def test_stream_with_much_to_catch_up_delays_no_other(
    queue: ChunkQueue, settings: Settings
) -> None:
    """One long log must not hide the token that has just come."""
    await write(queue, settings, "long", *range(5_000))
    await write(queue, settings, "short", "now")
    async with open_readers(["long", "short"], queue=queue, settings=settings) as readers:
        first = [shown(await anext(readers)) for _ in range(6)]
        assert of("short", first) == ["now", "END"]
        async with open_writer("live", queue=queue, settings=settings) as writer:
            await writer.send_chunk("hello")
            await writer.flush()
            await readers.add("live")
            # Its task has to read once; what comes meanwhile is of the long one.
            seen: list[tuple[str, object]] = []
            while not of("live", seen):
                seen.append(shown(await anext(readers)))
                await asyncio.sleep(0)
            assert len(seen) < 100
            await readers.remove("live")
        assert len(of("long", [*first, *seen, *await rest(readers)])) == 5_001


class _Corrupt(FaultyQueue):
    """One stream has a damaged record."""

    async def read(self, stream: StreamId, after: str, **options: Any) -> Sequence[Stored]:
        found = await super().read(stream, after, **options)
        if stream.name == "bad":
            return [dataclasses.replace(each, data=b"?") for each in found]
        return found


async def test_failure_of_one_stream_ends_only_that_one(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A damaged stream must not blind a dashboard for all others."""
    for name in ("bad", "good"):
        await write(queue, settings, name, 1)
    async with open_readers(["bad", "good"], queue=_Corrupt(queue), settings=settings) as readers:
        items = await rest(readers)
    assert of("bad", items) == [CorruptRecordError]
    assert of("good", items) == [1, "END"]


async def test_stream_that_must_exist_and_does_not_is_a_failure(
    queue: ChunkQueue, settings: Settings
) -> None:
    """One mistyped name of ten is reported, and the nine are read."""
    await write(queue, settings, "a", 1)
    async with open_readers(
        ["a", "nope"], must_exist=True, queue=queue, settings=settings
    ) as readers:
        items = await rest(readers)
        assert of("nope", items) == [StreamNotFoundError]
        assert of("a", items) == [1, "END"]
        with pytest.raises(StreamNotFoundError):
            await readers.add("nope")


async def test_silent_stream_is_a_failure_of_its_own(queue: ChunkQueue, settings: Settings) -> None:
    """A producer that died is noticed although another one goes on."""
    await write_on(queue, settings, "silent", 1)
    async with (
        open_readers(
            ["silent", "busy"], idle_seconds=0.2, queue=queue, settings=settings
        ) as readers,
        open_writer("busy", queue=queue, settings=settings) as busy,
    ):
        items: list[tuple[str, object]] = []
        while (last := shown(await anext(readers))) != ("silent", IdleTimeoutError):
            items.append(last)
            await busy.send_chunk("x")
            if last[0] == "silent":
                await busy.flush()
        assert of("silent", items) == [1]
        assert of("busy", items), "what comes on another stream is no sign of this one"
        assert [each.name for each in readers.streams] == ["busy"]


async def test_missing_events_are_gaps_or_a_failure(queue: ChunkQueue, settings: Settings) -> None:
    """As for a single reader: nothing is left out in silence."""
    for value in (1, 2, 3):
        await write_on(queue, settings, "a", value)

    class Trimmed(FaultyQueue):
        async def read(self, stream: StreamId, after: str, **options: Any) -> Sequence[Stored]:
            found = await super().read(stream, after, **options)
            return found[3:] if after == "" else found

    trimmed = Trimmed(queue)
    async with open_readers(["a"], queue=trimmed, settings=settings) as readers:
        assert await rest(readers) == [("a", TrimmedError)]
    async with open_readers(
        ["a"], gaps_as_events=True, queue=trimmed, settings=settings
    ) as accepting:
        assert shown(await anext(accepting)) == ("a", Gap)


async def test_streams_are_added_and_removed_meanwhile(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A user opens a tab and closes another one; the connection stays."""
    await write_on(queue, settings, "a", 1, 2)
    await write(queue, settings, "b", 1)
    async with open_readers(["a"], queue=queue, settings=settings) as readers:
        assert shown(await anext(readers)) == ("a", 1)
        waiting = asyncio.create_task(rest(readers))
        await readers.add("b")
        await readers.add("b")  # again changes nothing
        place = await readers.remove("a")
        assert of("b", await waiting) == [1, "END"]
        assert await readers.remove("a") is None
        assert [each.name for each in readers.cursors] == ["b"]
        assert place is not None
        await readers.add("a", from_=place)
        await write_on(queue, settings, "a", "last")
        later: list[tuple[str, object]] = []
        while not later or later[-1] != ("a", "last"):
            later.append(shown(await anext(readers)))
    assert [*of("a", [("a", 1), *later])][-1] == "last"
    assert len(of("a", later)) <= 2, "nothing comes twice"


async def test_stream_that_failed_goes_on_when_it_is_added_again(
    queue: ChunkQueue, settings: Settings
) -> None:
    """After an outage a program resumes what it wants, at its place."""
    await write_on(queue, settings, "a", 1)
    async with open_readers(["a"], idle_seconds=0.05, queue=queue, settings=settings) as readers:
        assert [shown(await anext(readers)) for _ in range(2)] == [
            ("a", 1),
            ("a", IdleTimeoutError),
        ]
        await readers.add("a")
        await write(queue, settings, "a", 2)
        items = await rest(readers)
    assert items[-1] == ("a", "END")
    assert 1 not in of("a", items)


async def test_token_that_nothing_would_be_sent_is_refused(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Whoever gives one believes that a gateway is asked."""
    for options in ({"streams": ["a"], "queue": queue}, {"prefixes": ["p/"]}):
        with pytest.raises(ConfigurationError, match="open_gateway"):
            await open_readers(**options, token="secret", settings=settings)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"streams": "name"}, "give a list"),
        ({"prefixes": "chat-7/"}, "give a list"),
        ({"streams": [""]}, "name"),
        ({"list_seconds": 0}, "list_seconds"),
        ({"max_streams": 0}, "max_streams"),
        ({"idle_seconds": -1}, "idle_seconds"),
    ],
)
async def test_what_cannot_be_used_is_refused(
    queue: ChunkQueue, settings: Settings, options: dict[str, Any], error: str
) -> None:
    """One text is no list: its letters would be read as names."""
    with pytest.raises(ConfigurationError, match=error):
        await open_readers(**options, queue=queue, settings=settings)


async def test_cursor_of_another_stream_is_refused_at_once(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Places that were mixed up are a mistake of the program."""
    await write(queue, settings, "a", 1)
    async with open_readers(["a"], queue=queue, settings=settings) as readers:
        await rest(readers)
        cursor = readers.cursors[StreamId("default", "a")]
    with pytest.raises(CursorError):
        await open_readers(["b"], from_={"b": cursor}, queue=queue, settings=settings)


async def test_cancelled_iteration_loses_nothing(queue: ChunkQueue, settings: Settings) -> None:
    """A loop with a deadline for each event sees each event once."""
    async with open_readers(["a", "b"], queue=queue, settings=settings) as readers:
        items: list[tuple[str, object]] = []
        writing = asyncio.create_task(_slowly(queue, settings))
        while True:
            try:
                async with asyncio.timeout(0.001):
                    items.append(shown(await anext(readers)))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
        await writing
    assert of("a", items) == [*range(50), "END"]
    assert of("b", items) == [*range(50), "END"]


async def _slowly(queue: ChunkQueue, settings: Settings) -> None:
    async with (
        open_writer("a", queue=queue, settings=settings) as a,
        open_writer("b", queue=queue, settings=settings) as b,
    ):
        for number in range(50):
            await a.send_chunk(number)
            await b.send_chunk(number)
            await asyncio.sleep(0.002)


async def test_closing_wakes_who_waits_and_leaves_no_task(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A page that is closed must not leave a hundred tasks behind."""
    before = asyncio.all_tasks()
    async with open_readers(["a", "b"], prefixes=["p/"], queue=queue, settings=settings) as readers:
        waiting = asyncio.create_task(anext(readers))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) > len(before) + 1
        await readers.aclose()
        await readers.aclose()
        with pytest.raises(ClosedError):
            await waiting
        with pytest.raises(ClosedError):
            await readers.add("c")
    assert asyncio.all_tasks() == before


async def test_readers_open_a_queue_of_their_own(anywhere: tuple[Settings, ChunkQueue]) -> None:
    """A script needs one line; a wrong name leaves no connection."""
    settings, queue = anywhere
    await write(queue, settings, "a", 1)
    async with open_readers(["a"], settings=settings) as readers:
        assert await rest(readers) == [("a", 1), ("a", "END")]
    with pytest.raises(ConfigurationError):
        await open_readers([""], settings=settings)


async def test_without_replay_an_event_is_acknowledged_when_the_next_is_asked_for(
    queue: ChunkQueue, settings: Settings, eventually: Callable[[Callable[[], bool]], Any]
) -> None:
    """A program that dies over an event gets it again; it has not asked for another one."""
    for name in ("a", "b"):
        await write_on(queue, settings, name, 1)
    consuming = Consuming(queue)
    async with open_readers(["a", "b"], queue=consuming, settings=settings) as readers:
        first = await anext(readers)
        for _ in range(20):
            await asyncio.sleep(0)
        own = [name for name, _ in consuming.committed if name == first.stream.name]
        before = len(own)
        second = await anext(readers)
        assert second.stream != first.stream
        await eventually(
            lambda: len([n for n, _ in consuming.committed if n == first.stream.name]) > before
        )
    assert sorted(consuming.released) == ["a", "b"], "what was not delivered goes back"


async def test_place_is_that_of_the_events_delivered(queue: ChunkQueue, settings: Settings) -> None:
    """What was read ahead is not lost with the process."""
    await write(queue, settings, "a", *range(10))
    seen: list[object] = []
    cursors: Any = "beginning"
    while True:
        async with open_readers(["a"], from_=cursors, queue=queue, settings=settings) as readers:
            with contextlib.suppress(StopAsyncIteration):
                seen.append(shown(await anext(readers))[1])
            cursors = readers.cursors
        if seen[-1] == "END":
            break
    assert seen == [*range(10), "END"]


async def test_attempts_of_each_stream_are_its_own(queue: ChunkQueue, settings: Settings) -> None:
    """A reset makes void what came of its stream, and nothing of another one."""
    for _ in range(2):
        async with contextlib.AsyncExitStack() as stack:
            writer = await open_writer("a", queue=queue, settings=settings)
            stack.push_async_callback(writer.aclose)
            await writer.send_chunk("x")
            await writer.flush()
    await write(queue, settings, "b", "y")
    async with open_readers(["a", "b"], queue=queue, settings=settings) as readers:
        items = [shown(await anext(readers)) for _ in range(5)]
    assert of("a", items) == ["x", Reset, "x"]
    assert of("b", items) == ["y", "END"]


async def test_entry_of_a_stream_is_not_that_of_another(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An item names its stream whole, also where names need encoding to be shown."""
    names = ["a b", "a/b", "ä", "a%20b"]
    for name in names:
        await write(queue, settings, name, name)
    async with open_readers(names, queue=queue, settings=settings) as readers:
        items = await rest(readers)
    for name in names:
        assert of(name, items) == [name, "END"]
