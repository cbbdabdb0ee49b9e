"""Proxies that compress and buffer: each event arrives before the next one is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from httpx_sse import aconnect_sse
from tests.programs import missing, program

from streamq import Chunk, open_reader, open_writer

from .proxies import free_port, running, start_nginx
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
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {target}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
  }}
"""
Start = Callable[[AsyncExitStack, str, Path], Awaitable[str]]


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
    port = free_port()
    await start_nginx(stack, directory, port, _NGINX.format(port=port, target=target))
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
        page = await client.get(f"{url}/page/main.js", headers={"Accept-Encoding": "gzip"})
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


@pytest.mark.parametrize("start_proxy", [express, nginx], ids=["express", "nginx"])
async def test_each_record_passes_a_compressing_proxy_at_once(
    start: Serve, queue: WatchedQueue, tmp_path: Path, start_proxy: Start
) -> None:
    """A reader in Python is as live behind a proxy as a browser."""
    served = await start(heartbeat_seconds=60)
    async with AsyncExitStack() as stack, open_writer("a/b c", queue=queue) as writer:
        url = await start_proxy(stack, served.server.url, tmp_path)
        async with asyncio.timeout(30), open_reader(f"{url}/events/a/b%20c") as reader:
            for i in range(5):
                await writer.send_chunk(f"token {i}")
                event = await anext(reader)  # the next one is written only after this
                assert isinstance(event, Chunk)
                assert event.value == f"token {i}"
            stored = await reader.read_batch(max_wait=0)  # a page, which is compressed
            assert stored == []
