"""Runs workers in other processes, over backends that several processes see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamq import Settings
from streamq.driver import ChunkQueue

_SCRIPT = Path(__file__).with_name("worker_process.py")


@dataclass
class Shared:
    """A backend that several processes see."""

    queue: ChunkQueue
    settings: Settings
    environment: dict[str, str]


@contextmanager
def worker(
    shared: Shared, address: str, task_queue: str, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | shared.environment
    command = [sys.executable, str(_SCRIPT), address, task_queue, *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
