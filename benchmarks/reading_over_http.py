"""Measures a Python reader through the gateway beside a client of server-sent events.

    python -m benchmarks.reading_over_http             # five rounds, about a minute

In each round ``streamq serve`` delivers one stream live, from SQLite, to both at the same time, and
then a stored stream to one after the other. Each live chunk carries the moment when it was sent.
The gateway and the producer are processes of their own; both readers share this one. The client of
events (bare) is httpx with the parser of httpx-sse, and decodes the JSON of each event.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from httpx_sse import aconnect_sse

from benchmarks._gateway import GatewayProcess, cpu_seconds, end_with
from benchmarks._stats import Row, compare, percentile, show
from streamq import Chunk, load_settings, open_reader, open_writer

_RATE = 200
_CHUNKS = 1_000
_STORED = 20_000
_TEXT = "a token or two "


async def _produce(name: str) -> None:
    """Write a live stream, in a process of its own."""
    async with open_writer(name) as writer:
        begin = time.monotonic()
        for number in range(_CHUNKS):
            await asyncio.sleep(max(begin + number / _RATE - time.monotonic(), 0))
            await writer.send_chunk({"ns": time.monotonic_ns(), "text": _TEXT})


async def _store(name: str) -> None:
    async with open_writer(name) as writer:
        for number in range(_STORED):
            await writer.send_chunk(f"{_TEXT}{number}")


async def _events(url: str, name: str, ages: list[float]) -> int:
    """Read server-sent events to the end; return how many chunks there were."""
    chunks = 0
    async with (
        httpx.AsyncClient(timeout=60) as client,
        aconnect_sse(client, "GET", f"{url}/events/{name}?wait=30") as source,
    ):
        async for event in source.aiter_sse():
            if event.event == "chunk":
                value = json.loads(event.data)["value"]
                chunks += 1
                if isinstance(value, dict):
                    ages.append((time.monotonic_ns() - value["ns"]) / 1e6)
            elif event.event == "end":
                break
    return chunks


async def _records(url: str, name: str, ages: list[float]) -> int:
    """Read by ``open_reader`` to the end; return how many chunks there were."""
    chunks = 0
    async with open_reader(f"{url}/events/{name}") as reader:
        async for event in reader:
            if isinstance(event, Chunk):
                value = event.value
                chunks += 1
                if isinstance(value, dict):
                    ages.append((time.monotonic_ns() - value["ns"]) / 1e6)
    return chunks


async def _round(url: str, tag: str, server: int) -> dict[str, list[float]]:
    producer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "--produce", f"live-{tag}"
    )
    found: dict[str, list[float]] = {"sse": [], "records": []}
    counts = await asyncio.gather(
        _events(url, f"live-{tag}", found["sse"]), _records(url, f"live-{tag}", found["records"])
    )
    assert await producer.wait() == 0
    assert set(counts) == {_CHUNKS}, counts
    await _store(f"stored-{tag}")
    for way, read in (("sse", _events), ("records", _records)):
        await read(url, f"stored-{tag}", [])  # the pages of events are encoded once
        cpu, begin = cpu_seconds(server), time.perf_counter()
        assert await read(url, f"stored-{tag}", []) == _STORED
        found[f"{way} rate"] = [_STORED / (time.perf_counter() - begin)]
        found[f"{way} cpu"] = [(cpu_seconds(server) - cpu) * 1e6 / _STORED]
    return found


async def _measure(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        os.environ["STREAMQ_SQLITE_PATH"] = f"{directory}/streams.db"
        gateway = GatewayProcess(Path(directory) / "log")
        try:
            url = f"http://127.0.0.1:{gateway.port}"
            await _round(url, "warm", gateway.process.pid)
            found = [await _round(url, str(n), gateway.process.pid) for n in range(rounds)]
        finally:
            gateway.close()

    def ages(way: str, share: float) -> list[float]:
        return [percentile(each[way], share) for each in found]

    def medians(what: str) -> list[float]:
        return [statistics.median(each[what]) for each in found]

    return [
        compare("live, 200 chunks/s: p50, ms", ages("sse", 0.5), ages("records", 0.5)),
        compare("live, 200 chunks/s: p99, ms", ages("sse", 0.99), ages("records", 0.99)),
        compare("stored: chunks/s", medians("sse rate"), medians("records rate")),
        compare(
            "stored: CPU of the gateway, us a chunk", medians("sse cpu"), medians("records cpu")
        ),
    ]


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--produce", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    load_settings()
    if options.produce:
        end_with(os.getppid())
        asyncio.run(_produce(options.produce))
        return 0
    rows = asyncio.run(_measure(options.rounds))
    show(
        "a reader through the gateway, beside server-sent events (bare)", rows, as_json=options.json
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
