"""Measures streamq on PostgreSQL against bare psycopg, on the same server in the same run.

    python -m benchmarks.postgres                 # starts its own server, which waits for its disk
    python -m benchmarks.postgres --url postgresql://postgres@127.0.0.1:5432/postgres --json

* Latency: a producer process sends 100-byte chunks, each stamped when it is sent; this process
  reads them. Bare: one statement inserts the row and notifies; the reader listens on one connection
  and selects the new rows on another. Rounds of both alternate.
* Throughput: one producer, as fast as possible, until everything is acknowledged. Bare: one INSERT
  for each chunk, in a pipeline and a transaction of 100 and of 500; the better result counts.
  Packing replaces them.
* Many streams: 1,000 streams of 1 chunk/s into this process, and the number of its connections.
  Bare: the same rows over one connection.
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

import psycopg

from benchmarks._stamp import CHUNK_BYTES, age_ms, stamped
from benchmarks._stats import Row, compare, percentile, show
from streamq import Chunk, Settings, load_settings, open_queue, open_reader, open_writer
from streamq_postgres.embedded import EmbeddedPostgres

_PATIENCE_SECONDS = 300.0
_TABLE = "CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, stream text, data bytea)"
_SEND = (
    "WITH sent AS (INSERT INTO bare (stream, data) VALUES (%b, %b) RETURNING 1) "
    "SELECT pg_notify('bare', '') FROM sent"
)
_SELECT = "SELECT id, data FROM bare WHERE id > %b ORDER BY id"
_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'streamq'"


def settings_for(url: str) -> Settings:
    """Point streamq at the server under test."""
    os.environ["STREAMQ_POSTGRES_URL"] = url
    return load_settings(backend="postgres")


async def connect(url: str) -> psycopg.AsyncConnection[Any]:
    """Return a connection of the bare client."""
    return await psycopg.AsyncConnection.connect(url, autocommit=True)


# --- producers, each in a process of its own -----------------------------------------------------


def produce_bare(url: str, names: list[str], chunks: int, rate: float, go: ProcessEvent) -> None:
    """Insert and notify, one chunk after the other for each stream."""

    async def run() -> None:
        async with await connect(url) as client:
            await client.execute("SELECT 1")
            await asyncio.to_thread(go.wait)
            start = time.monotonic() + 0.1

            async def one(name: str, start: float) -> None:
                for i in range(chunks):
                    await asyncio.sleep(max(0.0, start + i / rate - time.monotonic()))
                    await client.execute(_SEND, [name, stamped().encode()])

            await asyncio.gather(
                *(one(name, start + i / len(names) / rate) for i, name in enumerate(names))
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
    """Measure a session that listens, and one that selects."""
    names = [f"bare/{uuid.uuid4().hex}" for _ in range(streams)]
    go = multiprocessing.Event()
    producer = multiprocessing.Process(target=produce_bare, args=(url, names, chunks, rate, go))
    ages: list[float] = []
    async with await connect(url) as listening, await connect(url) as client:
        await client.execute(_TABLE)
        await client.execute("TRUNCATE bare RESTART IDENTITY")
        await listening.execute("LISTEN bare")
        producer.start()
        go.set()
        last = 0
        async for _ in listening.notifies(timeout=_PATIENCE_SECONDS):
            cursor = await client.execute(_SELECT, [last], binary=True)
            for last, data in await cursor.fetchall():  # noqa: B007 - where to go on
                ages.append(age_ms(data))
            if len(ages) == streams * chunks:
                break
        else:
            raise SystemExit("the bare producer has stopped sending")
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
    async with await connect(url) as client, open_queue(settings) as queue:

        async def read(name: str) -> None:
            async with open_reader(name, queue=queue, settings=settings) as reader:
                async for event in reader:
                    if isinstance(event, Chunk):
                        ages.append(age_ms(event.data))

        reading = asyncio.gather(*(read(name) for name in names))
        await asyncio.sleep(0.5)  # let every reader block before the producer begins
        connections = len(await (await client.execute(_SESSIONS)).fetchall())
        producer.start()
        go.set()
        await reading
    await asyncio.to_thread(producer.join)
    return ages, connections


# --- throughput -----------------------------------------------------------------------------------


async def throughput_bare(url: str, chunks: int, batch: int) -> float:
    """Return chunks per second of pipelined INSERTs, one row for each chunk."""
    payload = b"x" * CHUNK_BYTES
    insert = "INSERT INTO bare (stream, data) VALUES (%b, %b)"
    async with await connect(url) as client:
        await client.execute(_TABLE)
        await client.execute("TRUNCATE bare RESTART IDENTITY")
        start = time.perf_counter()
        for _ in range(chunks // batch):
            async with client.transaction(), client.cursor() as cursor:
                await cursor.executemany(insert, [["bare", payload]] * batch)
        return chunks / (time.perf_counter() - start)


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
        bare = await latency_bare(url, 1, chunks, 100)
        ours, _ = await latency_streamq(url, 1, chunks, 100)
        for store, share in ((p50, 0.5), (p99, 0.99)):
            store[0].append(percentile(bare, share))
            store[1].append(percentile(ours, share))
    rows.append(compare("1 stream, 100 chunks/s: p50 ms", *p50, at_most=1.5))
    rows.append(compare("1 stream, 100 chunks/s: p99 ms", *p99))

    bare_rate, our_rate = [], []
    for _ in range(rounds):
        bare_rate.append(max([await throughput_bare(url, 20_000, n) for n in (100, 500)]))
        our_rate.append(await throughput_streamq(url, 20_000))
    rows.append(compare("100-byte chunks/s, one producer", bare_rate, our_rate, at_least=1.5))

    many50: tuple[list[float], list[float]] = ([], [])
    many99: tuple[list[float], list[float]] = ([], [])
    connections = []
    for _ in range(max(rounds // 2, 1)):
        bare = await latency_bare(url, 1_000, 5, 0.2)
        ours, used = await latency_streamq(url, 1_000, 5, 0.2)
        connections.append(float(used))
        for store, share in ((many50, 0.5), (many99, 0.99)):
            store[0].append(percentile(bare, share))
            store[1].append(percentile(ours, share))
    rows.append(compare("1,000 streams, 1 chunk in 5 s each: p50 ms", *many50))
    rows.append(compare("1,000 streams, 1 chunk in 5 s each: p99 ms", *many99))
    rows.append(
        Row(
            "1,000 streams: connections of the reader",
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
    parser.add_argument("--url", help="server to measure; by default the benchmark starts one")
    parser.add_argument("--no-fsync", action="store_true", help="let its disk not count")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender")
    parser.add_argument("--chunks", type=int, default=600, help="chunks in a latency round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    if args.url:
        rows, server = asyncio.run(run(args.url, args.rounds, args.chunks)), "the given server"
    else:
        with EmbeddedPostgres(fsync=not args.no_fsync) as embedded:
            rows = asyncio.run(run(embedded.url, args.rounds, args.chunks))
        server = "PostgreSQL on this host"
    title = f"streamq and bare psycopg on {server}; medians of {args.rounds} rounds"
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
