"""Starts the processes of a contender for one run, and judges the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._histograms import Latencies
from ._load import Load
from ._roles import Task

_READY_SECONDS = 180.0
_SLACK_SECONDS = 120.0
_BEGIN_SECONDS = 0.5  # from the order to begin to the first planned moment

Probe = Callable[[], Awaitable[Mapping[str, float]]]
"""Asks for further figures in the middle of a run, such as connections."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to carry a load.

    Attributes:
        name: Its name in the table.
        module: Module that plays its roles: ``python -m MODULE --task JSON``.
        options: Passed to the roles.
        python: The interpreter, which may be that of another checkout.
        environment: Variables for both processes.
    """

    name: str
    module: str
    options: dict[str, str] = field(default_factory=dict)
    python: Path = field(default_factory=lambda: Path(sys.executable))
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run; with a fault it is none.

    Attributes:
        figures: By name.
        faults: What was wrong.
        latencies: From the planned moment to arrival.
    """

    figures: dict[str, float]
    faults: list[str]
    latencies: Latencies


@dataclass(frozen=True, slots=True)
class Stage:
    """The surroundings of all runs.

    Attributes:
        probe: Asks for further figures in the middle of a run.
    """

    probe: Probe | None = None

    async def run(self, contender: Contender, load: Load) -> Run:
        """Run a contender once."""
        name = uuid.uuid4().hex[:12]
        try:
            async with (
                _role("reader", contender, name, load) as reader,
                _role("producer", contender, name, load) as producer,
            ):
                return await self._measure(reader, producer, load)
        except (TimeoutError, _RoleError) as exc:
            return Run({}, [str(exc) or "it took too long"], Latencies())

    async def _measure(self, reader: Process, producer: Process, load: Load) -> Run:
        async with asyncio.timeout(_READY_SECONDS):
            await _answer(reader)
            await _answer(producer)
        begin_ns = time.monotonic_ns() + int(_BEGIN_SECONDS * 1e9)
        for process in (producer, reader):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"begin_ns": begin_ns}).encode() + b"\n")
        figures: dict[str, float] = {}
        async with asyncio.timeout(3 * load.seconds + _SLACK_SECONDS):
            if self.probe is not None:
                await asyncio.sleep(_BEGIN_SECONDS + load.seconds / 2)
                figures |= await self.probe()
            sent = await _answer(producer)
            read = await _answer(reader)
        latencies, delays = Latencies(read["latencies"]), Latencies(sent["delays"])
        cpu_us = 1e6 / load.total
        figures |= {
            "p50": latencies.percentile_ms(50),
            "p99": latencies.percentile_ms(99),
            "max": latencies.percentile_ms(100),
            "emit_p99": delays.percentile_ms(99),
            "cpu": (sent["cpu_seconds"] + read["cpu_seconds"]) * cpu_us,
            "cpu_producer": sent["cpu_seconds"] * cpu_us,
            "cpu_reader": read["cpu_seconds"] * cpu_us,
            "peak_producer": sent["peak_mib"],
            "peak_reader": read["peak_mib"],
        }
        return Run(figures, read["faults"], latencies)


class _RoleError(Exception):
    """A process of a contender has failed."""


@asynccontextmanager
async def _role(role: str, contender: Contender, run: str, load: Load) -> AsyncIterator[Process]:
    task = Task(role, run, load, contender.options)
    process = await asyncio.create_subprocess_exec(
        os.fspath(contender.python),
        "-m",
        contender.module,
        "--task",
        task.encode(),
        stdin=PIPE,
        stdout=PIPE,
        env=dict(os.environ) | contender.environment,
        limit=2**24,  # a histogram is one line
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _answer(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise _RoleError(f"a process ended with {await process.wait()} before it had answered")
    answer: dict[str, Any] = json.loads(line)
    return answer
