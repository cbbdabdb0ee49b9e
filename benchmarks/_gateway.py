"""Runs the gateway in a process of its own, and reads what that takes of the machine."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class GatewayProcess:
    """``streamq serve`` in a process of its own.

    Args:
        log: File of what it prints and logs.
        descriptors: Its limit of file descriptors.
        settings: Variables, besides those of this process.
    """

    def __init__(
        self, log: Path, descriptors: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._file = log.open("wb")
        parent = os.getpid()

        def limit() -> None:
            end_with(parent)
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("streamq")), "serve", "--port", "0"],
            stdout=self._file,
            stderr=self._file,
            env=dict(os.environ) | dict(settings or {}),
            preexec_fn=limit,  # noqa: PLW1509 - no threads here
        )
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for word in self._log.read_text(errors="replace").split():
                if word.startswith("http://"):
                    return int(word.rpartition(":")[2])
            time.sleep(0.05)
        raise SystemExit(f"streamq serve does not start:\n{self._log.read_text()}")

    def peak_mib(self) -> float:
        """Return the largest resident memory so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1_024
        return 0.0

    def log_kib(self) -> float:
        """Return the size of everything it printed."""
        return self._log.stat().st_size / 1_024

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self._file.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that the threads of a process have taken, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9


def end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, in whichever way."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
