"""The harness for servers: each of its hooks does to a real process what its docstring says."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from streamq.devserver import DevServer
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import ServerHarness

_ECHO = """
import asyncio, sys

async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)

async def main():
    async with await asyncio.start_server(echo, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


class EchoServer(DevServer):
    """A server that answers every line with the same line."""

    backend = "echo"

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-c", _ECHO, str(self.port)]

    def answers(self, log: Path) -> bool:
        """Whether it accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class EchoHarness(ServerHarness[EchoServer, MemorySettings]):
    """A harness whose settings only carry the address."""

    driver = MemoryDriver

    def settings_at(self, address: str) -> MemorySettings:
        """Return settings that name an address."""
        return MemorySettings(store=address)

    async def call(self, timeout_seconds: float = 5.0) -> bytes:
        """Send a line over a new connection, and return the answer."""
        host, port = self.settings().store.split(":")
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"line\n")
                return await reader.readline()
            finally:
                writer.close()


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    """Return a server that all tests share."""
    with EchoServer(stop_seconds=0) as running:
        yield running


@pytest.fixture
async def harness(tmp_path: Path, server: EchoServer) -> AsyncIterator[EchoHarness]:
    """Return a started harness."""
    async with EchoHarness(tmp_path, server) as started:
        yield started


async def test_settings_lead_through_the_proxy(harness: EchoHarness) -> None:
    """Faults on the network are only felt by connections that pass the proxy."""
    assert harness.settings().store == harness.proxy.address != harness.server.address
    assert await harness.call() == b"line\n"


async def test_connections_are_cut_and_new_ones_work(harness: EchoHarness) -> None:
    """A check of a lost connection needs one that is really lost, and a server that goes on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", harness.proxy.port)
    writer.write(b"line\n")
    await reader.readline()
    await harness.break_connections()
    with pytest.raises(ConnectionResetError):
        await reader.readline()
    writer.close()
    assert await harness.call() == b"line\n"


async def test_slow_delays_an_answer_and_ends(harness: EchoHarness) -> None:
    """Half of the delay is on the way to the server, half on the way back."""
    async with harness.slow(0.3):
        started = time.monotonic()
        assert await harness.call() == b"line\n"
        assert time.monotonic() - started >= 0.3
    assert harness.proxy.delay_seconds == 0


async def test_hanging_server_answers_nothing_until_it_goes_on(harness: EchoHarness) -> None:
    """A frozen server still accepts connections, which is what clients find hard to notice."""
    async with harness.hang():
        with pytest.raises(TimeoutError):
            await harness.call(0.2)
    assert await harness.call() == b"line\n"


async def test_restarted_server_is_another_process_at_the_same_address(
    harness: EchoHarness,
) -> None:
    """Settings that were taken before a crash have to lead to the server after it."""
    before = harness.settings(), harness.server.pid
    await harness.restart()
    assert harness.settings() == before[0]
    assert harness.server.pid != before[1]
    assert await harness.call() == b"line\n"


async def test_nothing_listens_where_the_unreachable_settings_lead(harness: EchoHarness) -> None:
    """A refused connection is the most common mistake of a first configuration."""
    host, port = harness.unreachable().store.split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


async def test_every_hook_of_a_server_counts_as_supplied(harness: EchoHarness) -> None:
    """A hook that the kit takes for missing would have its checks skipped in silence."""
    supplied = ("break_connections", "slow", "restart", "hang", "unreachable")
    assert all(harness.supplies(hook) for hook in supplied)
    assert not harness.supplies("peek")
