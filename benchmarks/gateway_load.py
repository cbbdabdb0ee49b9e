"""Measures how hostile clients of the gateway delay a well-behaved reader, and what they cost.

    python -m benchmarks.gateway_load                # each load, five rounds
    python -m benchmarks.gateway_load --load reread  # one of them

Each round runs ``streamq serve`` in two ways: under the load, and beside a process that burns as
much CPU as gateway and load together took. The readers and their producer are a process of their
own; each chunk carries the moment for which it was planned. What is measured begins when every
reader has received something; how long that takes is a line of its own. The promise is a p99 of at
most three times that beside the burning process, or of 25 ms.

Loads: ``idle`` opens 300 connections that send nothing, under a limit of 256 file descriptors;
``reread`` has 20 clients that read a stream of 100,000 chunks from its beginning, again and again;
``names`` opens and leaves 300 streams, and asks for names that do not exist, with and without wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._gateway import GatewayProcess, cpu_seconds, end_with
from benchmarks._stats import Row, percentile, show
from streamq import load_settings, open_queue, open_writer

LOADS = ("idle", "reread", "names")
_AT_MOST = 3.0
_ALLOWED_MS = 25.0
_STREAMS = 5
_PER_SECOND = 20
_LONG_CHUNKS = 100_000
_LEFT_STREAMS = 300
_DESCRIPTORS = {"idle": 256}
_MOST_OPENING_SECONDS = 30.0
_MOST_DEBT_SECONDS = 0.1


# -- the well-behaved readers, in a process of their own ------------------------------------------


async def read_well(port: int, seconds: float, tag: str) -> None:
    """Write to some streams, read each through the gateway, and print all delays in ms.

    Chunks that were planned before every reader had received something are not counted.
    """
    found = _Found()
    expected = 0
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(open_queue())
        names = [f"well-{tag}-{i}" for i in range(_STREAMS)]
        writers = [
            await stack.enter_async_context(open_writer(name, queue=queue)) for name in names
        ]
        readers = [asyncio.create_task(_read_one(port, name, found)) for name in names]
        planned = opened = time.time()
        while (planned := planned + 1 / _PER_SECOND) < found.begin + seconds:
            await asyncio.sleep(max(planned - time.time(), 0))
            if found.begin == math.inf and (
                len(found.open) == _STREAMS or planned > opened + _MOST_OPENING_SECONDS
            ):
                found.begin = planned
            for writer in writers:
                await writer.send_chunk(planned)
                expected += planned >= found.begin
        await asyncio.sleep(2)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    missing = expected - len(found.delays)
    opening = found.begin - opened
    print(json.dumps({"delays": found.delays, "missing": missing, "opening": opening}))


@dataclass
class _Found:
    """Delays and losses that the readers measured.

    Attributes:
        begin: Moment from which delays are counted.
        open: Streams of which something was received.
        delays: In ms.
    """

    begin: float = math.inf
    open: set[str] = field(default_factory=set)
    delays: list[float] = field(default_factory=list)


async def _read_one(port: int, name: str, found: _Found) -> None:
    """Read a stream as an EventSource does, which connects again after every end."""
    last = "0"
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_request(name, f"wait=60&after={last}"))
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    last = line[4:].strip().decode()
                elif line.startswith(b"data: "):
                    value = json.loads(line[6:]).get("value")
                    found.open.add(name)
                    if value is not None and value >= found.begin:
                        found.delays.append((time.time() - value) * 1_000)
        except OSError:
            pass
        await asyncio.sleep(0.1)


def _request(name: str, query: str) -> bytes:
    path = f"/events/{urllib.parse.quote(name, safe='')}?{query}"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


# -- the loads, in a process of their own ----------------------------------------------------------


async def be_hostile(load: str, port: int) -> None:
    """Load the gateway until this process is ended."""
    clients: dict[str, Callable[[int, int], Awaitable[None]]] = {
        "idle": _say_nothing,
        "reread": _read_again,
        "names": _open_and_leave,
    }
    count = {"idle": 300, "reread": 20, "names": 40}[load]
    await asyncio.gather(*(_for_ever(clients[load], port, i) for i in range(count)))


async def _for_ever(client: Callable[[int, int], Awaitable[None]], port: int, i: int) -> None:
    while True:
        with suppress(OSError):
            await client(port, i)
        await asyncio.sleep(0.01)


async def _say_nothing(port: int, i: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.read()
    writer.close()
    await asyncio.sleep(0.5)


async def _read_again(port: int, i: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request("long", "from=beginning"))
    while await reader.read(1_048_576):
        pass
    writer.close()


async def _open_and_leave(port: int, i: int) -> None:
    for n in range(i, _LEFT_STREAMS + i, 7):
        for name, query in (
            (f"left-{n % _LEFT_STREAMS}", ""),
            (f"nothing-{time.time_ns()}", ""),
            (f"nothing-{time.time_ns()}", "wait=30"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_request(name, query))
            await reader.readline()
            writer.close()


# -- what is measured ------------------------------------------------------------------------------


def burn(share: float, beside: int) -> None:
    """Burn CPU until this process is ended: with another process together, a share of one CPU.

    CPU time is counted, not elapsed time: on a busy machine a process gets less than it asks for.
    """
    begun, base = time.monotonic(), time.process_time() + cpu_seconds(beside)
    while True:
        taken = time.process_time() + cpu_seconds(beside) - base
        debt = share * (time.monotonic() - begun) - taken
        if debt > _MOST_DEBT_SECONDS:  # what was missed for long is not made up for in one go
            begun += (debt - _MOST_DEBT_SECONDS) / share
        until = time.process_time() + debt
        while time.process_time() < until:
            pass
        time.sleep(0.01 * max(1 - share, 0.1))


def role(*arguments: object, output: int | None = None) -> subprocess.Popen[bytes]:
    """Start this module in another role."""
    command = [sys.executable, "-m", "benchmarks.gateway_load", "--role", *map(str, arguments)]
    end_with_us = partial(end_with, os.getpid())
    return subprocess.Popen(command, stdout=output, preexec_fn=end_with_us)  # noqa: PLW1509


def measure(
    folder: Path, load: str, seconds: float, tag: str, share: float | None
) -> dict[str, Any]:
    """Measure the readers once: under a load, or beside a process that burns ``share`` of a CPU."""
    gateway = GatewayProcess(folder / f"{tag}.log", _DESCRIPTORS.get(load))
    others: list[subprocess.Popen[bytes]] = []
    try:
        if share is None:
            others.append(role("hostile", load, gateway.port))
        else:
            while share > 1.0:
                others.append(role("burn", 1.0, os.getpid()))  # this process only waits
                share -= 1.0
            others.append(role("burn", share, gateway.process.pid))
        time.sleep(1)
        pids = [gateway.process.pid, *(each.pid for each in others)]
        before, started = sum(map(cpu_seconds, pids)), time.monotonic()
        reader = role("reader", gateway.port, seconds, tag, output=subprocess.PIPE)
        found: dict[str, Any] = json.loads(reader.communicate(timeout=seconds + 120)[0])
        cpu = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - started)
        delays = found["delays"] + [60_000.0] * found["missing"]
        return {
            "p99": percentile(delays, 0.99),
            "missing": found["missing"],
            "opening": found["opening"],
            "cpu": cpu,
            "peak_mib": gateway.peak_mib(),
            "log_kib": gateway.log_kib(),
        }
    finally:
        for each in others:
            each.kill()
            each.wait()
        gateway.close()


async def fill() -> None:
    """Write the streams that the loads read."""
    async with open_queue() as queue:
        async with open_writer("long", queue=queue) as writer:
            for i in range(_LONG_CHUNKS):
                await writer.send_chunk(f"token {i} and some more text of one line")
        for i in range(_LEFT_STREAMS):
            async with open_writer(f"left-{i}", queue=queue) as writer:
                for _ in range(200):
                    await writer.send_chunk("x" * 2_000)


def run(load: str, rounds: int, seconds: float, folder: Path) -> list[Row]:
    """Measure one load; rounds of both alternate."""
    calm, loaded = [], []
    for i in range(rounds):
        under = measure(folder, load, seconds, f"{load}-{i}-load", None)
        beside = measure(folder, load, seconds, f"{load}-{i}-calm", under["cpu"])
        loaded.append(under)
        calm.append(beside)
    bare = statistics.median(each["p99"] for each in calm)
    ours = statistics.median(each["p99"] for each in loaded)
    ratios = [u["p99"] / c["p99"] for u, c in zip(loaded, calm, strict=True)]
    promised = f"<= {_AT_MOST:g} x or {_ALLOWED_MS:g} ms"
    met = ours <= max(_AT_MOST * bare, _ALLOWED_MS)
    rows = [Row(f"{load}: p99, ms", bare, ours, (min(ratios), max(ratios)), promised, met)]
    for what, key in (
        ("events missing", "missing"),
        ("until all readers read, s", "opening"),
        ("CPU of gateway and load, cores", "cpu"),
        ("peak memory of the gateway, MiB", "peak_mib"),
        ("log, KiB", "log_kib"),
    ):
        values = [each[key] for each in loaded]
        base = statistics.median(each[key] for each in calm)
        found = statistics.median(values)
        rows.append(Row(f"{load}: {what}", base or None, found, (min(values), max(values))))
    return rows


def main() -> int:
    """Run the benchmark; exit code 1 if a promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--load", choices=LOADS, action="append", help="by default all of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    match args.role:
        case ["reader", port, seconds, tag]:
            asyncio.run(read_well(int(port), float(seconds), tag))
            return 0
        case ["hostile", load, port]:
            asyncio.run(be_hostile(load, int(port)))
            return 0
        case ["burn", share, pid]:
            burn(float(share), int(pid))
            return 0
    # A time-out ends it with SIGTERM; without this its hostile clients would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("STREAMQ_BACKEND", "sqlite")
        os.environ.setdefault("STREAMQ_SQLITE_PATH", str(folder / "streams.db"))
        asyncio.run(fill())
        for load in args.load or LOADS:
            rows += run(load, args.rounds, args.seconds, folder)
    backend = load_settings().backend
    title = (
        f"Hostile clients of the gateway on {backend}; bare is beside a process that burns the "
        f"same CPU; {args.rounds} rounds of {args.seconds:g} s"
    )
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
