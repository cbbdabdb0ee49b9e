"""The contract of drivers, on a real Temporal server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib.workflow_streams import WorkflowStreamClient
from temporalio.service import RPCError

from streamq.devserver import TemporalDevServer, free_port
from streamq.driver import StreamId
from streamq.testing import BackendHarness, DriverSuite, FaultProxy
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings
from streamq_workflow_streams.requests import _hosts


def settings_for(address: str, **options: object) -> WorkflowStreamsSettings:
    """Return settings that lead to a server, with deadlines that suit a test."""
    given: dict[str, object] = {
        "connect_timeout_seconds": 2.0,
        "operation_timeout_seconds": 6.0,
        "listing_delay_seconds": 0.3,
        **options,
    }
    return WorkflowStreamsSettings(address=address, **given)  # type: ignore[arg-type]


class WorkflowStreamsHarness(BackendHarness):
    """A server of the suite's own, behind a proxy of the check's; its worker is not."""

    driver = WorkflowStreamsDriver
    answer_seconds = 15.0
    patience_seconds = 40.0  # to start two hundred workflows on a machine that does other things
    listing_page = 50

    def __init__(self, directory: Path, server: TemporalDevServer) -> None:
        super().__init__(directory)
        self.server = server
        self.proxy = FaultProxy("127.0.0.1", server.port)

    def settings(self) -> WorkflowStreamsSettings:
        """Return settings that lead to the server."""
        return settings_for(self.proxy.address)

    async def start(self) -> None:
        """Put a proxy in front of the server."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Take the proxy away."""
        await self.proxy.aclose()

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Subscribe as any client of Workflow Streams can."""
        client = await Client.connect(self.server.address)
        hosted = WorkflowStreamClient.create(client, f"streamq-host/{stream}")
        found: list[bytes] = []
        try:
            end = await hosted.get_offset()
            description = await client.get_workflow_handle(f"streamq-host/{stream}").describe()
        except RPCError:
            return found
        if description.close_time is not None:
            return found
        async for item in hosted.subscribe(result_type=RawValue):
            found.append(item.data.payload.data)
            if item.offset + 1 >= end:
                break
        return found

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Trim as an operator would."""
        client = await Client.connect(self.server.address)
        host = client.get_workflow_handle(f"streamq-host/{stream}")
        await host.execute_update("streamq_trim", keep)

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
        """Kill the server and start it again on its database."""
        self.server.kill()
        self.server.start()

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Accept connections, and pass nothing on."""
        self.proxy.hold()
        try:
            yield
        finally:
            self.proxy.heal()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[WorkflowStreamsSettings]:
        """Let a stream hold less than is sent."""
        yield settings_for(self.proxy.address, max_stream_bytes=300_000)

    def unreachable(self) -> WorkflowStreamsSettings:
        """Return settings for a port where nobody listens."""
        return settings_for(f"127.0.0.1:{free_port()}")


class TestWorkflowStreams(DriverSuite):
    """All that the driver declares."""

    @pytest.fixture
    def harness(
        self, tmp_path: Path, server: TemporalDevServer, monkeypatch: pytest.MonkeyPatch
    ) -> WorkflowStreamsHarness:
        """Return a harness on the suite's server, where listings come in small pages.

        A page of the driver's own choice is 500 workflows; to start more of them takes a minute.
        """
        monkeypatch.setattr(_hosts, "_PAGE", WorkflowStreamsHarness.listing_page)
        return WorkflowStreamsHarness(tmp_path, server)
