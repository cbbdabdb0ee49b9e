"""Every common server stops soon although event streams are open, and ends them in order."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from streamq.gateway._server_watch import ServerWatch

_APP = """
import asyncio, signal, sys, threading
from starlette.applications import Starlette
from starlette.routing import Mount
from streamq.gateway import create_app

app = Starlette(routes=[Mount("/s", create_app())])  # nobody runs the lifespan of a mount

def server(port):
    import uvicorn
    return uvicorn.Server(uvicorn.Config(app, port=int(port), log_level="critical"))

def in_a_thread(port):
    running = server(port)
    thread = threading.Thread(target=running.run)
    signal.signal(signal.SIGTERM, lambda *_: setattr(running, "should_exit", True))
    thread.start()
    while thread.is_alive():
        thread.join(0.05)

async def with_its_own_handler(port):
    running = server(port)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.02)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: setattr(running, "should_exit", True))
    await task

if __name__ == "__main__":
    if sys.argv[1] == "thread":
        in_a_thread(sys.argv[2])
    else:
        asyncio.run(with_its_own_handler(sys.argv[2]))
"""

# Names of servers: the module that has to be installed, and the arguments of the interpreter.
_SERVERS: dict[str, tuple[str, list[str]]] = {
    "uvicorn": ("uvicorn", ["-m", "uvicorn", "served_app:app", "--port", "PORT"]),
    "uvicorn in a thread": ("uvicorn", ["served_app.py", "thread", "PORT"]),
    "uvicorn with another handler": ("uvicorn", ["served_app.py", "handler", "PORT"]),
    "hypercorn": ("hypercorn", ["-m", "hypercorn", "served_app:app", "--bind", "127.0.0.1:PORT"]),
    "granian": (
        "granian",
        ["-m", "granian", "--interface", "asgi", "served_app:app", "--port", "PORT"],
    ),
    "gunicorn": (
        "uvicorn_worker",
        [
            *("-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker"),
            *("-b", "127.0.0.1:PORT", "served_app:app"),
        ],
    ),
}

Note = Callable[[str, str], None]

_SECONDS = 10.0
"""Generous: servers that wait for event streams wait for 15 minutes, or for a limit of theirs."""


@pytest.mark.parametrize(
    "names",
    [
        ["uvicorn in a thread", "granian"],
        pytest.param(
            ["uvicorn", "uvicorn with another handler", "hypercorn", "gunicorn"],
            marks=pytest.mark.full,
        ),
    ],
)
async def test_servers_stop_with_an_event_stream_open(
    tmp_path: Path, note: Note, names: list[str]
) -> None:
    """A deployment must not wait for, nor cut off, what never ends by itself."""
    (tmp_path / "served_app.py").write_text(_APP)
    found: list[str] = []
    for name in names:
        module = _SERVERS[name][0]
        if importlib.util.find_spec(module) is None:
            note("stopping servers", f"{name} is not tested: {module} is not installed")
        else:
            found.append(name)
    stops = await asyncio.gather(*(_stop(name, tmp_path) for name in found))
    late = {name: took for name, took in zip(found, stops, strict=True) if took > _SECONDS}
    assert not late


def test_a_handler_that_was_wrapped_is_still_called_when_its_loop_has_ended() -> None:
    """Ctrl-C in the next event loop of this process would be an error in a signal handler."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    is_left = False

    async def watch() -> None:
        nonlocal is_left
        waiting = asyncio.create_task(ServerWatch().wait(lambda: not is_left, lambda: None))
        await asyncio.sleep(0)
        followed = signal.getsignal(signal.SIGTERM)
        assert callable(followed)
        signal.signal(signal.SIGTERM, partial(followed))
        is_left = True
        await waiting

    try:
        asyncio.run(watch())
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


async def _stop(name: str, folder: Path) -> float:
    """Start a server, open an event stream, end the server, and return how long that took."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    arguments = [each.replace("PORT", str(port)) for each in _SERVERS[name][1]]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env=os.environ | {"STREAMQ_BACKEND": "memory", "PYTHONPATH": str(folder)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        base = f"http://127.0.0.1:{port}/s"
        async with asyncio.timeout(90), httpx.AsyncClient(timeout=90) as client:
            while True:
                try:
                    await client.get(f"{base}/healthz")
                    break
                except httpx.TransportError:
                    assert process.returncode is None, name
                    await asyncio.sleep(0.05)
            async with client.stream("GET", f"{base}/streams/s/events?wait=60") as response:
                received = response.aiter_bytes()
                content = await anext(received)
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                async for data in received:  # raises if the connection is cut off
                    content += data
                assert b'"reason":"stopping"' in content, name
            await process.wait()
        return time.monotonic() - started
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # otherwise a ResourceWarning
