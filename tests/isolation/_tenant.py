"""Does through a queue what a tenant may do, and tries what it may not."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable

from streamq import Chunk, FencedError, load_settings, open_reader, open_writer
from streamq._executions import Execution
from streamq._sweep import Life, SweepRequest, Verdict, sweep
from streamq.driver import (
    START,
    AccessDeniedError,
    ChunkQueue,
    Entry,
    StreamId,
    StreamNotFoundError,
    StreamqError,
)

_IDLE_SECONDS = 60
_PATIENCE_SECONDS = 30
_WAIT_SECONDS = 0.2


async def has_ended(execution: Execution) -> Verdict:
    """Judge for a sweep that everything has ended."""
    return Verdict(Life.OVER, f"{execution} has ended")


def _new_stream(tenant: str) -> StreamId:
    return StreamId(tenant, f"poem-{uuid.uuid4()}/{uuid.uuid4()}/default")


async def _listed(queue: ChunkQueue, tenant: str) -> set[StreamId]:
    return {each.stream async for each in queue.streams(tenant)}


async def _expect_listed(queue: ChunkQueue, tenant: str, expected: set[StreamId]) -> None:
    """Wait until a listing has what is expected: that of some backends lags behind."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while await _listed(queue, tenant) != expected:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.1)


async def written_stream(queue: ChunkQueue, tenant: str) -> StreamId:
    """Write a stream to its end, and return it."""
    stream = _new_stream(tenant)
    async with open_writer(stream, queue=queue) as writer:
        await writer.send_chunk("secret of " + tenant)
    return stream


async def tells_whole_story(
    queue: ChunkQueue, other: ChunkQueue, tenant: str, *, lists: bool = True
) -> None:
    """Write, wait, read, take over, describe, list, sweep and delete, with two queues of a tenant.

    Streams that the tenant had before stay as they are.

    Args:
        queue: One queue.
        other: Another one.
        tenant: Whose they are.
        lists: Whether the rights include listing, and with it sweeping.
    """
    before = await _listed(queue, tenant) if lists else set()
    stream, left = _new_stream(tenant), _new_stream(tenant)
    # The reader waits before the stream is there.
    async with open_reader(stream, queue=other, idle_seconds=_IDLE_SECONDS) as reader:
        async with open_writer(stream, queue=queue) as writer:
            for word in ("a", "b"):
                await writer.send_chunk(word)
                await writer.flush()
                event = await anext(reader)
                assert isinstance(event, Chunk)
                assert event.value == word
            await writer.send_chunk("c")
        assert [each.value async for each in reader if isinstance(each, Chunk)] == ["c"]
    if queue.capabilities.replay:
        async with open_reader(stream, queue=queue, idle_seconds=_IDLE_SECONDS) as late:
            assert await late.collect() == ["a", "b", "c"]
    assert (await queue.describe(stream, last=1)).stream == stream
    with contextlib.suppress(FencedError):  # the sweep takes the stream over
        async with open_writer(left, queue=queue) as writer:
            await writer.send_chunk("half")
            await writer.flush()
            if lists:
                await _expect_listed(other, tenant, before | {stream, left})
                await _sweep(other, tenant)
    for each in (stream, left):
        await queue.delete(each)
    if lists:
        await _expect_listed(other, tenant, before)


async def _sweep(queue: ChunkQueue, tenant: str) -> None:
    request = SweepRequest(tenant=tenant, grace_seconds=0)
    summary = await sweep(queue, load_settings(tenant=tenant), request, has_ended)
    assert (summary.failed, summary.problems) == (0, [])
    assert summary.sealed == (1 if queue.capabilities.fenced else 0)


async def finds_nothing(queue: ChunkQueue, theirs: StreamId) -> None:
    """Look for a stream of another tenant where a tenant has a store of its own.

    It is as absent as one that never was, and what is written and deleted under its name concerns
    the tenant's own store.
    """
    assert await _listed(queue, theirs.tenant) == set()
    for stream in (theirs, _new_stream(theirs.tenant)):
        for wait in (0, _WAIT_SECONDS):
            assert not await queue.read(stream, START, max_records=1, max_bytes=1, max_wait=wait)
        try:
            await queue.describe(stream, last=1)
        except StreamNotFoundError:
            pass
        else:
            raise AssertionError(f"{stream} was described")
        await queue.append(stream, [Entry(99, 0, b"x")])
        await queue.delete(stream)


async def reveals_nothing(
    queue: ChunkQueue, theirs: StreamId, place: Callable[[StreamId], str] = str
) -> None:
    """Try everything on a stream of another tenant, and on one that does not exist.

    Each call is refused, with the same error for both.

    Args:
        queue: With the rights of a tenant.
        theirs: A stream of another one.
        place: Returns what errors call the place of a stream in the backend.
    """
    refusals = []
    for stream in (theirs, _new_stream(theirs.tenant)):
        found = await _refusals(queue, stream)
        refusals.append(
            {
                name: text.replace(str(stream), "STREAM").replace(place(stream), "PLACE")
                for name, text in found.items()
            }
        )
    assert refusals[0] == refusals[1]


async def _refusals(queue: ChunkQueue, stream: StreamId) -> dict[str, str]:
    async def read(wait: float) -> object:
        return await queue.read(stream, START, max_records=1, max_bytes=1, max_wait=wait)

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: queue.append(stream, [Entry(1, 0, b"x")]),
        "append several": lambda: queue.append(stream, [Entry(9, 0, b"x"), Entry(9, 1, b"y")]),
        "read": lambda: read(0),
        "wait": lambda: read(_WAIT_SECONDS),
        "describe": lambda: queue.describe(stream, last=1),
        "delete": lambda: queue.delete(stream),
        "list": lambda: _listed(queue, stream.tenant),
    }
    if not queue.capabilities.fenced:
        calls["newest epoch"] = lambda: queue.newest_epoch(stream)
    found = {}
    for name, call in calls.items():
        try:
            outcome = await call()
        except AccessDeniedError as exc:
            found[name] = str(exc)
        except StreamqError as exc:
            raise AssertionError(f"{name} of {stream} was not refused, but failed: {exc}") from exc
        else:
            raise AssertionError(f"{name} of {stream} was not refused: {outcome!r}")
    return found
