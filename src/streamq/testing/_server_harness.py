"""A harness for backends that are servers: a process of ours, reached through a proxy.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import abc
import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

from streamq.devserver import DevServer, free_port
from streamq.driver import SettingsT

from ._fault_proxy import FaultProxy
from ._harness import BackendHarness

ServerT = TypeVar("ServerT", bound=DevServer)


class ServerHarness(BackendHarness, Generic[ServerT, SettingsT]):
    """A :class:`~streamq.devserver.DevServer` that checks share, behind a proxy of each check.

    Supplies the hooks that are the same for every server: ``break_connections``, ``slow``,
    ``restart``, ``hang`` and ``unreachable``. A driver adds :meth:`settings_at`, and the hooks that
    need to know the backend. Any hook can be replaced. A harness names its server and its settings:
    ``class AcmeHarness(ServerHarness[AcmeServer, AcmeSettings])``.

    Args:
        directory: An empty directory that belongs to this check.
        server: A running server. Its owner is the fixture that started it.
        port: Port that the proxy connects to; by default the port of the server.
        listen_port: Port that the proxy listens on, for servers that send clients to an address of
            their own; 0 takes a free one.
        half_closes: Whether the proxy passes on the end of what a client sends; ``False`` suits
            servers that speak HTTP.

    Attributes:
        server: The server.
        proxy: The proxy in front of it, open during the check.
    """

    def __init__(
        self,
        directory: Path,
        server: ServerT,
        *,
        port: int = 0,
        listen_port: int = 0,
        half_closes: bool = True,
    ) -> None:
        super().__init__(directory)
        self.server = server
        self.proxy = FaultProxy(
            "127.0.0.1", port or server.port, listen_port=listen_port, half_closes=half_closes
        )

    @abc.abstractmethod
    def settings_at(self, address: str) -> SettingsT:
        """Return settings that lead to an address, host and port, with deadlines of seconds."""

    def settings(self) -> SettingsT:
        """Return settings that lead to the server through the proxy."""
        return self.settings_at(self.proxy.address)

    async def start(self) -> None:
        """Open the proxy."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Close the proxy."""
        await self.proxy.aclose()

    async def break_connections(self) -> None:
        """Reset every connection at both ends."""
        self.proxy.cut()

    @asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        """Delay every request and every answer by half of this."""
        self.proxy.delay_seconds = seconds / 2
        try:
            yield
        finally:
            self.proxy.heal()

    async def restart(self) -> None:
        """Kill the server and start it again on its files."""
        self.server.kill()
        await asyncio.to_thread(self.server.start)

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Stop the process: the system accepts connections, and the server answers nothing."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    def unreachable(self) -> SettingsT:
        """Return settings for a port where nothing listens."""
        return self.settings_at(f"127.0.0.1:{free_port()}")
