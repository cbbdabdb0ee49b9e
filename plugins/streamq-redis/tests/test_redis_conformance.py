"""The contract of drivers, on Valkey and on genuine Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import redis.asyncio

from streamq import Chunk, StreamNotFoundError, TrimmedError, open_reader, open_writer
from streamq.driver import StreamId
from streamq.testing import DriverSuite, ServerHarness, new_stream, queue_factory
from streamq_redis import RedisDriver, RedisSettings
from streamq_redis._naming import KeySpace
from streamq_redis.embedded import EmbeddedRedis


class RedisHarness(ServerHarness[EmbeddedRedis, RedisSettings]):
    """A server that all checks share, behind a proxy of each check."""

    driver = RedisDriver
    answer_seconds = 6.0
    listing: Literal["scan", "index"] = "scan"

    def __init__(self, directory: Path, server: EmbeddedRedis, label: str) -> None:
        super().__init__(directory, server)
        self._label = label

    @property
    def label(self) -> str:
        """Name the server program."""
        return self._label

    def settings_at(self, address: str, login: str = "") -> RedisSettings:
        """Return settings that lead to an address, with deadlines that suit a test."""
        return RedisSettings(
            url=f"redis://{login}{address}/0",  # type: ignore[arg-type]  # pydantic makes the secret
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=2.0,
            block_seconds=1.5,
            listing=self.listing,
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

    async def plant(self, tenant: str) -> None:
        """Add streams whose keys are those of no stream, and a key of another type."""
        start = f"streamq:{{{tenant}/".encode()
        names = (b"", b"l\xff", b"x\xed\xa0\x80", b"a%41", b"y}x", b"a" + b"n" * 2_000)
        async with self.client() as client:
            for name in names:
                await client.xadd(start + name + b"}", {"f": "x"})
            await client.set(start + b"a}", "text")

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
        """Log in as a user who may not write."""
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
        yield self.settings_at(self.server.address, "reader:pw@")

    def wrong_credentials(self) -> tuple[RedisSettings, str]:
        """Log in with a wrong password."""
        secret = "s3cr3t-of-nobody"
        return self.settings_at(self.server.address, f"nobody:{secret}@"), secret


class RedisIndexHarness(RedisHarness):
    """The same, with an index of the names of each tenant."""

    listing = "index"

    @property
    def label(self) -> str:
        """Name the server program, and what is special."""
        return f"{self._label}, index"

    async def plant(self, tenant: str) -> None:
        """Name those keys in the index as well, and streams that do not exist."""
        await super().plant(tenant)
        names = (b"", b"l\xff", b"x\xed\xa0\x80", b"a%41", b"y}x", b"a", b"m" * 2_000, b"gone")
        async with self.client() as client:
            index = KeySpace("streamq").index(tenant)
            await client.zadd(index, dict.fromkeys(names, 2e9))


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


@pytest.mark.full
class TestRedisIndex(DriverSuite):
    """The same where each tenant has an index: the setting changes no promise."""

    @pytest.fixture
    def harness(
        self, tmp_path: Path, binary: Path, suite_server: EmbeddedRedis
    ) -> RedisIndexHarness:
        """Return a harness on the suite's server."""
        return RedisIndexHarness(tmp_path, suite_server, f"redis ({binary.stem})")


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
