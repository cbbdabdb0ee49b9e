"""Runs replicas and workers in processes of their own, for tests that kill them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

AGENT = """
from tests.temporal.a2a.agents import card, write
from streamq.a2a.server import Agent

agent = Agent(card=card("filed"), task_queue={queue!r}, activity=write, url="http://{host}")
"""
"""A file that declares the agent of a task queue, at an address."""


def serving(cwd: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``streamq a2a serve``."""
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-m", "streamq.cli", "a2a", "serve", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running_worker(
    environment: Mapping[str, str], address: str, task_queue: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of the agents, and kill it at the end."""
    script = Path(__file__).with_name("worker_process.py")
    with subprocess.Popen(
        [sys.executable, str(script), address, task_queue], env=os.environ | environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()
