"""Runs a producer or a reader in its own process, and measures what that process takes.

The process that started it writes one line when the run begins, with that moment. The role prints
one line when it is ready, and one with its result. Both are JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ._arrivals import Arrivals
from ._generator import Generator
from ._load import Load


@dataclass(frozen=True, slots=True)
class Task:
    """The order to play one role in one run.

    Attributes:
        role: ``producer`` or ``reader``.
        run: Names the run; different for each.
        load: The load.
        options: Of the contender; their meaning is the scenario's.
    """

    role: str
    run: str
    load: Load
    options: dict[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        """Return the text that :func:`play` takes."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Task:
        """Read what :meth:`encode` returned."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {"load": Load(**fields["load"])})


Produce = Callable[[Task, Generator], Awaitable[None]]
Read = Callable[[Task, Arrivals], Awaitable[None]]


class _Meter:
    """Measures the processor time of this process between two moments."""

    def __init__(self) -> None:
        self._began = self._took = 0.0

    def start(self) -> None:
        self._began = time.process_time()

    def stop(self) -> None:
        self._took = time.process_time() - self._began

    def result(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"cpu_seconds": self._took, "peak_mib": peak / 1024}


def play(text: str, produce: Produce, read: Read) -> int:
    """Play the role of a task; return the exit code of the process."""
    task = Task.decode(text)
    part = _produced(task, produce) if task.role == "producer" else _read(task, read)
    _say(asyncio.run(part))
    return 0


async def _produced(task: Task, produce: Produce) -> dict[str, Any]:
    meter = _Meter()

    async def begin() -> int:
        _say({"ready": True})
        begin_ns = await _begin()
        meter.start()
        return begin_ns

    generator = Generator(task.load, begin, meter.stop)
    await produce(task, generator)
    return meter.result() | {"delays": generator.delays.encode()}


async def _read(task: Task, read: Read) -> dict[str, Any]:
    meter = _Meter()

    def ready() -> None:
        meter.start()
        _say({"ready": True})

    arrivals = Arrivals(task.load, ready, meter.stop)
    await read(task, arrivals)
    used = meter.result()  # before the histogram takes memory
    begin_ns = await _begin()
    return used | {
        "faults": arrivals.faults(),
        "latencies": arrivals.latencies(begin_ns).encode(),
    }


async def _begin() -> int:
    """Return the moment at which the run begins, or has begun."""
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        raise SystemExit("the process that measures has ended")
    begin_ns: int = json.loads(line)["begin_ns"]
    return begin_ns


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)
