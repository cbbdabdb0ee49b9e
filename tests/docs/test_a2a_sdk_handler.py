"""The example with the SDK's own handler: two processes, of which one is killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.types import (
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)

from streamq.devserver import TemporalDevServer

EXAMPLE = Path(__file__).parents[2] / "docs/examples" / "a2a_sdk_handler.py"


@pytest.fixture(scope="module")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer() as server:
        yield server.address


@contextmanager
def _replica(
    folder: Path, address: str, *options: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), *options],
        cwd=folder,
        env=os.environ | {"STREAMQ_TEMPORAL_ADDRESS": address},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.terminate()


@asynccontextmanager
async def _client(url: str, *, streaming: bool = True) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(timeout=60) as http:
        config = ClientConfig(httpx_client=http, streaming=streaming)
        yield await ClientFactory(config).create_from_url(url)


async def test_a_subscriber_gets_the_rest_of_a_task_whose_replica_was_killed(
    tmp_path: Path, temporal_address: str
) -> None:
    """The work goes on, another replica resumes the forwarding, and nothing comes twice."""
    with (
        _replica(tmp_path, temporal_address) as (process, first),
        _replica(tmp_path, temporal_address, "--worker") as (other, second),
    ):
        async with (
            asyncio.timeout(60),
            _client(first, streaming=False) as starter,
            _client(second) as client,
            httpx.AsyncClient(timeout=60) as http,
        ):
            message = Message(
                message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text="20")]
            )
            at_once = SendMessageConfiguration(return_immediately=True)
            request = SendMessageRequest(message=message, configuration=at_once)
            [answer] = [each async for each in starter.send_message(request)]
            text, resuming = "", None
            async for event in client.subscribe(SubscribeToTaskRequest(id=answer.task.id)):
                for artifact in event.task.artifacts:
                    text = "".join(part.text for part in artifact.parts)
                update = event.artifact_update
                new = "".join(part.text for part in update.artifact.parts)
                text = new if new and not update.append else text + new
                if "3 " in text and resuming is None:
                    process.kill()
                    process.wait()
                    address = f"{second}/resume/{answer.task.id}"
                    resuming = asyncio.create_task(http.post(address))
            assert resuming is not None
            assert (await resuming).json() == {"done": True}
            assert event.status_update.status.state == TaskState.TASK_STATE_COMPLETED
        other.terminate()
        assert other.wait(30) == 0
    assert text.split() == [str(number) for number in range(1, 21)]
