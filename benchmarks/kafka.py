"""Compares streamq on Kafka with bare aiokafka, on the same Apache Kafka in the same run.

    python -m benchmarks.kafka                   # starts Apache Kafka; needs Java and Maven
    python -m benchmarks.kafka --bootstrap 127.0.0.1:9092 --json     # topics `streamq`, `bare`

* Latency: a producer process sends 100-byte chunks, each with the time when it is sent; this
  process reads them. Both send without a linger time. Bare: an idempotent producer with acks=all,
  one record for each chunk, and a consumer without a group. Rounds of both alternate.
* Throughput: one producer, as fast as it can, until everything is acknowledged. Bare: one record
  for each chunk, without waiting for any; streamq packs several chunks into a record. The bare
  producer runs with batches of 16 KiB, aiokafka's default, and of 256 KiB; the better one counts.
* Many streams: this process reads 2,000 streams on 12 partitions. At the same time a bare consumer
  in another process reads the same records. CPU and connections are those of the process that
  reads. The same is measured while there is nothing to read, and for as many open writers that
  have nothing to send.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import re
import sys
import time
import uuid
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.apache_kafka import KAFKA_VERSION, ApacheKafka, Operator

from benchmarks._stamp import CHUNK_BYTES, STAMP, age_ms, stamped
from benchmarks._stats import Row, compare, percentile, show
from streamq import Chunk, Settings, load_settings, open_queue, open_reader, open_writer
from streamq_kafka.embedded import TopicSpec

_TOPICS = (TopicSpec("streamq"), TopicSpec("streamq.directory", compacted=True), TopicSpec("bare"))
_PARTITIONS = 12
_SILENCE_SECONDS = 30.0
_IDLE_SECONDS = 6.0
_STAMPED = re.compile(rb"[0-9]{%d}x" % STAMP)


def settings_for(bootstrap: str) -> Settings:
    """Point streamq at the cluster under test."""
    os.environ["STREAMQ_KAFKA_BOOTSTRAP_SERVERS"] = bootstrap
    return load_settings(backend="kafka")


def bare_producer(bootstrap: str, **options: Any) -> AIOKafkaProducer:
    """Return a producer that promises what streamq's does."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0, **options
    )


async def bare_consumer(
    stack: AsyncExitStack, bootstrap: str, topic: str, *, partitions: int = _PARTITIONS
) -> AIOKafkaConsumer:
    """Start a consumer without a group that reads every record from now on."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await stack.enter_async_context(consumer)
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(assigned)
    await consumer.seek_to_end(*assigned)
    for each in assigned:
        await consumer.position(each)
    return consumer


# --- producers, each in a process of its own -----------------------------------------------------


def produce_bare(bootstrap: str, key: str, chunks: int, rate: float, go: ProcessEvent) -> None:
    """Send one record after the other, at ``rate`` per second."""

    async def run() -> None:
        async with bare_producer(bootstrap) as producer:
            await producer.partitions_for("bare")
            await asyncio.to_thread(go.wait)
            start = time.monotonic() + 0.1
            for i in range(chunks):
                await asyncio.sleep(max(0.0, start + i / rate - time.monotonic()))
                await producer.send("bare", stamped().encode(), key=key.encode())

    asyncio.run(run())


def produce_streamq(
    bootstrap: str,
    names: list[str],
    chunks: int,
    rate: float,
    ready: ProcessEvent,
    go: ProcessEvent,
) -> None:
    """Send one chunk after the other into each stream, at ``rate`` per second and stream."""

    async def run() -> None:
        settings = settings_for(bootstrap)
        async with open_queue(settings) as queue:
            unopened, all_open = set(names), asyncio.Event()
            start: asyncio.Future[float] = asyncio.get_running_loop().create_future()

            async def one(name: str, share: float) -> None:
                async with open_writer(name, queue=queue, settings=settings) as stream:
                    unopened.remove(name)
                    if not unopened:
                        all_open.set()
                    begin = await start + share / rate
                    for i in range(chunks):
                        await asyncio.sleep(max(0.0, begin + i / rate - time.monotonic()))
                        await stream.send_chunk(stamped())

            async with asyncio.TaskGroup() as group:
                for i, name in enumerate(names):
                    group.create_task(one(name, i / len(names)))
                await all_open.wait()
                ready.set()
                await asyncio.to_thread(go.wait)
                start.set_result(time.monotonic() + 0.1)

    asyncio.run(run())


# --- latency --------------------------------------------------------------------------------------


async def latency_bare(bootstrap: str, chunks: int, rate: float) -> list[float]:
    """Measure a waiting consumer."""
    go = multiprocessing.Event()
    arguments = (bootstrap, uuid.uuid4().hex, chunks, rate, go)
    producer = multiprocessing.Process(target=produce_bare, args=arguments)
    producer.start()
    ages: list[float] = []
    async with AsyncExitStack() as stack:
        consumer = await bare_consumer(stack, bootstrap, "bare")
        go.set()
        while len(ages) < chunks:
            async with asyncio.timeout(_SILENCE_SECONDS):
                ages.append(age_ms((await consumer.getone()).value))
    await asyncio.to_thread(producer.join)
    return ages


async def latency_streamq(bootstrap: str, chunks: int, rate: float) -> list[float]:
    """Measure a streamq reader."""
    (ages, _, _), _ = await read_streams(bootstrap, 1, chunks, rate)
    return ages


# --- throughput -----------------------------------------------------------------------------------


async def throughput_bare(bootstrap: str, chunks: int, batch_bytes: int) -> float:
    """Return chunks per second, one record for each chunk, until all are acknowledged."""
    key, payload = uuid.uuid4().hex.encode(), b"x" * CHUNK_BYTES
    async with bare_producer(bootstrap, max_batch_size=batch_bytes) as producer:
        await producer.partitions_for("bare")
        start = time.perf_counter()
        for _ in range(chunks):
            await producer.send("bare", payload, key=key)
        await producer.flush()
        return chunks / (time.perf_counter() - start)


async def throughput_streamq(bootstrap: str, chunks: int) -> float:
    """Return chunks per second through one writer, until the seal is acknowledged."""
    settings, name = settings_for(bootstrap), f"bench/{uuid.uuid4().hex}"
    payload = "x" * CHUNK_BYTES
    async with open_queue(settings) as queue:
        start = time.perf_counter()
        async with open_writer(name, queue=queue, settings=settings) as stream:
            for i in range(chunks):
                await stream.send_chunk(payload)
                if i % 100 == 99:
                    await asyncio.sleep(0)  # a producer that never yields would starve the sender
        elapsed = time.perf_counter() - start
        async with open_reader(name, queue=queue, settings=settings) as reader:
            got = len(await reader.collect())
        if got != chunks:
            raise SystemExit(f"throughput run lost data: {got} of {chunks} chunks arrived")
    return chunks / elapsed


# --- many streams ---------------------------------------------------------------------------------

Reading = tuple[list[float], float, int]
"""Ages in ms, seconds of CPU, connections."""


def consume_bare(bootstrap: str, chunks: int, ready: ProcessEvent, answer: Connection) -> None:
    """Read the records of all streams and nothing more; send ages and CPU."""

    async def run() -> Reading:
        ages: list[float] = []
        async with AsyncExitStack() as stack:
            consumer = await bare_consumer(stack, bootstrap, "streamq")
            ready.set()
            first = None
            while len(ages) < chunks:
                batches = await consumer.getmany(timeout_ms=int(_SILENCE_SECONDS * 1_000))
                if not batches:
                    raise SystemExit("the producer has stopped sending")
                for records in batches.values():
                    for record in records:
                        found = _STAMPED.findall(record.value)
                        if found and first is None:
                            first = time.process_time()
                        ages.extend(age_ms(each) for each in found)
            return ages, time.process_time() - (first or 0.0), connections(bootstrap)

    answer.send(asyncio.run(run()))


async def read_streams(
    bootstrap: str, streams: int, chunks: int, rate: float, *, beside: bool = False
) -> tuple[Reading, Reading | None]:
    """Read streams in this process and, with ``beside``, also with a bare consumer in another."""
    names = [f"bench/{uuid.uuid4().hex}" for _ in range(streams)]
    settings = settings_for(bootstrap)
    opened, go, listening = (multiprocessing.Event() for _ in range(3))
    producer = multiprocessing.Process(
        target=produce_streamq, args=(bootstrap, names, chunks, rate, opened, go)
    )
    mine, theirs = multiprocessing.Pipe(duplex=False)
    consumer = multiprocessing.Process(
        target=consume_bare, args=(bootstrap, streams * chunks, listening, theirs)
    )
    ages: list[float] = []
    producer.start()
    async with open_queue(settings) as queue:

        async def read(name: str) -> None:
            async with open_reader(
                name, queue=queue, settings=settings, idle_seconds=_SILENCE_SECONDS
            ) as reader:
                async for event in reader:
                    if isinstance(event, Chunk):
                        ages.append(age_ms(event.data))

        await asyncio.to_thread(opened.wait)
        if beside:
            consumer.start()
            await asyncio.to_thread(listening.wait)
        reading = asyncio.gather(*(read(name) for name in names))
        await asyncio.sleep(1.0)  # let every reader wait before the producer begins
        before, used = time.process_time(), 0
        go.set()
        while not reading.done():
            used = max(used, connections(bootstrap))
            await asyncio.wait((reading,), timeout=1.0)
        await reading
        ours = ages, time.process_time() - before, used
    bare = await asyncio.to_thread(mine.recv) if beside else None
    for process in (producer, consumer) if beside else (producer,):
        await asyncio.to_thread(process.join)
    return ours, bare


async def idle_bare(bootstrap: str) -> float:
    """Return milliseconds of CPU a second of a bare consumer that gets nothing."""
    async with AsyncExitStack() as stack:
        consumer = await bare_consumer(stack, bootstrap, "streamq")
        before = time.process_time()
        if await consumer.getmany(timeout_ms=int(_IDLE_SECONDS * 1_000)):
            raise SystemExit("another program writes to the topic")
        return (time.process_time() - before) / _IDLE_SECONDS * 1e3


async def idle_streamq(bootstrap: str, streams: int) -> float:
    """Return the same for waiting readers, one for each stream."""
    settings = settings_for(bootstrap)
    async with open_queue(settings) as queue, AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(
                open_reader(f"bench/{uuid.uuid4().hex}", queue=queue, settings=settings)
            )
            for _ in range(streams)
        ]
        waiting = asyncio.gather(
            *(reader.read_batch(max_wait=2 * _IDLE_SECONDS) for reader in readers)
        )
        await asyncio.sleep(_IDLE_SECONDS / 2)  # until all of them wait
        before = time.process_time()
        await asyncio.sleep(_IDLE_SECONDS)
        used = time.process_time() - before
        await waiting
    return used / _IDLE_SECONDS * 1e3


async def idle_writers(bootstrap: str, streams: int) -> float:
    """Return the same for open writers that send nothing; each one checks for takeovers."""
    settings = settings_for(bootstrap)
    async with open_queue(settings) as queue, AsyncExitStack() as stack:
        for _ in range(streams):
            name = f"bench/{uuid.uuid4().hex}"
            await stack.enter_async_context(open_writer(name, queue=queue, settings=settings))
        await asyncio.sleep(_IDLE_SECONDS / 2)
        before = time.process_time()
        await asyncio.sleep(_IDLE_SECONDS)
        return (time.process_time() - before) / _IDLE_SECONDS * 1e3


def connections(bootstrap: str) -> int:
    """Return how many connections this process has to the brokers; 0 if the system does not say."""
    ports = {f"{int(server.rpartition(':')[2]):04X}" for server in bootstrap.split(",")}
    try:
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        mine = {os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}
    except OSError:
        return 0
    rows = [line.split() for line in lines]
    return sum(row[2].rpartition(":")[2] in ports and f"socket:[{row[9]}]" in mine for row in rows)


async def run(bootstrap: str, rounds: int, chunks: int, streams: int) -> list[Row]:
    """Take all measurements; contenders alternate in each of them."""
    rows: list[Row] = []
    p50: tuple[list[float], list[float]] = ([], [])
    p99: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        bare = await latency_bare(bootstrap, chunks, 200)
        ours = await latency_streamq(bootstrap, chunks, 200)
        for store, share in ((p50, 0.5), (p99, 0.99)):
            store[0].append(percentile(bare, share))
            store[1].append(percentile(ours, share))
    rows.append(compare("1 stream, 200 chunks/s: p50 ms", *p50, at_most=2.0))
    rows.append(compare("1 stream, 200 chunks/s: p99 ms", *p99))

    bare_rate, our_rate = [], []
    for _ in range(rounds):
        each = [await throughput_bare(bootstrap, 50_000, size) for size in (16_384, 262_144)]
        bare_rate.append(max(each))
        our_rate.append(await throughput_streamq(bootstrap, 50_000))
    rows.append(compare("100-byte chunks/s, one producer", bare_rate, our_rate, at_least=2.0))

    (ages, cpu, used), beside = await read_streams(bootstrap, streams, 10, 0.5, beside=True)
    assert beside is not None
    bare_ages, bare_cpu, bare_used = beside
    what = f"{streams:,} streams, {streams / 2:,.0f} chunks/s"
    for share in (0.5, 0.99):
        pair = [percentile(bare_ages, share)], [percentile(ages, share)]
        rows.append(compare(f"{what}: p{share * 100:.0f} ms", *pair))
    per_chunk = [bare_cpu / len(bare_ages) * 1e6], [cpu / len(ages) * 1e6]
    rows.append(compare(f"{what}: CPU, us a chunk", *per_chunk))
    rows.append(
        Row(
            f"{what}: connections",
            bare_used,
            used,
            (used, used),
            "<= 6",
            used <= 6,
        )
    )
    idle = [await idle_bare(bootstrap)], [await idle_streamq(bootstrap, streams)]
    rows.append(compare(f"{streams:,} streams, nothing new: CPU, ms a second", *idle))
    writing = await idle_writers(bootstrap, streams)
    what = f"{streams:,} open writers, nothing to send: CPU, ms a second"
    rows.append(Row(what, None, writing, (writing, writing)))
    return rows


def main() -> int:
    """Run the benchmark; the exit code is 1 if a promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bootstrap", help="brokers to measure; by default it starts one")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each contender")
    parser.add_argument("--chunks", type=int, default=600, help="chunks in a latency round")
    parser.add_argument("--streams", type=int, default=2_000, help="number of many streams")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it complains of new topics
    measure = (args.rounds, args.chunks, args.streams)
    if args.bootstrap:
        rows, server = asyncio.run(run(args.bootstrap, *measure)), "the given cluster"
    else:
        with ApacheKafka() as kafka:
            asyncio.run(Operator(kafka.address).create(_TOPICS))
            rows = asyncio.run(run(kafka.address, *measure))
        server = f"Apache Kafka {KAFKA_VERSION}"
    title = f"streamq beside bare aiokafka on {server}; medians of {args.rounds} rounds"
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
