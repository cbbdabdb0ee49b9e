"""Writers of one queue store together: one call for all, and each ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from streamq import (
    BackendUnavailableError,
    DriverError,
    FencedError,
    Settings,
    StreamWriter,
    load_settings,
    open_queue,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, StreamAppend, StreamqError

Outcomes = Sequence[StreamqError | None]


class Calls:
    """The calls of ``append_many`` of a real queue: counts, delays and alters them."""

    def __init__(self, queue: ChunkQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.alter: Callable[[Sequence[StreamAppend], Outcomes], Outcomes] = lambda _, found: found
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.began = asyncio.Event()
        append_many = type(queue).append_many

        async def watched(queue: ChunkQueue, appends: Sequence[StreamAppend]) -> Outcomes:
            self.sizes.append(len(appends))
            self.began.set()
            await self.may_go.wait()
            return self.alter(appends, await append_many(queue, appends))

        monkeypatch.setattr(type(queue), "append_many", watched)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a database of its own."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    return load_settings(backend="sqlite", idle_seconds=5, retry_seconds=5)


@pytest.fixture
async def queue(settings: Settings) -> AsyncIterator[ChunkQueue]:
    """A queue that stores for many streams at once."""
    async with open_queue(settings) as queue:
        yield queue


@pytest.fixture
async def writers(queue: ChunkQueue, settings: Settings) -> AsyncIterator[list[StreamWriter]]:
    """Three writers, whose streams are s0, s1 and s2."""
    async with AsyncExitStack() as stack:
        opened = []
        for at in range(3):
            writer = await open_writer(f"s{at}", queue=queue, settings=settings)
            stack.push_async_callback(writer.aclose)
            opened.append(writer)
        yield opened


async def send(writers: Sequence[StreamWriter], text: str) -> None:
    """Send a chunk into each, without letting the event loop run."""
    for writer in writers:
        writer.send_nowait(text)


async def finish(writers: Sequence[StreamWriter]) -> None:
    """End the streams."""
    for writer in writers:
        await writer.finish()


async def texts(queue: ChunkQueue, settings: Settings, name: str) -> list[object]:
    """Read a stream to its end."""
    async with open_reader(name, queue=queue, settings=settings) as reader:
        return await reader.collect()


async def test_chunks_of_many_writers_are_one_call(
    writers: list[StreamWriter],
    queue: ChunkQueue,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call for each stream is what a thousand streams cannot afford."""
    calls = Calls(queue, monkeypatch)
    await send(writers, "a")
    await asyncio.gather(*(writer.flush() for writer in writers))
    assert calls.sizes == [3]
    await finish(writers)
    assert [await texts(queue, settings, f"s{at}") for at in range(3)] == [["a"]] * 3


async def test_append_that_fails_is_repeated_alone(
    writers: list[StreamWriter],
    queue: ChunkQueue,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage of one stream's part of the storage costs the others nothing."""
    calls = Calls(queue, monkeypatch)
    failures = [BackendUnavailableError("down", backend="sqlite")]

    def fail(appends: Sequence[StreamAppend], found: Outcomes) -> Outcomes:
        if not failures:
            return found
        error = failures.pop()
        return [error if each.stream.name == "s1" else None for each in appends]

    calls.alter = fail
    await send(writers, "a")
    await asyncio.gather(*(writer.flush() for writer in writers))
    assert calls.sizes == [3]
    await send(writers, "b")
    await finish(writers)
    assert [await texts(queue, settings, f"s{at}") for at in range(3)] == [["a", "b"]] * 3


async def test_superseded_writer_stops_and_those_beside_it_go_on(
    writers: list[StreamWriter], queue: ChunkQueue, settings: Settings
) -> None:
    """One stale attempt among many must stop itself only."""
    newer = await open_writer("s1", queue=queue, settings=settings)
    await send(writers, "a")
    ends = await asyncio.gather(*(writer.flush() for writer in writers), return_exceptions=True)
    assert [type(each) for each in ends] == [type(None), FencedError, type(None)]
    await finish([writers[0], newer, writers[2]])
    assert [await texts(queue, settings, f"s{at}") for at in (0, 2)] == [["a"], ["a"]]


async def test_writer_that_is_cancelled_leaves_the_call_to_the_others(
    writers: list[StreamWriter],
    queue: ChunkQueue,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An activity that is cancelled must not take the chunks of other activities with it."""
    calls = Calls(queue, monkeypatch)
    calls.may_go.clear()
    await send(writers, "a")
    await calls.began.wait()
    closing = asyncio.create_task(writers[1].aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    calls.may_go.set()
    await finish([writers[0], writers[2]])
    assert [await texts(queue, settings, f"s{at}") for at in (0, 2)] == [["a"], ["a"]]


async def test_call_that_nobody_waits_for_is_cancelled(
    writers: list[StreamWriter], queue: ChunkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that hangs must leave no task behind its writers."""
    calls = Calls(queue, monkeypatch)
    calls.may_go.clear()
    await send(writers, "a")
    await calls.began.wait()
    for writer in writers:
        writer._seal_timeout = 0.01
    await asyncio.gather(*(writer.aclose() for writer in writers))
    left = [each.get_name() for each in asyncio.all_tasks()]
    assert not [name for name in left if name.startswith("streamq-")]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([None], "for 3 appends"),
        ([None, "no", None], "neither None nor a StreamqError"),
        (None, "returned None"),
    ],
    ids=["too few", "something else", "nothing"],
)
async def test_outcomes_that_break_the_contract_name_the_driver(
    writers: list[StreamWriter],
    queue: ChunkQueue,
    monkeypatch: pytest.MonkeyPatch,
    found: Outcomes,
    message: str,
) -> None:
    """A writer that takes them for success would lose chunks in silence."""
    calls = Calls(queue, monkeypatch)
    calls.alter = lambda appends, _: found
    await send(writers, "a")
    ends = await asyncio.gather(*(writer.flush() for writer in writers), return_exceptions=True)
    assert all(isinstance(each, DriverError) and message in str(each) for each in ends), ends
