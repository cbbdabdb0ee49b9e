"""Running the gateway: addresses, readiness, and shutdown with connected clients."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import httpx
import pytest
import uvicorn

from streamq import ConfigurationError, Settings, open_writer
from streamq.gateway import GatewayOptions, create_app, serve

from .served import WatchedQueue

_LIMIT = 60.0
"""Seconds for a shutdown on a busy machine; what it must not wait for takes several times that."""

_PROGRAM = """
import socket, uvicorn
from streamq.gateway import create_app

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(create_app(), log_level="critical")
uvicorn.Server(config).run(sockets=[listener])
"""


async def test_a_free_port_is_chosen_and_reported(queue: WatchedQueue, settings: Settings) -> None:
    """Tests and demos run in parallel; the server answers as soon as its address is known."""
    async with serve(create_app(queue, settings)) as server:
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/healthz")).status_code == 200


async def test_a_port_in_use_is_reported(queue: WatchedQueue, settings: Settings) -> None:
    """uvicorn would end the whole program here, without advice."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 is already in use"):
            async with serve(create_app(queue, settings), port=port):
                pytest.fail("it started")


async def test_an_address_that_cannot_be_used_is_reported(
    queue: WatchedQueue, settings: Settings
) -> None:
    """A name that does not resolve is an error in the configuration."""
    with pytest.raises(ConfigurationError, match=r"cannot listen on not-a-host\.invalid"):
        async with serve(create_app(queue, settings), "not-a-host.invalid"):
            pytest.fail("it started")


async def test_signal_handlers_are_left_alone(queue: WatchedQueue, settings: Settings) -> None:
    """The program that runs the server decides what Ctrl-C does."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    handle_exit = uvicorn.Server.handle_exit
    async with serve(create_app(queue, settings)):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        assert uvicorn.Server.handle_exit is handle_exit


async def test_a_shutdown_ends_open_streams_at_once(
    queue: WatchedQueue, settings: Settings
) -> None:
    """Event streams never end by themselves; a restart must not wait for them."""
    async with (
        asyncio.timeout(_LIMIT),
        open_writer("s", queue=queue) as writer,
        httpx.AsyncClient(timeout=_LIMIT) as client,
    ):
        await writer.send_chunk("x")
        await writer.flush()
        async with serve(create_app(queue, settings), shutdown_seconds=10 * _LIMIT) as server:
            url = f"{server.url}/streams/s/events"
            clients = [asyncio.create_task(client.get(url)) for _ in range(10)]
            health = {"connections": 0}
            while health["connections"] < 10:
                health = (await client.get(f"{server.url}/healthz")).json()
        for response in await asyncio.gather(*clients):  # ended in an orderly way, not aborted
            assert response.content.startswith(b"retry: 2000\n")  # the event may be on its way
            assert b'event: reconnect\ndata: {"event":"reconnect","reason":"stopping"' in (
                response.content
            )
    assert queue.running["read"] == 0


async def test_a_client_that_accepts_no_data_does_not_delay_the_shutdown(
    queue: WatchedQueue, settings: Settings
) -> None:
    """The duration of a shutdown is bounded whatever clients do."""
    patient = GatewayOptions(send_timeout_seconds=10 * _LIMIT)
    async with asyncio.timeout(_LIMIT), open_writer("s", queue=queue) as writer:
        for _ in range(100):
            await writer.send_chunk("x" * 200_000)
        await writer.flush()
        app = create_app(queue, settings, options=patient)
        async with serve(app, shutdown_seconds=1) as server:
            _, stuck = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
            stuck.write(b"GET /streams/s/events HTTP/1.1\r\nHost: x\r\n\r\n")
            async with httpx.AsyncClient() as client:
                seen: list[int] = []
                while not (seen[-30:] == [queue.records_read] * 30 and seen[-1]):
                    seen.append(queue.records_read)  # until every buffer is full
                    await client.get(f"{server.url}/healthz")
            assert queue.records_read < 101
        stuck.transport.abort()


async def test_ctrl_c_ends_a_plain_uvicorn_with_open_streams() -> None:
    """The gateway detects a shutdown of uvicorn, which does not notify applications."""
    environment = os.environ | {"STREAMQ_BACKEND": "memory"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        url = f"http://127.0.0.1:{port}/streams/s/events?wait=300"
        async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
            received = response.aiter_bytes()
            assert await anext(received) == b"retry: 2000\n"
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(_LIMIT):  # without the gateway's part it takes 300 s
                assert b"event: reconnect" in b"".join([piece async for piece in received])
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # otherwise a ResourceWarning


async def test_a_server_can_be_waited_for(queue: WatchedQueue, settings: Settings) -> None:
    """`streamq serve` waits here until it is interrupted."""
    async with serve(create_app(queue, settings)) as server:
        waiting = asyncio.create_task(server.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{server.url}/healthz")).status_code == 200
