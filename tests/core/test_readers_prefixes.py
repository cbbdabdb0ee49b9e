"""Tests readers of prefixes: streams found, announced, removed and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streamq import (
    BackendUnavailableError,
    CapabilityError,
    ConfigurationError,
    Settings,
    StreamFound,
    StreamReaders,
    open_readers,
)
from streamq.driver import ChunkQueue, StreamId, StreamInfo
from streamq.testing import FaultyQueue

from .many_readers import Consuming, of, shown, write, write_on


class SlowToDescribe(FaultyQueue):
    """Lets other tasks run before it answers, or does not answer."""

    is_down = False

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        await asyncio.sleep(0.01)
        if self.is_down:
            raise BackendUnavailableError("gone", backend="memory")
        return await super().describe(stream, last=last)


@pytest.fixture
async def chat(anywhere: tuple[Settings, ChunkQueue]) -> AsyncIterator[StreamReaders]:
    """Readers of a prefix below which one stream has ended."""
    settings, queue = anywhere
    await write(queue, settings, "chat-7/1", "old")
    await write(queue, settings, "chat-77/1", "of another chat")
    async with open_readers(
        prefixes=["chat-7/"], list_seconds=0.05, queue=queue, settings=settings
    ) as readers:
        yield readers


async def test_streams_of_a_prefix_are_found_and_announced(
    chat: StreamReaders, anywhere: tuple[Settings, ChunkQueue]
) -> None:
    """A chat has a stream for each turn, and nobody knows the names of those to come."""
    settings, queue = anywhere
    found = await anext(chat)
    assert (found.stream.name, found.event) == ("chat-7/1", StreamFound(is_new=False))
    assert [shown(await anext(chat)) for _ in range(2)] == [
        ("chat-7/1", "old"),
        ("chat-7/1", "END"),
    ]
    await write(queue, settings, "chat-7/2", "new")
    async with asyncio.timeout(10):
        found = await anext(chat)
        assert (found.stream.name, found.event) == ("chat-7/2", StreamFound(is_new=True))
        assert [shown(await anext(chat)) for _ in range(2)] == [
            ("chat-7/2", "new"),
            ("chat-7/2", "END"),
        ]


async def test_stream_that_was_removed_is_not_found_again(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Who hides a stream does not want it back five seconds later."""
    await write_on(queue, settings, "p/1", 1)
    async with open_readers(
        prefixes=["p/"], list_seconds=0.01, queue=queue, settings=settings
    ) as readers:
        assert shown(await anext(readers)) == ("p/1", StreamFound)
        await readers.remove("p/1")
        await write_on(queue, settings, "p/2", 2)
        assert [shown(await anext(readers)) for _ in range(2)] == [("p/2", StreamFound), ("p/2", 2)]


async def test_named_stream_that_was_removed_is_not_found_by_a_prefix(
    queue: ChunkQueue, settings: Settings
) -> None:
    """It makes no difference how a stream came that a user does not want any more."""
    await write_on(queue, settings, "p/1", 1)
    async with open_readers(
        ["p/1"], prefixes=["p/"], list_seconds=0.01, queue=queue, settings=settings
    ) as readers:
        assert shown(await anext(readers)) == ("p/1", 1), "it needs no announcement"
        await readers.remove("p/1")
        await write_on(queue, settings, "p/2", 2)
        assert shown(await anext(readers)) == ("p/2", StreamFound)
        assert [each.name for each in readers.streams] == ["p/2"]


async def test_new_stream_of_a_prefix_is_read_whole_whatever_was_asked(
    queue: ChunkQueue, settings: Settings
) -> None:
    """ "tail" means what comes after now, and all of a new stream does."""
    await write_on(queue, settings, "p/1", 1)
    async with open_readers(
        prefixes=["p/"], from_="tail", list_seconds=0.01, queue=queue, settings=settings
    ) as readers:
        await write_on(queue, settings, "p/2", 1, 2)
        await write_on(queue, settings, "p/1", 2)
        items: list[tuple[str, object]] = []
        async with asyncio.timeout(10):
            while len(items) < 5:
                items.append(shown(await anext(readers)))
    assert of("p/1", items) == [StreamFound, 2]
    assert of("p/2", items) == [StreamFound, 1, 2]


class _FailingLists(FaultyQueue):
    """Lists fail while told so."""

    failure: Exception | None = None
    lists = 0

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self.lists += 1
        if self.failure is not None:
            raise self.failure
        async for info in self.inner.streams(tenant, prefix):
            yield info


async def test_list_that_fails_is_repeated_and_reported_in_the_end(
    queue: ChunkQueue, settings: Settings, eventually: Callable[[Callable[[], bool]], Any]
) -> None:
    """A short outage goes unnoticed; a long one must not look like no news."""
    failing = _FailingLists(queue)
    await write_on(queue, settings, "p/1", 1)
    async with open_readers(
        prefixes=["p/"],
        list_seconds=0.01,
        queue=failing,
        settings=settings.model_copy(update={"retry_seconds": 0.2}),
    ) as readers:
        assert [shown(await anext(readers)) for _ in range(2)] == [("p/1", StreamFound), ("p/1", 1)]
        failing.failure = BackendUnavailableError("gone", backend="memory")
        with pytest.raises(BackendUnavailableError):
            await anext(readers)
        failing.failure = None
        await write_on(queue, settings, "p/2", 2)
        assert shown(await anext(readers)) == ("p/2", StreamFound)


async def test_more_streams_than_permitted_are_an_error(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A prefix that is too short must not take all memory."""
    for number in range(3):
        await write_on(queue, settings, f"p/{number}", number)
    with pytest.raises(ConfigurationError, match="max_streams"):
        await open_readers(prefixes=["p/"], max_streams=2, queue=queue, settings=settings)
    with pytest.raises(ConfigurationError, match="max_streams"):
        await open_readers(["a", "b", "c"], max_streams=2, queue=queue, settings=settings)
    async with open_readers(["a"], max_streams=1, queue=queue, settings=settings) as readers:
        with pytest.raises(ConfigurationError, match="max_streams"):
            await readers.add("b")


async def test_streams_that_are_opened_at_once_are_counted_too(
    queue: ChunkQueue, settings: Settings
) -> None:
    """On a backend that takes its time many are on their way before the first one is read."""
    for name in "abc":
        await write_on(queue, settings, name, name)
    slow = SlowToDescribe(queue)
    with pytest.raises(ConfigurationError, match="max_streams"):
        await open_readers(list("abc"), max_streams=2, from_="tail", queue=slow, settings=settings)
    async with open_readers(["a"], max_streams=2, queue=slow, settings=settings) as readers:
        await asyncio.gather(readers.add("b", from_="tail"), readers.add("b", from_="tail"))
        assert {each.name for each in readers.streams} == {"a", "b"}


async def test_stream_that_cannot_be_opened_keeps_its_place(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A program that stores the places after an outage must not see everything again."""
    await write_on(queue, settings, "a", 1, 2)
    async with open_readers(["a"], queue=queue, settings=settings) as readers:
        assert shown(await anext(readers)) == ("a", 1)
        places = dict(readers.cursors)
    slow = SlowToDescribe(queue)
    slow.is_down = True
    async with open_readers(
        ["a"], from_=places, must_exist=True, queue=slow, settings=settings
    ) as readers:
        assert shown(await anext(readers)) == ("a", BackendUnavailableError)
        assert readers.cursors == places
        slow.is_down = False
        await readers.add("a")
        assert shown(await anext(readers)) == ("a", 2)


async def test_without_replay_prefixes_and_the_tail_are_refused(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Finding a stream would take away what its one reader waits for."""
    consuming = Consuming(queue)
    with pytest.raises(CapabilityError, match="replay"):
        await open_readers(prefixes=["p/"], queue=consuming, settings=settings)
    with pytest.raises(CapabilityError, match="replay"):
        await open_readers(["a"], from_="tail", queue=consuming, settings=settings)
