"""Starts a proxy in front of a gateway that cuts connections at random bytes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_REFUSALS = [
    "502 Bad Gateway",
    "503 Service Unavailable\r\nRetry-After: 0",
    "504 Gateway Timeout",
    "429 Too Many Requests\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT",
]


class CuttingProxy:
    """Passes bytes on, and cuts most connections before they end.

    Args:
        port: Port of the gateway.
        seed: What decides where to cut.
        least: Least bytes of the answer before a cut.
        most: Most bytes of the answer before a cut.
    """

    def __init__(self, port: int, seed: int, least: int, most: int) -> None:
        self.port = port
        self.refuses = True
        """Whether it refuses some connections, as a proxy does whose gateway restarts."""
        self._random = random.Random(seed)
        self._least, self._most = least, most
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.cuts = 0
        """How many connections were cut or refused."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)  # cancelled by aclose only
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = self._random.random()
        if self.refuses and kind < 0.2:  # refused by a proxy, with a page of its own
            await reader.readuntil(b"\r\n\r\n")
            head = self._random.choice(_REFUSALS)
            page = "Content-Type: text/html\r\nConnection: close\r\n\r\n<html>sorry</html>"
            writer.write(f"HTTP/1.1 {head}\r\n{page}".encode())
            self.cuts += 1
            return
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.port)
        sending = asyncio.create_task(_copy(reader, upstream))
        left = self._random.randrange(self._least, self._most)
        try:
            while left and (data := await upstream_reader.read(left)):
                writer.write(data)
                await writer.drain()
                left -= len(data)
            if left == 0:
                self.cuts += 1
                if kind < 0.6:  # a reset, not an orderly end
                    writer.transport.abort()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            upstream.close()

    async def aclose(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def cutting(
    port: int, *, seed: int = 7, least: int = 0, most: int = 3_000
) -> AsyncIterator[CuttingProxy]:
    """Run a proxy in front of a port of this machine."""
    proxy = CuttingProxy(port, seed, least, most)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            await proxy.aclose()
