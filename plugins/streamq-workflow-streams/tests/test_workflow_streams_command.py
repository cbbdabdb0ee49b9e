"""The command that runs a worker for hosts, and the warning of a driver without a worker."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from streamq.devserver import TemporalDevServer
from streamq.driver import QueueOptions
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings

ADDRESS = "STREAMQ_WORKFLOW_STREAMS_ADDRESS"


def run(directory: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of streamq, and return its result."""
    names = [name for name in os.environ if not name.startswith("STREAMQ_")]
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={**{name: os.environ[name] for name in names}, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_starts_nothing(tmp_path: Path) -> None:
    """Asking for help must not run the command."""
    shown = run(tmp_path, "streamq_workflow_streams", "--help", **{ADDRESS: "127.0.0.1:1"})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Run a worker for the backend workflow_streams" in shown.stdout
    assert "--task-queue" in shown.stdout


def test_unreachable_server_is_reported_in_one_line(tmp_path: Path) -> None:
    """A traceback would hide the most common mistake, a wrong address."""
    for arguments, variables in (
        (("--address", "127.0.0.1:1"), {}),
        ((), {ADDRESS: "127.0.0.1:1"}),
    ):
        done = run(tmp_path, "streamq_workflow_streams", *arguments, **variables)
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        reason = "error: cannot connect to Temporal at 127.0.0.1:1: Connection refused"
        assert line.startswith(reason)


def test_invalid_setting_is_reported_in_one_line(tmp_path: Path) -> None:
    """The name of the setting suffices to correct it; its value may be secret."""
    variable = {"STREAMQ_WORKFLOW_STREAMS_TLS_CLIENT_KEY": "no-such-file"}
    done = run(tmp_path, "streamq_workflow_streams", **variable)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "STREAMQ_WORKFLOW_STREAMS_TLS_CLIENT_KEY" in line


def test_demo_needs_no_other_server(tmp_path: Path) -> None:
    """One command must suffice to try the backend."""
    command = ["streamq.cli", "demo", "--exec", "echo it arrives", "--json"]
    # Variables that name no server do not lead to one, and the server has one namespace only.
    variables = {"TEMPORAL_NAMESPACE": "mine", "STREAMQ_TEMPORAL_NAMESPACE": "other"}
    done = run(tmp_path, *command, STREAMQ_BACKEND="workflow_streams", **variables)
    assert done.returncode == 0, done.stderr
    assert '"state": "END"' in done.stdout
    assert "it arrives" in done.stderr


async def test_queue_without_a_worker_logs_a_warning(
    server: TemporalDevServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a program waits for most of a minute before it reports what is missing."""
    options = QueueOptions(ttl=timedelta(minutes=5))

    async def warns(task_queue: str) -> bool:
        caplog.clear()
        settings = WorkflowStreamsSettings(address=server.address, task_queue=task_queue)
        with caplog.at_level(logging.WARNING, logger="streamq"):
            async with await WorkflowStreamsDriver.open(options, settings):
                pass
        return "python -m streamq_workflow_streams" in caplog.text

    assert await warns(f"no-worker-{uuid.uuid4()}")
    async with asyncio.timeout(90):
        while await warns("streamq-host"):
            pass  # until Temporal has seen the worker's first poll
