"""Helpers of the Redis driver's tests: reading in the background, users, and a proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import redis.asyncio

from streamq import StreamId
from streamq.driver import ChunkQueue, Stored
from streamq_redis.embedded import EmbeddedRedis

OpenAt: TypeAlias = Callable[..., Awaitable[ChunkQueue]]
"""Opens a queue at a URL, with any settings."""

StartServer: TypeAlias = Callable[..., EmbeddedRedis]
"""Starts a server for one test, with any options."""

Bare: TypeAlias = redis.asyncio.Redis
"""A plain client, to look at the server past the driver."""

ACL_RULES = ["~streamq:*", "+ping", "+xadd", "+xrange", "+xrevrange", "+xread", "+xlen"]
ACL_RULES += ["+pttl", "+pexpire", "+unlink", "+multi", "+exec", "+scan"]
"""The permissions that the README of this plugin asks operators to grant."""

ACL_OPTIONAL = ["+client|unblock", "+info", "+memory|usage", "+xinfo|stream", "+config|get"]
"""The permissions that it recommends."""


def read_soon(
    queue: ChunkQueue, stream: StreamId, after: str = "", wait: float = 30
) -> asyncio.Task[list[Stored]]:
    """Read in the background."""

    async def read() -> list[Stored]:
        return list(
            await queue.read(stream, after, max_records=100, max_bytes=10**6, max_wait=wait)
        )

    return asyncio.ensure_future(read())


async def set_user(bare: Bare, name: str, rules: list[str]) -> None:
    """Create a user with the password ``pass``."""
    await run(bare, "ACL", "SETUSER", name, "reset", "on", ">pass", *rules)


async def run(bare: Bare, *words: object) -> object:
    """Run a command for which the client has no method."""
    command: Callable[..., Awaitable[object]] = bare.execute_command
    return await command(*words)


class MuteProxy:
    """Forwards TCP; on demand drops answers, or keeps connections open that the server has closed.

    It can also hold back what has a word in it. The proxy of the kit has no TLS, and passes on the
    end of a connection.
    """

    def __init__(self, target: int, context: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._context = context
        self._writers: list[asyncio.StreamWriter] = []
        self.is_mute = False
        self.keeps_open = False
        self.port = 0
        self._withheld = b""
        self._released = asyncio.Event()
        self.is_holding = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MuteProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0.01)

    def withhold(self, word: bytes) -> None:
        """Hold back requests with a word in them, until :meth:`release`."""
        self._withheld = word
        self._released.clear()
        self.is_holding.clear()

    def release(self) -> None:
        self._withheld = b""
        self._released.set()

    def redirect(self, target: int) -> None:
        self._target = target

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, onward]
        await asyncio.gather(self._copy(reader, onward, False), self._copy(there, writer, True))

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                if self._withheld and self._withheld in data:
                    self.is_holding.set()
                    await self._released.wait()
                if not (is_answer and self.is_mute):
                    target.write(data)
        except OSError:
            pass
        finally:
            if not self.keeps_open:
                target.close()
