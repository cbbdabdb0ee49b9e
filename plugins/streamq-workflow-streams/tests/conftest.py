"""A real Temporal server and a worker of its own process, started and stopped here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Self

import pytest

from streamq.devserver import FAST, TemporalDevServer
from streamq_workflow_streams import WorkflowStreamsSettings

_DYNAMIC_CONFIG = {
    **FAST,
    # So that a stream crosses from run to run within a test: the default is 4,096.
    "limit.historyCount.suggestContinueAsNew": "200",
}


class HostProcess:
    """``python -m streamq_workflow_streams`` on a task queue of a server."""

    def __init__(self, address: str, task_queue: str) -> None:
        self._environment = {
            **os.environ,
            "STREAMQ_WORKFLOW_STREAMS_ADDRESS": address,
            "STREAMQ_WORKFLOW_STREAMS_TASK_QUEUE": task_queue,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamq_workflow_streams"],
            env=self._environment,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b"hosting streams" in line:
                return self
        raise AssertionError(f"the worker ended with {self._process.wait()}")

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=30)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDevServer]:
    """Return a server that keeps its workflows in a file, with a worker for hosts."""
    database = tmp_path_factory.mktemp("temporal") / "temporal.db"
    with (
        TemporalDevServer(database=database, dynamic_config=_DYNAMIC_CONFIG) as running,
        HostProcess(running.address, WorkflowStreamsSettings().task_queue),
    ):
        yield running


@pytest.fixture(scope="session")
def start_host() -> Callable[[str, str], AbstractContextManager[object]]:
    """Return what runs a worker for hosts, by the server's address and a task queue."""
    return HostProcess
