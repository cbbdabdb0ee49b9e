"""The driver contract on a real Temporal server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib.workflow_streams import WorkflowStreamClient
from temporalio.service import RPCError

from streamq.devserver import TemporalDevServer
from streamq.driver import StreamId
from streamq.testing import DriverSuite, ServerHarness
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings
from streamq_workflow_streams.requests import _hosts


class WorkflowStreamsHarness(ServerHarness[TemporalDevServer, WorkflowStreamsSettings]):
    """A server that all checks share, behind a proxy of each check; its worker uses no proxy."""

    driver = WorkflowStreamsDriver
    answer_seconds = 15.0
    patience_seconds = 40.0  # enough to start two hundred workflows on a busy machine
    listing_page = 50
    read_page = 100  # a host answers a query with all that fits
    read_page_bytes = 512 * 1024  # a host keeps less than two MiB

    def settings_at(self, address: str) -> WorkflowStreamsSettings:
        """Return settings that lead to an address, with deadlines that suit a test."""
        return WorkflowStreamsSettings(
            address=address,
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=6.0,
            listing_delay_seconds=0.3,
        )

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Subscribe as any client of Workflow Streams does."""
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
        """Trim as an operator does."""
        client = await Client.connect(self.server.address)
        host = client.get_workflow_handle(f"streamq-host/{stream}")
        await host.execute_update("streamq_trim", keep)

    async def plant(self, tenant: str) -> None:
        """Start hosts of another program, which no worker runs, with memos that name no stream."""
        client = await Client.connect(self.server.address)
        values: list[object] = [["", ""], [tenant, 1], 7, [tenant], [tenant, "n" * 2_000]]
        memos: list[dict[str, object]] = [{}, *({"streamq_stream": each} for each in values)]
        for number, memo in enumerate(memos):
            await client.start_workflow(
                "streamq.Host",
                id=f"streamq-host/{tenant}/a{number}",
                task_queue="without-a-worker",
                memo=memo,
                execution_timeout=timedelta(minutes=1),
            )

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Accept connections and forward nothing: the worker must still reach the server."""
        self.proxy.hold()
        try:
            yield
        finally:
            self.proxy.heal()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[WorkflowStreamsSettings]:
        """Let a stream hold less than is sent."""
        yield self.settings().model_copy(update={"max_stream_bytes": 300_000})


class TestWorkflowStreams(DriverSuite):
    """Every capability that the driver declares."""

    subscribers = 20  # each needs a client of Temporal

    @pytest.fixture
    def harness(
        self, tmp_path: Path, server: TemporalDevServer, monkeypatch: pytest.MonkeyPatch
    ) -> WorkflowStreamsHarness:
        """Return a harness on the shared server, with small pages of listings.

        The driver's own pages have 500 workflows. Starting more than that takes a minute.
        """
        monkeypatch.setattr(_hosts, "_PAGE", WorkflowStreamsHarness.listing_page)
        return WorkflowStreamsHarness(tmp_path, server)
