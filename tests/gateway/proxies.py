"""Starts proxies in front of a gateway, on free ports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.programs import program

_COMPRESSING = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/errors;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2;
  fastcgi_temp_path {directory}/3; uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  gzip on; gzip_min_length 0; gzip_types *; gzip_proxied any; gzip_http_version 1.0;
  {server}
}}
"""


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


async def start_nginx(stack: AsyncExitStack, directory: Path, port: int, server: str) -> None:
    """Start an nginx that compresses all it can, and wait until it listens on the port."""
    binary = program("nginx", "/usr/sbin/nginx", package="nginx-light")
    configuration = directory / "nginx.conf"
    configuration.write_text(_COMPRESSING.format(directory=directory, server=server))
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
                return
