"""Describes the machine, and warns if something else uses it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_BUSY = 0.3  # of a processor, before anything was started


def preamble() -> list[str]:
    """Return lines about the machine: they belong above every result."""
    cores, load = os.cpu_count() or 1, os.getloadavg()
    lines = [
        f"machine: {cores} x {_model()}, {_memory_gib():.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}",
        f"load: {load[0]:.2f}, {load[1]:.2f}, {load[2]:.2f} (1, 5, 15 minutes)",
    ]
    if load[0] > _BUSY * cores:
        lines.append(
            f"WARNING: something else uses this machine (load {load[0]:.1f} on {cores} cores): "
            "compare only rows of this run, and trust CPU more than latency"
        )
    return lines


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
