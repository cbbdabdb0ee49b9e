"""Starts two servers with replication behind one name, which moves in several ways."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from redis_streams import StartServer, run
from streamq import StreamId
from streamq.testing import FaultProxy
from streamq_redis._naming import KeySpace
from streamq_redis.embedded import EmbeddedRedis

_ARGUMENTS = ("--repl-diskless-sync-delay", "0")
_SLOW_TO_LOAD = (
    *("--key-load-delay", "20000"),  # microseconds for each key
    *("--loading-process-events-interval-bytes", "1024"),  # refuses meanwhile, and not afterwards
)
_FILLERS = 50


@dataclass
class Pair:
    """Two servers with replication, and the name that leads to the primary."""

    old: EmbeddedRedis
    new: EmbeddedRedis
    name: FaultProxy
    ready_at: float = 0.0

    @property
    def url(self) -> str:
        """Where the name leads."""
        return f"redis://{self.name.address}/0"

    async def promote(self) -> None:
        """Make the replica a primary, after it has all that the old one has."""
        await self.wait_for_replication()
        await command(self.new, "REPLICAOF", "NO", "ONE")

    async def wait_for_replication(self) -> None:
        async with redis.asyncio.Redis.from_url(self.old.url) as client:
            assert await client.wait(1, 10_000) == 1

    def move(self) -> None:
        """Let the name lead to the new primary."""
        self.name.redirect("127.0.0.1", self.new.port)
        self.ready_at = time.monotonic()


async def command(server: EmbeddedRedis, *words: object) -> object:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        return await run(client, *words)


@asynccontextmanager
async def becomes_a_replica(pair: Pair) -> AsyncIterator[None]:
    """The old node follows the new one, and keeps its connections as far as the server does."""
    await pair.promote()
    await command(pair.old, "REPLICAOF", "127.0.0.1", pair.new.port)
    pair.move()
    yield


@asynccontextmanager
async def changes_roles_by_command(pair: Pair) -> AsyncIterator[None]:
    """As an operator does it: the old node holds writes back until the new one has everything."""
    await pair.wait_for_replication()
    await command(pair.old, "FAILOVER", "TO", "127.0.0.1", pair.new.port)
    async with redis.asyncio.Redis.from_url(pair.new.url) as client, asyncio.timeout(20):
        while (await client.info("replication"))["role"] != "master":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    pair.move()
    yield


@asynccontextmanager
async def goes_silent(pair: Pair) -> AsyncIterator[None]:
    """The network of the old node swallows everything."""
    await pair.promote()
    os.kill(pair.old.pid, signal.SIGSTOP)
    try:
        pair.move()
        yield
    finally:
        os.kill(pair.old.pid, signal.SIGCONT)


@asynccontextmanager
async def dies(pair: Pair) -> AsyncIterator[None]:
    """The old node is gone, its connections are reset."""
    await pair.promote()
    pair.old.kill()
    pair.move()
    yield


@asynccontextmanager
async def stays_a_primary(pair: Pair) -> AsyncIterator[None]:
    """The old node answers as before: only the name tells."""
    await pair.promote()
    pair.move()
    async with redis.asyncio.Redis.from_url(pair.old.url) as client, asyncio.timeout(20):
        while any(each["name"] == "streamq" for each in await client.client_list()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        pair.ready_at = time.monotonic()
    yield


@asynccontextmanager
async def is_loading(pair: Pair) -> AsyncIterator[None]:
    """The new node has the name, and reads its data first."""
    await pair.promote()
    async with redis.asyncio.Redis.from_url(pair.new.url) as client:
        await client.mset({f"filler{i}": os.urandom(1_000) for i in range(_FILLERS)})
        await client.save()
    pair.old.kill()
    pair.new.kill()
    pair.new.launch()
    pair.move()
    loading = asyncio.create_task(until_loaded(pair))
    yield
    await loading


async def until_loaded(pair: Pair) -> None:
    refusals = 0
    once = Retry(NoBackoff(), 0)
    async with (
        redis.asyncio.Redis.from_url(pair.new.url, retry=once) as client,
        asyncio.timeout(30),
    ):
        while True:
            try:
                await client.ping()
                break
            except redis.exceptions.BusyLoadingError:
                refusals += 1
            except redis.exceptions.ConnectionError:
                await asyncio.sleep(0.005)
    pair.ready_at = time.monotonic()
    assert refusals, "the server was never seen loading"
    assert pair.new.is_ready()


async def records(server: EmbeddedRedis, stream: StreamId) -> int:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        return int(await client.xlen(KeySpace("streamq").key(stream)))


async def until(count: Callable[[], Awaitable[int]], least: int) -> None:
    async with asyncio.timeout(20):
        while await count() < least:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def replicated(start_server: StartServer) -> AsyncIterator[Pair]:
    """Start both servers, and wait until the one follows the other."""
    old = start_server(arguments=_ARGUMENTS)
    new = start_server(arguments=_ARGUMENTS + _SLOW_TO_LOAD)
    await command(new, "REPLICAOF", "127.0.0.1", old.port)
    async with redis.asyncio.Redis.from_url(new.url) as client, asyncio.timeout(20):
        while (await client.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with FaultProxy("127.0.0.1", old.port) as name:
        yield Pair(old, new, name)
