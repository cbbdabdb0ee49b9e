"""Proxies that compress and buffer: each event arrives before the next one is written."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from httpx_sse import aconnect_sse
from tests.programs import missing, program

from streamq import open_writer

from .served import Serve, WatchedQueue

_DEBIAN = Path("/usr/share/nodejs")
_EXPRESS = """
const express = require("express"), compression = require("compression");
const proxy = require("http-proxy").createProxyServer({ target: process.argv[1] });
proxy.on("error", (error, request, response) => response.destroy());
const app = express();
app.use(compression({ threshold: 0, filter: () => true }));
app.use((request, response) => proxy.web(request, response));
const server = app.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
"""
_NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/errors;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2;
  fastcgi_temp_path {directory}/3; uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  gzip on; gzip_min_length 0; gzip_types *; gzip_proxied any; gzip_http_version 1.0;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {target}; proxy_http_version 1.1; proxy_set_header Host $host; }}
  }}
}}
"""
Start = Callable[[AsyncExitStack, str, Path], Awaitable[str]]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=environment or None
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def express(stack: AsyncExitStack, target: str, _directory: Path) -> str:
    node, port = program("node", package="nodejs"), free_port()
    for package in ("express", "compression", "http-proxy"):
        if not (_DEBIAN / package).exists():
            missing(f"{_DEBIAN / package} is not there; install Debian's node-{package}")
    command = (node, "-e", _EXPRESS, target, str(port))
    process = await stack.enter_async_context(running(*command, NODE_PATH=str(_DEBIAN)))
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return f"http://127.0.0.1:{port}"


async def nginx(stack: AsyncExitStack, target: str, directory: Path) -> str:
    binary, port = program("nginx", "/usr/sbin/nginx", package="nginx-light"), free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, port=port, target=target))
    await stack.enter_async_context(
        running(binary, "-p", str(directory), "-c", str(configuration), "-e", f"{directory}/errors")
    )
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("start_proxy", [express, nginx], ids=["express", "nginx"])
async def test_each_event_passes_a_compressing_proxy_at_once(
    start: Serve, queue: WatchedQueue, tmp_path: Path, start_proxy: Start
) -> None:
    """The proxy waited for enough to compress: all events came at the end."""
    served = await start(heartbeat_seconds=60)
    async with (
        AsyncExitStack() as stack,
        open_writer("s", queue=queue) as writer,
        httpx.AsyncClient(timeout=30) as client,
    ):
        url = await start_proxy(stack, served.server.url, tmp_path)
        page = await client.get(f"{url}/page.js", headers={"Accept-Encoding": "gzip"})
        assert page.headers["content-encoding"] == "gzip"  # it does compress
        async with (
            asyncio.timeout(30),
            aconnect_sse(client, "GET", f"{url}/streams/s/events?wait=5") as source,
        ):
            events = source.aiter_sse()
            for i in range(5):
                await writer.send_chunk(f"token {i}")
                event = await anext(events)  # the next one is written only after this
                assert event.json()["value"] == f"token {i}"
