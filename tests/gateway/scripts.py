"""Runs short programs of the JavaScript client in Node, and talks with them line by line.

A program ends when nothing in it waits: one that does not end has left a timer or a connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.programs import program

STATIC = Path(__file__).parents[2] / "src/streamq/gateway/static"
_BEGINNING = f"""
import {{ createInterface }} from "node:readline";
import {{ Gateway, GatewayError, parse }} from {json.dumps((STATIC / "client.js").as_uri())};

const given = JSON.parse(process.argv[2]);
const plain = (_key, value) => typeof value === "bigint" ? `${{value}}n`
  : value instanceof Uint8Array ? [...value]
  : typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
const say = (...what) => console.log(JSON.stringify(what.length === 1 ? what[0] : what, plain));
const failed = ({{ code, status, retryable, message, stream }}) =>
  ({{ code, status, retryable, message, stream }});
let lines = null;
const hear = async () => {{
  lines ??= createInterface({{ input: process.stdin }})[Symbol.asyncIterator]();
  return JSON.parse((await lines.next()).value);
}};
"""


class Script:
    """A program that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        """Return the next line that the program says, as JSON."""
        assert self._process.stdout is not None
        text = await self._process.stdout.readline()
        assert text, f"the program has ended with {await self._process.wait()}"
        return json.loads(text)

    async def rest(self) -> list[Any]:
        """Return the lines up to the end of the program, which has to be a success."""
        assert self._process.stdout is not None
        lines = (await self._process.stdout.read()).splitlines()
        assert await self._process.wait() == 0
        return [json.loads(line) for line in lines]

    def tell(self, what: Any) -> None:
        """Send the program a line, which ``hear`` returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")


@asynccontextmanager
async def running_script(folder: Path, body: str, **given: Any) -> AsyncIterator[Script]:
    """Run a program until the context ends.

    Args:
        folder: Where to write it.
        body: The program; it has ``Gateway``, ``given``, ``say``, ``hear`` and ``failed``.
        given: Values of ``given``.
    """
    file = folder / "script.mjs"
    file.write_text(f"{_BEGINNING}{body}\nif (lines) process.stdin.destroy();\n")
    process = await asyncio.create_subprocess_exec(
        *(program("node", package="nodejs"), str(file), json.dumps(given)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        async with asyncio.timeout(60):
            yield Script(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(folder: Path, body: str, **given: Any) -> list[Any]:
    """Run a program to its end, and return what it said."""
    async with running_script(folder, body, **given) as script:
        return await script.rest()


_Answer: TypeAlias = Callable[[str], tuple[bytes, bool]]


@asynccontextmanager
async def answering(answer: _Answer) -> AsyncIterator[str]:
    """Serve hand-written answers, byte by byte as they are given; yields the address.

    Args:
        answer: Returns, for the request line and headers, the bytes to send, and whether the
            connection is closed after them.
    """
    async with AsyncExitStack() as stack:
        open_ones: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_ones.add(writer)
            try:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                data, is_closed = answer(request)
                writer.write(data)
                await writer.drain()
                if not is_closed:
                    await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                open_ones.discard(writer)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        stack.callback(_close, open_ones)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _close(writers: set[asyncio.StreamWriter]) -> None:
    for each in list(writers):
        each.close()
