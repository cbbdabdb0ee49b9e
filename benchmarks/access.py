"""Measures what tokens and quotas cost: for each event delivered, and for each connection.

    python -m benchmarks.access          # 24 pairs, about two minutes
    python -m benchmarks.access --pairs 40

Two gateways run side by side on one sqlite file, one open to everybody, one with tokens and quotas
that nobody reaches. In each round both deliver a stream of their own to twenty readers, one after
the other and in turn first; the CPU time of the gateway's process is divided by the deliveries. The
interval is that of the median of the rounds' ratios: 95 % of such runs have the true one inside.

A connection's check is everything that the gateway does with a token, in memory; bare is joserfc
verifying the signature of the same token.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from joserfc import jws
from starlette.requests import Request

from benchmarks._gateway import GatewayProcess, cpu_seconds
from benchmarks._stats import Row, compare, show
from streamq import Settings, load_settings, open_queue, open_writer
from streamq.access import mint_token, new_ed25519_key, new_secret
from streamq.access._keys import algorithms_of, own_keys
from streamq.driver import ChunkQueue
from streamq.gateway import Gateway, GatewayOptions

_READERS = 20
_CHUNKS = 300
_PER_SECOND = 300  # so that each event is delivered by itself
_TEXT = "x" * 40
_CHECKS = 300
_CHECK_ROUNDS = 20
_DELIVERY_BAR = 1.05
_CHECK_BAR = 3.0
_QUOTAS = """
[tenant]
connections = 10_000
streams = 10_000
bytes_per_second = 1_000_000_000
[subject]
connections = 1_000
streams = 1_000
bytes_per_second = 1_000_000_000
"""


async def deliver(
    gateway: GatewayProcess, queue: ChunkQueue, settings: Settings, token: str
) -> float:
    """Deliver a stream to all readers; return the gateway's CPU time for one event, in µs."""
    name = f"s-{uuid.uuid4().hex}"
    async with open_writer(name, queue=queue, settings=settings) as writer:
        await writer.send_chunk(_TEXT)
        await writer.flush()
        begun = [asyncio.Event() for _ in range(_READERS)]
        readers = [asyncio.create_task(read(gateway.port, name, token, each)) for each in begun]
        await asyncio.gather(*(each.wait() for each in begun))
        before = cpu_seconds(gateway.process.pid)
        start = time.monotonic()
        for number in range(_CHUNKS):
            await asyncio.sleep(max(start + number / _PER_SECOND - time.monotonic(), 0.0))
            await writer.send_chunk(_TEXT)
            await writer.flush()
    delivered = sum(await asyncio.gather(*readers))
    if delivered != _READERS * (_CHUNKS + 1):
        raise SystemExit(f"{delivered} events arrived instead of {_READERS * (_CHUNKS + 1)}")
    return (cpu_seconds(gateway.process.pid) - before) / delivered * 1e6


async def read(port: int, name: str, token: str, begun: asyncio.Event) -> int:
    """Read a stream to its end with as little work as possible; return how many chunks came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    allowed = f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(
        f"GET /streams/{name}/events HTTP/1.1\r\nHost: localhost\r\n{allowed}\r\n".encode()
    )
    chunks, rest = 0, b""
    try:
        while data := await reader.read(65_536):
            found = rest + data
            chunks += found.count(b"event: chunk")
            rest = found[-11:]  # shorter than what is counted
            if chunks:
                begun.set()
            if b"event: end" in found:
                break
    finally:
        writer.close()
    return chunks


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median with a confidence of 95 %, by ranks (binomial)."""
    ordered, count = sorted(ratios), len(ratios)
    below = max(int((count - 1.96 * count**0.5) / 2), 0)
    return ordered[below], ordered[count - 1 - below]


async def deliveries(pairs: int, folder: Path) -> list[Row]:
    """Compare deliveries with tokens and quotas to those without."""
    os.environ |= {"STREAMQ_BACKEND": "sqlite", "STREAMQ_SQLITE_PATH": str(folder / "streams.db")}
    secret = new_secret()
    quotas = folder / "quotas.toml"
    quotas.write_text(_QUOTAS)
    guarded_by = {"STREAMQ_TOKEN_KEY": secret, "STREAMQ_QUOTAS": str(quotas)}
    settings = load_settings()
    token = mint_token(every=True, subject="ada", settings=load_settings(token_key=secret))
    free, guarded = (
        GatewayProcess(folder / "free.log"),
        GatewayProcess(folder / "guarded.log", None, guarded_by),
    )
    found: dict[GatewayProcess, list[float]] = {free: [], guarded: []}
    tokens = {free: "", guarded: token}
    try:
        async with open_queue(settings) as queue:
            for each in (free, guarded):  # what is done once is not measured
                await deliver(each, queue, settings, tokens[each])
            for number in range(pairs):
                for each in (free, guarded) if number % 2 else (guarded, free):
                    found[each].append(await deliver(each, queue, settings, tokens[each]))
    finally:
        free.close()
        guarded.close()
    ratios = [g / f for g, f in zip(found[guarded], found[free], strict=True)]
    low, high = interval(ratios)
    row = Row(
        f"an event: gateway's CPU, µs; ratio's median {statistics.median(ratios):.3f} in",
        statistics.median(found[free]),
        statistics.median(found[guarded]),
        (low, high),
        f"<= {_DELIVERY_BAR:g} x bare",
        statistics.median(ratios) <= _DELIVERY_BAR,
    )
    return [row]


def brought_by(token: str) -> Request:
    """Return a request for events that brings a token."""
    allowed = (b"authorization", f"Bearer {token}".encode())
    path = {"path": "/events/s", "raw_path": b"/events/s", "query_string": b""}
    return Request({"type": "http", "method": "GET", "headers": [allowed], **path})


async def checks(folder: Path) -> list[Row]:
    """Compare the check of a connection's token to that of its signature alone."""
    kinds = {"HMAC": new_secret(), "Ed25519": new_ed25519_key()[0]}
    rows = []
    for name, text in kinds.items():
        path = folder / "key"
        path.write_text(text)
        settings = load_settings(backend="memory", token_key_file=path)
        token = mint_token(every=True, subject="ada", settings=settings)
        request = brought_by(token)
        [key] = own_keys(text.encode(), "the key")
        algorithms = list(algorithms_of(key))
        bare: list[float] = []
        ours: list[float] = []
        async with open_queue(settings) as queue:
            gateway = Gateway(queue, settings, GatewayOptions())
            async with gateway.running():
                await gateway.rights_of_token(request)
                for _ in range(_CHECK_ROUNDS):
                    begun = time.process_time()
                    for _ in range(_CHECKS):
                        jws.deserialize_compact(token, key, algorithms=algorithms)
                    between = time.process_time()
                    for _ in range(_CHECKS):
                        await gateway.rights_of_token(request)
                    bare.append((between - begun) / _CHECKS * 1e6)
                    ours.append((time.process_time() - between) / _CHECKS * 1e6)
        rows.append(
            compare(f"a connection's token, {name}: CPU, µs", bare, ours, at_most=_CHECK_BAR)
        )
    return rows


async def measure(pairs: int) -> list[Row]:
    """Return all rows."""
    with tempfile.TemporaryDirectory() as folder:
        return [*await checks(Path(folder)), *await deliveries(pairs, Path(folder))]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=24, metavar="N", help="pairs of deliveries")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.pairs))
    return 0 if show("Tokens and quotas; bare is without them", rows, as_json=arguments.json) else 1


if __name__ == "__main__":
    raise SystemExit(main())
