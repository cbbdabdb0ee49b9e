"""Prefixes on a connection of many streams: what is there, new and gone, and the bounds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamq import CapabilityError, open_writer
from streamq.driver import ChunkQueue, StreamId, StreamInfo
from streamq.gateway._many import _asked, _prefix_watchers
from streamq.testing import Fail

from .many import Reader, address
from .served import Serve, WatchedQueue, eventually


async def write(queue: ChunkQueue, *names: str, chunks: int = 1) -> None:
    """Write streams that have ended."""
    for name in names:
        async with open_writer(name, queue=queue) as writer:
            for i in range(chunks):
                await writer.send_chunk(f"{name} {i}")


async def test_a_prefix_has_the_streams_that_are_there_and_those_that_come(
    start: Serve, queue: WatchedQueue
) -> None:
    """A page of a chat does not know the names of the answers that are still to come."""
    await write(queue, "chat-7/a", "chat-7/b", "chat-70/a", "other")
    served = await start(prefix_seconds=0.05)
    reader = Reader(served)
    async with reader.get(address(prefixes=("chat-7/",))) as source:
        events = reader.events(source)
        first = await reader.until_ended(events, "chat-7/a", "chat-7/b")
        assert [each["is_new"] for each in first if each["event"] == "stream"] == [False, False]
        await write(queue, "chat-7/c", "chat-71/x")
        then = await reader.until_ended(events, "chat-7/c")
        announced = {"event": "stream", "stream": "chat-7/c", "place": "0", "state": "OPEN"}
        assert then[0] == announced | {"is_new": True}
    assert {*reader.values} == {"chat-7/a", "chat-7/b", "chat-7/c"}


@pytest.mark.parametrize("start_place", ["beginning", "tail", "last"])
@pytest.mark.parametrize("method", ["get", "post"])
async def test_a_reconnect_has_what_is_new_from_its_beginning(
    start: Serve, queue: WatchedQueue, method: str, start_place: str
) -> None:
    """What appeared while nobody was connected is not shown from its tail, and nothing twice."""
    served = await start(prefix_seconds=0.05, linger_seconds=0.01)
    reader = Reader(served)

    def opening() -> Any:
        if method == "get":
            return reader.get(address(prefixes=("p/",), from_=start_place))
        return reader.post({"prefixes": ["p/"], "from": start_place})

    async with open_writer("p/old", queue=queue) as old:
        for i in range(3):
            await old.send_chunk(i)
        await old.flush()
        async with opening() as source:
            events = reader.events(source)
            reader.take(await anext(events))
        await old.send_chunk(3)
    await write(queue, "p/new", chunks=2)
    async with opening() as source:
        await reader.until_ended(reader.events(source), "p/old", "p/new")
    first = {"beginning": 1, "tail": 4, "last": 3}[start_place]
    assert reader.offsets["p/old"] == list(range(first, 6))
    assert reader.offsets["p/new"] == [1, 2, 3]


async def test_all_that_are_there_begin_at_their_tail_however_many(
    start: Serve, queue: WatchedQueue
) -> None:
    """They are opened a few at once; the last of them must not come with its whole past."""
    names = [f"p/{i}" for i in range(60)]
    async with AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(open_writer(name, queue=queue)) for name in names
        ]
        for writer in writers:
            await writer.send_chunk("old")
            await writer.flush()
        served = await start(prefix_seconds=0.05)
        reader = Reader(served)
        async with reader.get(address(prefixes=("p/",), from_="tail")) as source:
            events = reader.events(source)
            await reader.until(events, lambda: len(reader.places) == len(names))
            for writer in writers:
                await writer.send_chunk("new")
                await writer.flush()
            await reader.until(events, lambda: len(reader.order) == len(names))
    assert {*map(tuple, reader.values.values())} == {("new",)}


async def test_what_appears_while_a_client_that_saw_nothing_is_away_is_not_shown_from_its_tail(
    start: Serve, queue: WatchedQueue
) -> None:
    """The id of a connection without streams says that all that comes later is new."""
    served = await start(prefix_seconds=0.05, linger_seconds=0.01)
    reader = Reader(served)
    path = address(prefixes=("p/",), from_="tail")
    async with reader.get(path) as source:
        async for event in source.aiter_sse():
            reader.last_id = event.id
            break
    await write(queue, "p/a", chunks=2)
    async with reader.get(path) as source:
        await reader.until_ended(reader.events(source), "p/a")
    assert reader.offsets["p/a"] == [1, 2, 3]


class Listed(WatchedQueue):
    """Counts how often its streams are listed."""

    looks = 0
    is_blind = False
    """Whether nothing is found."""

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        async for info in super().streams(tenant, prefix):
            if not self.is_blind:
                yield info
        self.looks += 1

    async def looked(self) -> None:
        """Wait for a look that begins after this call."""
        enough = self.looks + 2
        await eventually(lambda: self.looks >= enough)


async def test_a_stream_that_is_deleted_and_written_again_begins_anew(
    start: Serve, queue: WatchedQueue
) -> None:
    """A job that runs again under its name is another stream, not the rest of the first one."""
    listed = Listed(queue)
    served = await start(queue=listed, prefix_seconds=0.05)
    reader = Reader(served)
    async with reader.get(address(prefixes=("p/",))) as source:
        events = reader.events(source)
        for _ in range(3):
            await write(queue, "p/a")
            found = await reader.until_ended(events, "p/a")
            assert [each["event"] for each in found] == ["stream", "chunk", "end"]
            assert (found[0]["is_new"], found[0]["place"]) == (True, "0")
            reader.ended.clear()
            await queue.delete(StreamId("default", "p/a"))
            await listed.looked()


async def test_a_list_that_forgets_a_stream_for_a_moment_repeats_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """Lists of some backends are late; a stream that is still there is the same stream."""
    listed = Listed(queue)
    served = await start(queue=listed, prefix_seconds=0.05)
    reader = Reader(served)
    async with open_writer("p/a", queue=queue) as writer:
        await write(queue, "p/b")
        async with reader.get(address(prefixes=("p/",))) as source:
            events = reader.events(source)
            await writer.send_chunk(1)
            await writer.flush()
            await reader.until(events, lambda: "p/b" in reader.ended and bool(reader.values["p/a"]))
            listed.is_blind = True
            await listed.looked()
            listed.is_blind = False
            await listed.looked()
            await writer.finish()
            await write(queue, "p/c")
            await reader.until_ended(events, "p/a", "p/c")
            await listed.looked()
            await write(queue, "p/d")
            await reader.until_ended(events, "p/d")
    assert reader.offsets["p/a"] == [1, 2]
    assert reader.offsets["p/b"] == [1, 2]


async def test_all_connections_share_one_look(start: Serve, queue: WatchedQueue) -> None:
    """A hundred pages of one chat must not list the backend a hundred times, and none for ever."""
    served = await start(prefix_seconds=0.02)
    await write(queue, "p/a")
    readers = [Reader(served) for _ in range(5)]
    openings = [reader.get(address(prefixes=("p/",))) for reader in readers]
    sources = [await opening.__aenter__() for opening in openings]
    for reader, source in zip(readers, sources, strict=True):
        await reader.until_ended(reader.events(source), "p/a")
    assert len(served.gateway.prefixes) == 1
    for opening in openings:
        await opening.__aexit__(None, None, None)
    await eventually(lambda: len(served.gateway.prefixes) == 0)


class Unlisted(WatchedQueue):
    """A backend that cannot list."""

    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        raise CapabilityError("this backend cannot list")


async def test_a_backend_that_cannot_list_says_so(start: Serve, queue: WatchedQueue) -> None:
    """Otherwise a client would wait for streams that are never found."""
    served = await start(queue=Unlisted(queue))
    expected = await served.get("/streams?prefix=p/")
    answer = await served.get("/events?prefix=p/")
    assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())
    assert answer.status_code == 501


async def test_more_than_fit_into_ids_are_reported_and_not_left_out_in_silence(
    start: Serve, queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id has the places of all streams; one that grew for ever would be refused by proxies."""
    monkeypatch.setattr(_asked, "MOST_BY_GET", 5)
    await write(queue, *(f"p/{i}" for i in range(8)))
    served = await start(prefix_seconds=0.05)
    reader = Reader(served)
    errors: list[dict[str, Any]] = []
    async with reader.get(address(prefixes=("p/",))) as source, asyncio.timeout(20):
        events = reader.events(source)
        while len(reader.ended) < 5 or not errors:
            data = reader.take(await anext(events))
            if data["event"] == "error":
                errors.append(data)
    [error] = errors
    assert (error["prefix"], error["error"], error["retryable"]) == ("p/", "streams_limit", False)
    assert "POST" in error["message"]


async def test_streams_that_are_gone_take_no_room_in_ids(
    start: Serve, queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that comes back brings places of streams that nobody needs any more."""
    monkeypatch.setattr(_asked, "MOST_BY_GET", 4)
    served = await start(prefix_seconds=0.05)
    old, new = [f"a/{i}" for i in range(4)], ["b/0", "b/1"]
    await write(queue, *old)
    reader = Reader(served)
    async with reader.get(address(prefixes=("b/", "a/"))) as source:
        await reader.until_ended(reader.events(source), *old)
    for name in old:
        await queue.delete(StreamId("default", name))
    await write(queue, *new)
    async with reader.get(address(prefixes=("b/", "a/"))) as source:
        await reader.until_ended(reader.events(source), *new)
    assert not reader.errors


async def test_ended_streams_make_room_for_others(
    start: Serve, queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix with thousands of ended streams is read through by a few places."""
    monkeypatch.setattr(_asked, "MOST_BY_POST", 3)
    names = [f"p/{i}" for i in range(40)]
    await write(queue, *names)
    served = await start(prefix_seconds=0.05)
    async with open_writer("p/live-1", queue=queue) as one, open_writer("p/live-2", queue=queue):
        await one.send_chunk("x")
        await one.flush()
        reader = Reader(served)
        async with reader.post({"prefixes": ["p/"]}) as source, asyncio.timeout(20):
            events = reader.events(source)
            await reader.until_ended(events, *names)
            await one.send_chunk("y")
            await reader.until(events, lambda: reader.values["p/live-1"] == ["x", "y"])


async def test_a_list_that_fails_is_reported_once_and_made_again(
    start: Serve, queue: WatchedQueue
) -> None:
    """What was found goes on, and what is new comes when the backend can list again."""
    served = await start(prefix_seconds=0.02)
    reader = Reader(served)
    async with (
        open_writer("p/a", queue=queue) as writer,
        reader.get(address(prefixes=("p/",))) as source,
    ):
        events = reader.events(source)
        await reader.until(events, lambda: "p/a" in reader.places)
        queue.always("streams", Fail())
        failed = queue.count("streams") + 3
        await reader.until(events, lambda: bool(reader.errors))
        await eventually(lambda: queue.count("streams") >= failed)
        await writer.send_chunk(1)
        await writer.flush()
        await reader.until(events, lambda: reader.values["p/a"] == [1])
        await write(queue, "p/b")
        queue.heal()
        await reader.until_ended(events, "p/b")
    assert reader.errors == [(None, "backend_unavailable", True)]


async def test_a_list_that_fails_at_the_beginning_is_the_answer(
    start: Serve, queue: WatchedQueue
) -> None:
    """As for a list: a status, with Retry-After, rather than a connection that has nothing."""
    served = await start()
    queue.always("streams", Fail())
    answer = await served.get(address(prefixes=("p/",)))
    assert (answer.status_code, answer.json()["error"]) == (503, "backend_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    await eventually(lambda: len(served.gateway.prefixes) == 0)


async def test_a_prefix_with_too_many_streams_says_so(
    start: Serve, queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix that means everything must not fill the memory of the gateway."""
    monkeypatch.setattr(_prefix_watchers, "MOST_FOUND", 3)
    await write(queue, *(f"p/{i}" for i in range(5)))
    served = await start(prefix_seconds=0.02)
    reader = Reader(served)
    async with reader.get(address(prefixes=("p/",))) as source:
        await reader.until(
            reader.events(source), lambda: len(reader.ended) >= 3 and bool(reader.errors)
        )
    assert reader.errors[0] == (None, "streams_limit", True)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("seed", range(4))
async def test_cuts_lose_and_repeat_nothing_of_streams_that_come_and_end(
    start: Serve, queue: WatchedQueue, method: str, seed: int
) -> None:
    """Streams begin while a client is connected, and while it is not, and each is whole."""
    chance = random.Random(seed)
    names = [f"p/{i}" for i in range(25)]
    lengths = {name: chance.choice([0, 1, 7, 60]) for name in names}
    served = await start(prefix_seconds=0.02, linger_seconds=0.01)
    reader = Reader(served)

    async def produce(some: list[str]) -> None:
        for name in some:
            async with open_writer(name, queue=queue) as writer:
                for i in range(lengths[name]):
                    await writer.send_chunk(i)
                    if chance.random() < 0.2:
                        await writer.flush()
                        await asyncio.sleep(chance.random() * 0.01)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for part in range(3):
            group.create_task(produce(names[part::3]))
        while len(reader.ended) < len(names):
            if method == "get":
                opening = reader.get(address("p/0", prefixes=("p/",), wait="60"))
            else:
                opening = reader.post({"streams": ["p/0"], "prefixes": ["p/"], "wait": 60})
            async with opening as source:
                most, events = chance.choice([1, 4, 30, 200]), reader.events(source)
                while most and len(reader.ended) < len(names):
                    reader.take(await anext(events))
                    most -= 1
    for name in names:
        assert reader.offsets[name] == list(range(1, lengths[name] + 2))
    assert reader.errors == []
