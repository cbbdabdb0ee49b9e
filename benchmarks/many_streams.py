"""Measures streams on one connection of the gateway beside a connection for each of them.

    python -m benchmarks.many_streams                 # 200 streams, five rounds, about four minutes
    python -m benchmarks.many_streams --way get       # one of both ways

In each round ``streamq serve`` delivers all streams once by a connection for each (bare), and once
by a single connection, in turn first: with ``POST``, and with ``GET``, whose ids have the places of
all streams. The producer and the reader are processes of their own. Each chunk carries the moment
for which it was planned, so that a delay of the producer counts as well, and a number: a chunk that
is missing, or comes twice or out of order, ends the benchmark. The promise is a p99 of at most
twice that of a connection for each stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import quote

from benchmarks._gateway import GatewayProcess, cpu_seconds, end_with
from benchmarks._stats import Row, percentile, show
from streamq import StreamWriter, load_settings, open_queue, open_writer

WAYS = ("post", "get")
_SINGLE = "single"
_AT_MOST = 2.0
_BEGIN_SECONDS = 2.0
_IGNORED_SECONDS = 1.0
_TEXT = "a token or two"


def names_of(tag: str, streams: int) -> list[str]:
    """Return the streams of one measurement, named as those of workflows are."""
    return [f"chat-{tag}-{i}/01a20340-7d57-7aec/default" for i in range(streams)]


# -- the producer, in a process of its own ---------------------------------------------------------


async def produce(tag: str, streams: int, per_second: float, seconds: float) -> None:
    """Write to all streams at a fixed pace, each a little after the one before."""
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(open_queue())
        writers: list[StreamWriter] = [
            await stack.enter_async_context(open_writer(name, queue=queue))
            for name in names_of(tag, streams)
        ]
        begin = time.time() + _BEGIN_SECONDS
        for number in range(int(seconds * per_second)):
            for i, writer in enumerate(writers):
                planned = begin + (number + i / streams) / per_second
                await asyncio.sleep(max(planned - time.time(), 0.0))
                await writer.send_chunk([planned, number, _TEXT])


# -- the reader, in a process of its own -----------------------------------------------------------


class Found:
    """What has arrived.

    Args:
        names: The streams.
    """

    def __init__(self, names: list[str]) -> None:
        self.delays: list[float] = []
        self.begin = 0.0
        self.left = set(names)
        self._next = dict.fromkeys(names, 0)
        self._events = dict.fromkeys(names, 0)

    def take(self, name: str, line: bytes, now: float) -> None:
        """Check and count the data of one event."""
        data = json.loads(line)
        if data["event"] == "stream":
            return
        self._events[name] += 1
        if data["event"] not in ("chunk", "end") or data["offset"] != self._events[name]:
            raise SystemExit(f"{name}: {data} is event {self._events[name]}")
        if data["event"] == "end":
            self.left.discard(name)
            return
        planned, number, _ = data["value"]
        if number != self._next[name]:
            raise SystemExit(f"{name}: chunk {number} came instead of {self._next[name]}")
        self._next[name] += 1
        self.begin = self.begin or planned
        if planned >= self.begin + _IGNORED_SECONDS:
            self.delays.append((now - planned) * 1_000)


async def read(way: str, port: int, tag: str, streams: int) -> None:
    """Read all streams to their ends, and print all delays in ms."""
    names = names_of(tag, streams)
    found = Found(names)
    if way == _SINGLE:
        requests = {name: _get(f"/events/{quote(name, safe='')}?wait=60") for name in names}
        await asyncio.gather(*(_read(port, each, name, found) for name, each in requests.items()))
    else:
        query = "&".join(f"stream={quote(name, safe='')}" for name in names)
        body = json.dumps({"streams": names, "wait": 60}).encode()
        request = _get(f"/events?wait=60&{query}") if way == "get" else _post(body)
        await _read(port, request, None, found)
    if found.left:
        raise SystemExit(f"{way}: {len(found.left)} streams did not end, such as {min(found.left)}")
    print(json.dumps(found.delays))


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode()  # and so without chunks


def _post(body: bytes) -> bytes:
    head = f"Host: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return b"POST /events HTTP/1.0\r\n" + head.encode() + body


async def _read(port: int, request: bytes, name: str | None, found: Found) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head:
        raise SystemExit(f"{head.decode()}{(await reader.read()).decode()}")
    prefix = b'data: {"stream":"'
    while data := await reader.read(1_048_576):
        now = time.time()  # when the bytes were there, not when they were looked at
        if not data.endswith(b"\n\n"):
            data += await reader.readuntil(b"\n\n")
        for line in data.split(b"\n"):
            if line.startswith(b"data: "):
                of = name or line[len(prefix) : line.index(b'"', len(prefix))].decode()
                found.take(of, line[6:], now)
    writer.close()


# -- what is measured ------------------------------------------------------------------------------


def role(*arguments: object, output: int | None = None) -> subprocess.Popen[bytes]:
    """Start this module in another role."""
    command = [sys.executable, "-m", "benchmarks.many_streams", "--role", *map(str, arguments)]
    end_with_us = partial(end_with, os.getpid())
    return subprocess.Popen(command, stdout=output, preexec_fn=end_with_us)  # noqa: PLW1509


def measure(folder: Path, way: str, tag: str, args: argparse.Namespace) -> dict[str, float]:
    """Deliver all streams once; return percentiles of the delays in ms, and the CPU time."""
    gateway = GatewayProcess(folder / f"{tag}.log")
    others: list[subprocess.Popen[bytes]] = []
    try:
        reader = role("reader", way, gateway.port, tag, args.streams, output=subprocess.PIPE)
        others.append(reader)
        time.sleep(1)
        before = cpu_seconds(gateway.process.pid)
        others.append(role("producer", tag, args.streams, args.per_second, args.seconds))
        output = reader.communicate(timeout=args.seconds + 120)[0]
        if reader.returncode:
            raise SystemExit(f"{way}: the reader failed")
        delays = json.loads(output)
        return {
            "p50": percentile(delays, 0.5),
            "p99": percentile(delays, 0.99),
            "cpu": (cpu_seconds(gateway.process.pid) - before) / len(delays) * 1e6,
            "peak": gateway.peak_mib(),
        }
    finally:
        for each in others:
            each.kill()
            each.wait()
        gateway.close()


def run(folder: Path, ways: list[str], args: argparse.Namespace) -> list[Row]:
    """Measure all ways; rounds alternate, and so does which comes first."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in (_SINGLE, *ways)}
    for number in range(args.rounds):
        order = [_SINGLE, *ways]
        for way in order if number % 2 else reversed(order):
            found[way].append(measure(folder, way, f"{number}-{way}", args))
    rows = []
    for way in ways:
        for what, key, bar in (
            ("p50, ms", "p50", None),
            ("p99, ms", "p99", _AT_MOST),
            ("gateway's CPU for an event, µs", "cpu", None),
            ("gateway's peak memory, MiB", "peak", None),
        ):
            bare = [each[key] for each in found[_SINGLE]]
            ours = [each[key] for each in found[way]]
            ratios = [o / b for o, b in zip(ours, bare, strict=True)]
            base, median = statistics.median(bare), statistics.median(ours)
            promised = "" if bar is None else f"<= {bar:g} x bare"
            met = None if bar is None else median / base <= bar
            spread = min(ratios), max(ratios)
            rows.append(Row(f"{way.upper()}: {what}", base, median, spread, promised, met))
    return rows


def main() -> int:
    """Run the benchmark; exit code 1 if a promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way", choices=WAYS, action="append", help="by default both")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--per-second", type=float, default=2.0, help="chunks of each stream")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    match args.role:
        case ["reader", way, port, tag, streams]:
            asyncio.run(read(way, int(port), tag, int(streams)))
            return 0
        case ["producer", tag, streams, per_second, seconds]:
            asyncio.run(produce(tag, int(streams), float(per_second), float(seconds)))
            return 0
    # A time-out ends it with SIGTERM; without this its processes would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("STREAMQ_BACKEND", "sqlite")
        os.environ.setdefault("STREAMQ_SQLITE_PATH", str(Path(name) / "streams.db"))
        rows = run(Path(name), args.way or list(WAYS), args)
    backend = load_settings().backend
    title = (
        f"{args.streams} streams on one connection on {backend}, {args.per_second:g} chunks a "
        f"second of each; bare is a connection for each; {args.rounds} rounds of {args.seconds:g} s"
    )
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
