"""Connections of ``serve``: silent, slow and too many ones, and a lack of file descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from streamq import open_writer
from streamq.gateway._descriptors import room_for_connections
from streamq.gateway._listener import Listener

from .served import Serve, WatchedQueue

_GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def ends(port: int, data: bytes) -> bytes:
    """Send something, and return all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"GET /healthz HTT", b"HTTP/1.1 408 "),
        (_GET + b"X-Slow: 1\r\n", b"HTTP/1.1 408 "),
    ],
)
async def test_a_request_has_to_arrive_in_time(start: Serve, sent: bytes, answer: bytes) -> None:
    """Connections that send nothing, or little now and then, would use up all descriptors."""
    served = await start(request_seconds=0.2)
    found = await ends(served.server.port, sent)
    assert found.startswith(answer)
    assert bool(found) == bool(answer)


async def test_bytes_now_and_then_do_not_restart_the_deadline(start: Serve) -> None:
    """A header of one byte a second is as bad as silence."""
    served = await start(request_seconds=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(_GET)

    async def dribble() -> None:
        while True:
            writer.write(b"X: 1\r\n")
            await asyncio.sleep(0.02)  # the pause of the slow client

    dribbling = asyncio.create_task(dribble())
    async with asyncio.timeout(20):
        with suppress(ConnectionError):  # its bytes meet a closed connection
            assert (await reader.read(17)).startswith(b"HTTP/1.1 408 ")
    dribbling.cancel()
    writer.close()


async def test_a_body_that_does_not_arrive_ends_the_connection(start: Serve) -> None:
    """No route has a use for a body; the answer does not wait for it."""
    served = await start(request_seconds=0.2)
    found = await ends(served.server.port, _GET + b"Content-Length: 1000\r\n\r\nx")
    assert found.startswith(b"HTTP/1.1 200 ")
    request = (
        b"GET /streams/x/events?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
    )
    with suppress(ConnectionError):
        await ends(served.server.port, request)
    async with asyncio.timeout(20):
        while served.gateway.statistics().waiting:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


async def test_an_event_stream_outlives_the_deadline_of_requests(
    start: Serve, queue: WatchedQueue
) -> None:
    """The deadline is for what the client sends."""
    served = await start(request_seconds=0.1, keep_alive_seconds=0.1, heartbeat_seconds=0.05)
    async with open_writer("s", queue=queue) as writer, served.events("s", "wait=9") as source:
        events = source.aiter_sse()
        for i in range(4):
            await asyncio.sleep(0.1)  # longer than the deadline in all
            await writer.send_chunk(i)
            assert (await anext(events)).json()["value"] == i


async def test_huge_headers_are_refused(start: Serve) -> None:
    """Their size is bounded before anything looks at them."""
    served = await start()
    found = await ends(served.server.port, b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000)
    assert found.startswith(b"HTTP/1.1 400 ")


async def test_silent_connections_give_way_to_new_ones(start: Serve) -> None:
    """A client that wants something is served at once, however many want nothing."""
    served = await start(max_connections=8)
    async with AsyncExitStack() as stack:
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            stack.callback(writer.close)
        for _ in range(3):
            async with httpx.AsyncClient(base_url=served.server.url, timeout=20) as client:
                assert (await client.get("/healthz")).status_code == 200


class Busy(asyncio.Protocol):
    """A connection that always has a request."""

    def __init__(self, listener: Listener) -> None:
        self.transport: asyncio.Transport | None = None
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._listener.is_busy(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.is_closed(self)

    def abort(self) -> None:
        raise AssertionError("it has a request")


@asynccontextmanager
async def listening(most: int) -> AsyncIterator[tuple[Listener, int]]:
    """Run a listener whose connections are all busy."""
    connections: list[Busy] = []

    def connect(listener: Listener) -> Busy:
        connections.append(Busy(listener))
        return connections[-1]

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        listener = Listener(server, connect, most, 2.0)
        running = asyncio.create_task(listener.run())
        try:
            yield listener, server.getsockname()[1]
        finally:
            running.cancel()
            await asyncio.wait((running,))
            for each in connections:
                if each.transport is not None:
                    each.transport.abort()


async def test_too_many_connections_get_503(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns when to try again, and the log does not grow with the tries."""
    async with listening(3) as (listener, port), AsyncExitStack() as stack:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
        for _ in range(60):
            found = await ends(port, _GET + b"\r\n")
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 2\r\n" in found
        assert listener.connections == 3
    assert 1 <= len(caplog.records) <= 20


def test_the_bound_is_below_the_limit_of_descriptors() -> None:
    """The backend's connections need some, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 200, hard))
    try:
        assert 100 <= room_for_connections() < 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_hundreds_of_silent_connections_under_a_low_limit(tmp_path: Path) -> None:
    """The gateway goes on answering, and its log stays short."""
    log = tmp_path / "log"
    command = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (128, 128));"
        "from streamq_command import main; main()"
    )
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", command, "serve", "--port", "0"),
            stdout=output,
            stderr=output,
            env=os.environ | {"STREAMQ_BACKEND": "memory", "STREAMQ_GATEWAY_PORT": "0"},
        )
    try:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            while "http://" not in (shown := log.read_text()):
                assert process.returncode is None, shown
                await asyncio.sleep(0.05)
            url = next(word for word in shown.split() if word.startswith("http://"))
            for _ in range(300):
                _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
                stack.callback(writer.close)
            for _ in range(5):
                async with httpx.AsyncClient(timeout=30) as client:
                    assert (await client.get(f"{url}/healthz")).status_code == 200
        assert log.stat().st_size < 20_000
    finally:
        process.terminate()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # otherwise a ResourceWarning
