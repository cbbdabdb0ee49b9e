"""The worker as people start it, and what the backend says and does where there is none."""

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
    """Run a module of ours to its end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("STREAMQ_")}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={**ours, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_is_shown_and_nothing_started(tmp_path: Path) -> None:
    """Whoever asks what a command does must not find it doing that."""
    shown = run(tmp_path, "streamq_workflow_streams", "--help", **{ADDRESS: "127.0.0.1:1"})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Run a worker for the backend workflow_streams" in shown.stdout
    assert "--task-queue" in shown.stdout


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """The most common failure deserves better than a traceback."""
    for arguments, variables in (
        (("--address", "127.0.0.1:1"), {}),
        ((), {ADDRESS: "127.0.0.1:1"}),
    ):
        done = run(tmp_path, "streamq_workflow_streams", *arguments, **variables)
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line.startswith("error: cannot reach Temporal at 127.0.0.1:1 (Connection refused)")


def test_an_invalid_setting_is_one_line(tmp_path: Path) -> None:
    """The name of the setting is all that is needed."""
    variable = {"STREAMQ_WORKFLOW_STREAMS_TLS_CLIENT_KEY": "no-such-file"}
    done = run(tmp_path, "streamq_workflow_streams", **variable)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "tls_client_key" in line


def test_the_demo_needs_nothing_else(tmp_path: Path) -> None:
    """A backend that nobody can try with one command is one that nobody tries."""
    command = ["streamq.cli", "demo", "--exec", "echo it arrives", "--json"]
    done = run(tmp_path, *command, STREAMQ_BACKEND="workflow_streams")
    assert done.returncode == 0, done.stderr
    assert '"state": "END"' in done.stdout
    assert "it arrives" in done.stderr


async def test_a_queue_warns_when_nobody_keeps_streams(
    server: TemporalDevServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a program stands still for most of a minute before it tells what is missing."""
    options = QueueOptions(ttl=timedelta(minutes=5))

    async def warns(task_queue: str) -> bool:
        caplog.clear()
        settings = WorkflowStreamsSettings(address=server.address, task_queue=task_queue)
        with caplog.at_level(logging.WARNING, logger="streamq"):
            async with await WorkflowStreamsDriver.open(options, settings):
                pass
        return "python -m streamq_workflow_streams" in caplog.text

    assert await warns(f"nobody-{uuid.uuid4()}")
    async with asyncio.timeout(30):
        while await warns("streamq-host"):
            pass  # the worker's first poll is on its way; asking takes its time
