"""Clients go on exactly where they were: the place in ``reconnect``, and that of ``from=last``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamq import Settings, open_writer
from streamq.driver import StreamId
from streamq.gateway import create_app

from .served import Serve, WatchedQueue

NAME = StreamId("default", "s")


class SlowClient:
    """A connection that accepts data when it is told to, as uvicorn's: a send waits before it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.accepts = asyncio.Event()
        self.is_waiting = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        if b"chunk" in message.get("body", b"") and not self.accepts.is_set():
            self.is_waiting.set()
            await self.accepts.wait()
        self.received.extend(message.get("body", b""))


def scope(query: bytes = b"") -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/streams/s/events",
        "raw_path": b"",
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"localhost")],
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }


async def test_reconnect_names_no_event_that_was_not_sent(
    queue: WatchedQueue, settings: Settings
) -> None:
    """A program that goes on after the place in it would miss what its connection held back."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        app = create_app(queue, settings)
        client = SlowClient()
        async with app.router.lifespan_context(app), asyncio.timeout(20):
            request = asyncio.create_task(app(scope(), client.receive, client.send))  # type: ignore[arg-type]
            await client.is_waiting.wait()
            app.state.gateway.stop_connections()
            client.accepts.set()
            await request
    received = client.received.decode()
    assert "event: chunk" in received or '"after"' not in received


async def test_reconnect_names_no_page_that_was_not_sent(
    queue: WatchedQueue, settings: Settings
) -> None:
    """A client that catches up is told to go on after the last event it got."""
    async with open_writer("s", queue=queue) as writer:
        for number in range(200):
            await writer.send_chunk(f"{number} {'x' * 1_000}")
            await writer.flush()
    app = create_app(queue, settings)
    gateway = app.state.gateway
    client = SlowClient()
    client.accepts.set()
    follower: list[Any] = []
    follow = gateway.follow

    async def noted(*given: Any, **named: Any) -> Any:
        follower.append(await follow(*given, **named))
        return follower[0]

    gateway.follow = noted
    async with app.router.lifespan_context(app), asyncio.timeout(20):
        request = asyncio.create_task(app(scope(), client.receive, client.send))  # type: ignore[arg-type]
        while not follower or not follower[0].offset:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        gateway.stop_connections()  # between the page and its bytes
        await request
    frames = client.received.decode().split("\n\n")
    ids = [frame.partition("\n")[0] for frame in frames if "event: chunk" in frame]
    last = ids[-1].removeprefix("id: ") if ids else "0"
    (goodbye,) = [frame for frame in frames if "event: reconnect" in frame]
    assert json.loads(goodbye.partition("data: ")[2])["after"] == last


class GrowingQueue(WatchedQueue):
    """A stream that grows by some chunks with each look at its end."""

    writer: Any = None

    async def describe(self, stream: StreamId, *, last: int = 0) -> Any:
        found = await super().describe(stream, last=last)
        if self.writer is not None:
            for value in ("x", "y", "z"):
                await self.writer.send_chunk(value)
                await self.writer.flush()
        return found


async def test_from_last_reads_little_of_a_stream_that_others_have_read(
    start: Serve, queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places that are known of a long stream are far apart, and none may be near its end."""
    monkeypatch.setattr("streamq.gateway._pages._MAX_PLACES", 4)
    async with open_writer("s", queue=queue) as writer:
        for number in range(300):
            await writer.send_chunk(f"{number} {'x' * 1_000}")
            await writer.flush()
    served = await start(ring_bytes=1, pages_bytes=1)
    assert len(await served.values("s")) == 300
    before = queue.records_read
    assert (await served.values("s", "from=last"))[0].startswith("299 ")
    assert queue.records_read - before <= 4


async def test_from_last_of_a_busy_stream(start: Serve, queue: WatchedQueue) -> None:
    """Between two questions to the backend a busy stream grows."""
    busy = GrowingQueue(queue.inner)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        busy.writer = writer
        served = await start(busy)
        async with served.events("s", "from=last") as source, asyncio.timeout(10):
            assert source.response.status_code == 200, await source.response.aread()
            first = await anext(event async for event in source.aiter_sse() if event.data)
            assert first.event == "chunk"
        busy.writer = None
