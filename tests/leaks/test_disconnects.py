"""Clients of a web application come and go, and its process is as before.

The application is Starlette's ``StreamingResponse`` over ``async with subscribe(handle)``, on a
real uvicorn, with few descriptors. Starlette leaves the response by a cancel scope of anyio, which
cancels the task again at every await until the scope has been left.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Collection

import httpx
import pytest
from temporalio.client import Client

from streamq import open_writer
from streamq.temporal import stream_name

from .backends import Backend
from .test_leaks import until_none

CLIENTS = 40


@contextlib.asynccontextmanager
async def served(*arguments: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.leaks.streaming_app",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(await asyncio.wait_for(process.stdout.readline(), 30))
    finally:
        process.terminate()
        await process.wait()


async def visit(port: int, *, reads: bool) -> bytes:
    """Request the stream, read its first event or nothing, and hang up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        async with asyncio.timeout(10):
            return await reader.readuntil(b"data: hello\n\n" if reads else b"\r\n\r\n")
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("backend", "options"),
    [("sqlite", []), ("valkey", []), ("sqlite", ["--middleware"])],
    ids=["sqlite", "valkey", "sqlite with middleware"],
    indirect=["backend"],
)
async def test_clients_that_disconnect_leave_nothing(
    backend: Backend, temporal_address: str, options: list[str]
) -> None:
    """After the thirtieth closed tab, the server must not run out of descriptors."""
    client = await Client.connect(temporal_address)
    handle = await client.start_workflow("Unserved", id=uuid.uuid4().hex, task_queue="none")
    run_id = handle.first_execution_run_id
    assert run_id is not None
    async with open_writer(stream_name(handle.id, run_id), seals_failures=False) as writer:
        await writer.send_chunk("hello")
        await writer.flush()
        async with (
            served(temporal_address, handle.id, run_id, *options) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):

            async def held() -> dict[str, int]:
                found: dict[str, int] = (await http.get("/held")).json()
                return found

            await visit(port, reads=True)  # what is made once and kept is made here
            before = {"tasks": 0, "threads": 0, "files": (await held())["files"]}
            for i in range(CLIENTS):
                await visit(port, reads=i % 3 > 0)

            async def left() -> Collection[object]:
                return {
                    f"{now - before[name]} {name}"
                    for name, now in (await held()).items()
                    if now > before[name]
                }

            await until_none(left, 5)
    await handle.terminate()
