"""The contract of drivers, on Valkey and on genuine Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from streamq import Chunk, StreamNotFoundError, TrimmedError, open_reader, open_writer
from streamq.devserver import free_port
from streamq.driver import StreamId
from streamq.testing import BackendHarness, DriverSuite, FaultProxy, new_stream, queue_factory
from streamq_redis import RedisDriver, RedisSettings
from streamq_redis._keys import KeySpace
from streamq_redis.embedded import EmbeddedRedis


class RedisHarness(BackendHarness):
    """A server of the suite's own, which all its checks share, behind a proxy of the check's."""

    driver = RedisDriver
    answer_seconds = 6.0

    def __init__(self, directory: Path, server: EmbeddedRedis, label: str) -> None:
        super().__init__(directory)
        self.server = server
        self.proxy = FaultProxy("127.0.0.1", server.port)
        self._label = label

    @property
    def label(self) -> str:
        """Say which server it is."""
        return self._label

    def settings(self) -> RedisSettings:
        """Return settings that lead to the server, with deadlines that suit a test."""
        return self._settings_for(f"redis://{self.proxy.address}/0")

    async def start(self) -> None:
        """Put a proxy in front of the server."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Take the proxy away."""
        await self.proxy.aclose()

    def _settings_for(self, url: str) -> RedisSettings:
        return RedisSettings(
            url=url,  # type: ignore[arg-type]  # pydantic makes the secret
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=2.0,
            block_seconds=1.0,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[redis.asyncio.Redis]:
        """A plain client, past the driver."""
        async with redis.asyncio.Redis.from_url(self.server.url) as client:
            yield client

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the only field of every entry."""
        async with self.client() as client:
            found: Any = await client.xrange(KeySpace("streamq").key(stream))
        return [data for _, fields in found for data in fields.values()]

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Trim as an operator would."""
        async with self.client() as client:
            await client.xtrim(KeySpace("streamq").key(stream), maxlen=keep, approximate=False)

    async def break_connections(self) -> None:
        """Reset them at both ends."""
        self.proxy.cut()

    @asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        """Keep every answer back, and every request."""
        self.proxy.delay_seconds = seconds / 2
        try:
            yield
        finally:
            self.proxy.heal()

    async def restart(self) -> None:
        """Kill the server and start it again on its append-only file."""
        self.server.kill()
        self.server.start()

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Stop the process: the kernel accepts connections, and nobody answers."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    @asynccontextmanager
    async def full(self) -> AsyncIterator[RedisSettings]:
        """Give the server less memory than it uses."""
        async with self.client() as client:
            await client.config_set("maxmemory", "1mb")
            try:
                yield self.settings()
            finally:
                await client.config_set("maxmemory", "0")

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[RedisSettings]:
        """Log in as somebody who may not write."""
        async with self.client() as client:
            await client.acl_setuser(
                "reader",
                enabled=True,
                reset=True,
                passwords=["+pw"],
                keys=["*"],
                channels=["*"],
                categories=["+@all", "-@write"],
            )
        yield self._settings_for(f"redis://reader:pw@{self.server.address}/0")

    def wrong_credentials(self) -> tuple[RedisSettings, str]:
        """Log in with a password that nobody has."""
        secret = "s3cr3t-of-nobody"
        return self._settings_for(f"redis://nobody:{secret}@{self.server.address}/0"), secret

    def unreachable(self) -> RedisSettings:
        """Return settings for a port where nobody listens."""
        return self._settings_for(f"redis://127.0.0.1:{free_port()}/0")


@pytest.fixture(scope="module")
def suite_server(binary: Path) -> Iterator[EmbeddedRedis]:
    """Start a server that survives being killed, so that the queue declares ``durable``."""
    arguments = ("--appendfsync", "always")
    with EmbeddedRedis(binary=binary, appendonly=True, arguments=arguments) as running:
        yield running


class TestRedis(DriverSuite):
    """All that the driver declares."""

    @pytest.fixture
    def harness(self, tmp_path: Path, binary: Path, suite_server: EmbeddedRedis) -> RedisHarness:
        """Return a harness on the suite's server."""
        return RedisHarness(tmp_path, suite_server, f"redis ({binary.stem})")


async def test_stream_that_a_server_without_persistence_has_lost_is_told(
    binary: Path, tmp_path: Path
) -> None:
    """With persistence off a crash loses the stream: that is an error, never a shorter text."""
    with EmbeddedRedis(binary=binary) as server:
        async with (
            RedisHarness(tmp_path, server, "volatile") as harness,
            queue_factory(RedisDriver, harness.settings()) as open_queue,
        ):
            queue, stream = await open_queue(), new_stream()
            assert not queue.capabilities.durable
            async with open_writer(stream, queue=queue) as writer:
                await writer.send_chunk("a")
                await writer.flush()
                async with open_reader(stream, queue=queue, idle_seconds=10) as reader:
                    assert isinstance(await anext(reader), Chunk)
                    await harness.restart()
                    with pytest.raises(StreamNotFoundError, match="has vanished after event 1"):
                        await anext(reader)
            # The writer went on after the crash, and sealed.
            async with open_reader(stream, queue=queue, idle_seconds=10) as reader:
                with pytest.raises(TrimmedError):
                    await anext(reader)
