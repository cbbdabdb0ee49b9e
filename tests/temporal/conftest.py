"""A real Temporal server for the session, and a client, queue and worker for each test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from streamq import Settings, load_settings
from streamq.driver import ChunkQueue, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.temporal import StreamqPlugin, StreamRequest

_DYNAMIC_CONFIG = (
    # Without these every task hop takes 50 ms on the dev server, and short timers take a second.
    "history.transferProcessorMaxPollRPS=5000",
    'history.timerProcessorMaxTimeShift="10ms"',
    # So that a long history can be tested: the default is 4,096.
    "limit.historyCount.suggestContinueAsNew=150",
)

# Ends the server when its standard input ends, which it also does when pytest is killed.
_GUARDIAN = '"$@" & cat >/dev/null; kill -9 $!'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    binary = shutil.which("temporal") or str(Path(sys.executable).with_name("temporal"))
    port = free_port()
    options = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "never"]
    for value in _DYNAMIC_CONFIG:
        options += ["--dynamic-config-value", value]
    with subprocess.Popen(
        ["/bin/sh", "-c", _GUARDIAN, "sh", binary, "server", "start-dev", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert server.poll() is None, "the Temporal dev server did not start"
                assert time.monotonic() < deadline, "the Temporal dev server is not reachable"
                time.sleep(0.02)
            yield f"127.0.0.1:{port}"
        finally:
            assert server.stdin
            server.stdin.close()


@pytest.fixture
async def client(temporal_address: str) -> Client:
    return await Client.connect(temporal_address)


@pytest.fixture
def settings() -> Settings:
    return load_settings(backend="memory", retry_seconds=5, idle_seconds=20)


@pytest.fixture
async def queue() -> AsyncIterator[ChunkQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex)) as opened:
        yield opened


class Run(Protocol):
    def __call__(self, *activities: Callable[..., Any]) -> AbstractAsyncContextManager[Worker]: ...


@pytest.fixture
def task_queue() -> str:
    return f"tq-{uuid.uuid4().hex}"


@pytest.fixture
def run_worker(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> Run:
    """Run a worker with the plugin for the activities given."""

    def run(*activities: Callable[..., Any]) -> AbstractAsyncContextManager[Worker]:
        return Worker(
            client,
            task_queue=task_queue,
            activities=activities,
            plugins=[StreamqPlugin(queue, settings)],
        )

    return run


class Start(Protocol):
    async def __call__(
        self, activity: str, *args: object, **options: Any
    ) -> WorkflowHandle[Any, Any]: ...


@pytest.fixture
def start(client: Client, task_queue: str) -> Start:
    """Start the generic workflow for an activity."""

    async def started(activity: str, *args: object, **options: Any) -> WorkflowHandle[Any, Any]:
        return await client.start_workflow(
            "streamq.Stream",
            StreamRequest(activity, list(args), **options),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )

    return started
