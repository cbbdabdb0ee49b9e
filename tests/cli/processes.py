"""Lists processes and what they started, and waits for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROCESSES = Path("/proc")


def processes() -> list[Path]:
    """Return where the kernel tells about every process."""
    if not PROCESSES.exists():
        pytest.skip("there is no /proc to see in what is left running")
    return list(PROCESSES.glob("[0-9]*"))


def descendants(pid: int) -> dict[int, str]:
    """Return the programs that a process has started, and those that these have, by process id."""
    found: dict[int, str] = {}
    for place in processes():
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                program = (place / "cmdline").read_bytes().split(b"\0")[0].split()[0].decode()
                found |= {int(place.name): Path(program).name, **descendants(int(place.name))}
        except (OSError, IndexError):
            continue  # gone meanwhile
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition for which there is no event, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
