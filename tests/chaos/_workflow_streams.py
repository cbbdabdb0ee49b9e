"""Runs a Temporal server of its own for the streams, and two workers that host them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamq.devserver import TemporalDevServer, free_port
from streamq.testing import FaultProxy
from streamq_workflow_streams import WorkflowStreamsSettings
from streamq_workflow_streams.embedded import EmbeddedHosts

from ._backend import Backend
from ._processes import ServerVictim
from ._schedule import BACKEND_LINKS, SERVER, FaultKind, Source

HOSTS = ("host-1", "host-2")
HOST_LINK = "link-hosts"


class HostedStreams(Backend):
    """A Temporal server that keeps its workflows in a file, and the workers of the hosts."""

    name = "workflow_streams"
    links = (*BACKEND_LINKS, HOST_LINK)
    # A record has 256 KiB at most and all of a stream 1.8 MB, also those of attempts that died.
    largest_chunk_bytes = 20_000
    streams_per_second = 0.5
    sources = (
        Source(4, FaultKind.KILL, (SERVER,), 0.05, 1.0),
        Source(3, FaultKind.PAUSE, (SERVER,), 0.2, 3.0),
        Source(8, FaultKind.KILL, HOSTS, 0.1, 1.5),
        Source(5, FaultKind.PAUSE, HOSTS, 0.2, 3.0),
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = TemporalDevServer(port=free_port(), database=directory / "streams.db")
        self._host_port = free_port()
        settings = WorkflowStreamsSettings()
        self._hosts = [EmbeddedHosts(f"127.0.0.1:{self._host_port}", settings) for _ in HOSTS]
        self.victims = {SERVER: ServerVictim(SERVER, self._server)} | {
            name: ServerVictim(name, host) for name, host in zip(HOSTS, self._hosts, strict=True)
        }

    @property
    def port(self) -> int:  # type: ignore[override]
        """Port of the server."""
        return self._server.port

    def listen_port_of(self, link: str) -> int:
        """Return the port of the link that the hosts connect to."""
        return self._host_port if link == HOST_LINK else 0

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches the server at a link's address."""
        return {
            "STREAMQ_WORKFLOW_STREAMS_ADDRESS": address,
            # Short, so that half-open connections are detected many times within a run.
            "STREAMQ_WORKFLOW_STREAMS_CONNECT_TIMEOUT_SECONDS": "2",
            "STREAMQ_WORKFLOW_STREAMS_OPERATION_TIMEOUT_SECONDS": "3",
        }

    async def start(self) -> None:
        """Start the server, and the hosts, which connect to their link until that is there."""
        await asyncio.to_thread(self._server.start)
        async with FaultProxy("127.0.0.1", self.port, listen_port=self._host_port):
            for host in self._hosts:
                await asyncio.to_thread(host.start)

    def stop(self) -> None:
        """Stop everything."""
        for host in self._hosts:
            host.stop()
        self._server.stop()
