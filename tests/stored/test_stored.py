"""Tests that this streamq reads, and goes on with, what an earlier one has stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from streamq import OnRetry, open_queue, open_reader
from streamq.driver import ChunkQueue, StreamId
from streamq.testing.checks._streams import delivered

from .servers import S3, SERVERS, Server, Sqs, Temporal, load
from .stories import FIRST_EPOCH, TENANTS, Outline, Writing, names, read_stream, settings

Restored = AbstractAsyncContextManager[ChunkQueue]
RESUMED = ("text", "reset")
"""Streams of which every stored cursor is tried."""

KINDS = pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.backend)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[type[Server]], Restored]:
    """Return a function that starts a server with what was kept, and opens a queue there."""

    @asynccontextmanager
    async def start(kind: type[Server]) -> AsyncIterator[ChunkQueue]:
        async with kind(tmp_path, load(kind.backend)[1]).running() as environment:
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            async with open_queue(settings(kind.backend)) as queue:
                yield queue

    return start


def known(outline: Outline, expected: Outline) -> Outline:
    """Return an outline with those fields of its events that the earlier streamq had."""
    pairs = zip(outline["events"], expected["events"], strict=True)
    events = [{name: event.get(name) for name in earlier} for event, earlier in pairs]
    return {**outline, "events": events, "cursors": expected["cursors"]}


@KINDS
async def test_stored_streams_are_read(
    kind: type[Server], restored: Callable[[type[Server]], Restored]
) -> None:
    """An upgrade must not lose a stream, change an event, or invalidate a cursor."""
    expected = load(kind.backend)[0]
    async with restored(kind) as queue:
        found = await names(queue, TENANTS)
        assert found == [StreamId(each["tenant"], each["name"]) for each in expected]
        for stream, each in zip(found, expected, strict=True):
            assert known(await read_stream(queue, stream), each) == each
            if queue.capabilities.replay and stream.name in RESUMED:
                for place, cursor in enumerate(each["cursors"], 1):
                    assert await offsets_after(queue, stream, cursor) in (
                        [event["offset"] for event in each["events"][place:]],
                        [each["events"][-1]["offset"]],  # after the seal it comes again
                    )


async def offsets_after(queue: ChunkQueue, stream: StreamId, cursor: str) -> list[int]:
    """Return the offsets of the stored events after a cursor."""
    found: list[int] = []
    chosen = settings(queue.backend)
    async with open_reader(stream, from_=cursor, queue=queue, settings=chosen) as reader:
        while batch := await reader.read_batch(max_wait=0):
            found += [event.offset for event in batch]
    return found


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.full] if kind in (S3, Sqs, Temporal) else [])
        for kind in SERVERS
    ],
    ids=lambda kind: kind.backend,
)
async def test_stored_stream_is_continued(
    kind: type[Server], restored: Callable[[type[Server]], Restored]
) -> None:
    """The next attempt of a worker of this version goes on with the stream of an earlier one."""
    async with restored(kind) as queue:
        write = Writing(queue, FIRST_EPOCH + 1_000)
        resumes = queue.capabilities.replay
        await write.send("open", "c", on_retry=OnRetry.RESUME if resumes else OnRetry.RESTART)
        story = ["a", "b", *([] if resumes else ["RESET 2"]), "c", "END"]
        reader = await open_reader(
            StreamId("stored", "open"), queue=queue, settings=settings(kind.backend)
        )
        assert delivered([event async for event in reader]) == story
        await reader.aclose()
