"""Compares S3 + SNS with bare aioboto3 calls: latency, requests and their cost, memory.

``make bench BENCH=s3sns``. Everything runs against an emulator on this machine. Latencies therefore
show the share of streamq, and not that of AWS; requests and memory are the same as there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aioboto3

from streamq import Chunk, StreamId, StreamWriter, load_settings, open_reader, open_writer
from streamq.driver import ChunkQueue, QueueOptions
from streamq_aws import AwsClients
from streamq_s3sns import ObjectReference, S3SnsDriver, S3SnsSettings, open_hand_over

USD_PER_MILLION = {
    **dict.fromkeys(("PutObject", "ListObjectsV2"), 5.0),
    **dict.fromkeys(("GetObject", "HeadObject", "GetBucketVersioning"), 0.4),
    **dict.fromkeys(("PublishBatch", "Publish"), 0.5),
    **dict.fromkeys(("ReceiveMessage", "TagQueue", "CreateQueue", "SetQueueAttributes"), 0.4),
}
"""List prices in us-east-1; a delivery from SNS to SQS and DELETE are free."""

OPTIONS = QueueOptions(ttl=timedelta(hours=1))
SMALL_CHUNKS = 100_000
LARGE_BYTES = 200 * 10**6
TEXT = "a token of a text, about fifty bytes in all, or so"


def count_requests(calls: Counter[str]) -> None:
    """Count every request of every client that is opened from now on."""
    opened = AwsClients.client

    async def client(self: AwsClients, service: str, **options: Any) -> Any:
        made = await opened(self, service, **options)

        def count(model: Any, **_: object) -> None:
            calls[model.name] += 1

        made.meta.events.register("before-call", count)
        return made

    AwsClients.client = client  # type: ignore[method-assign]


def around(pause: float) -> float:
    """Return about that pause; an exact one could keep step with the emulator's 100 ms."""
    return pause * random.uniform(0.5, 1.5)


def percentiles(taken: list[float]) -> str:
    """Return median and 99th percentile in ms."""
    ordered = sorted(taken)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{statistics.median(ordered) * 1000:7.1f} {p99 * 1000:7.1f}"


async def bare(count: int, pause: float) -> list[float]:
    """Without streamq: one object for each chunk, notified by SNS and SQS, then fetched."""
    session = aioboto3.Session()
    bucket, topic = os.environ["STREAMQ_S3SNS_BUCKET"], os.environ["STREAMQ_S3SNS_TOPIC_ARN"]
    run = uuid.uuid4().hex
    async with (
        session.client("s3") as s3,
        session.client("sns") as sns,
        session.client("sqs") as sqs,
    ):
        url = (await sqs.create_queue(QueueName=f"bare-{run}"))["QueueUrl"]
        about = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        await sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=about["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": "true"},
        )
        sent: dict[str, float] = {}
        taken: list[float] = []

        async def produce() -> None:
            for i in range(count):
                key = f"bare/{run}/{i:06}"
                sent[key] = time.perf_counter()
                await s3.put_object(Bucket=bucket, Key=key, Body=TEXT.encode(), IfNoneMatch="*")
                await sns.publish(TopicArn=topic, Message=key)
                await asyncio.sleep(around(pause))

        producing = asyncio.create_task(produce())
        while len(taken) < count:
            answer = await sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5
            )
            for message in answer.get("Messages", ()):
                key = message["Body"]
                if key in sent:
                    found = await s3.get_object(Bucket=bucket, Key=key)
                    await found["Body"].read()
                    taken.append(time.perf_counter() - sent[key])
                await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        await producing
        await sqs.delete_queue(QueueUrl=url)
        return taken


async def streamed(count: int, pause: float, settings: S3SnsSettings) -> list[float]:
    """With streamq: a writer and a reader with a queue each."""
    stream = StreamId("bench", uuid.uuid4().hex)
    sent: list[float] = []
    taken: list[float] = []
    async with (
        await S3SnsDriver.open(OPTIONS, settings) as writing,
        await S3SnsDriver.open(OPTIONS, settings) as reading,
    ):

        async def consume() -> None:
            async with open_reader(stream, queue=reading) as reader:
                async for event in reader:
                    if isinstance(event, Chunk):
                        taken.append(time.perf_counter() - sent[len(taken)])

        consuming = asyncio.create_task(consume())
        await asyncio.sleep(
            1.0
        )  # until notifications are received, as in a process that has been running
        async with open_writer(stream, queue=writing) as writer:
            for _ in range(count):
                sent.append(time.perf_counter())
                await writer.send_chunk(TEXT)
                await asyncio.sleep(around(pause))
        await consuming
    return taken


async def compare(count: int) -> None:
    """Print latencies, requests and their cost."""
    calls: Counter[str] = Counter()
    count_requests(calls)
    woken = S3SnsSettings()
    polling = woken.model_copy(update={"topic_arn": None})
    ways: list[tuple[str, Callable[[float], Awaitable[list[float]]]]] = [
        ("streamq, woken by SNS", lambda pause: streamed(count, pause, woken)),
        ("streamq, polling only", lambda pause: streamed(count, pause, polling)),
    ]
    print(f"{count} chunks of {len(TEXT)} bytes; ms from send to reader")
    print(f"{'':24}{'pause':>8} {'median':>7} {'p99':>7}  requests and USD for 1,000 chunks")
    for pause in (0.1, 0.02, 0.0):
        taken = await bare(min(count, 200), pause)
        per_chunk = "put 1000, publish 1000, receive, delete 1000, get 1000: 0.0067"
        print(f"{'bare, one by one':24}{pause:8.2f} {percentiles(taken)}  {per_chunk}")
        for name, way in ways:
            calls.clear()
            taken = await way(pause)
            print(f"{name:24}{pause:8.2f} {percentiles(taken)}  {bill(calls, 1000 / count)}")


async def compare_late_reading(count: int) -> None:
    """Print requests and time for reading a stream that was written slowly, chunk by chunk."""
    calls: Counter[str] = Counter()
    count_requests(calls)
    print(f"{count} chunks, each in a segment of its own, read later; for 1,000 chunks")
    for name, pack in (("packed", True), ("one by one", False)):
        settings = S3SnsSettings().model_copy(update={"topic_arn": None, "pack": pack})
        stream = StreamId("bench", uuid.uuid4().hex)
        for way in (write_slowly, read_all):
            calls.clear()
            started = time.perf_counter()
            async with await S3SnsDriver.open(OPTIONS, settings) as queue:
                await way(stream, queue, count)
            taken = time.perf_counter() - started
            factor = 1000 / count
            print(
                f"{name:12}{way.__name__:14}{bill(calls, factor)}, {taken * factor * 1000:.0f} ms"
            )


async def write_slowly(stream: StreamId, queue: ChunkQueue, count: int) -> None:
    """Send chunks, each after the one before has been stored."""
    async with open_writer(stream, queue=queue) as writer:
        for _ in range(count):
            await writer.send_chunk(TEXT)
            await writer.flush()


async def read_all(stream: StreamId, queue: ChunkQueue, count: int) -> None:
    """Read a stream to its end."""
    async with open_reader(stream, queue=queue) as reader:
        found = [event async for event in reader if isinstance(event, Chunk)]
    assert len(found) == count


def bill(calls: Counter[str], factor: float) -> str:
    """Return the numbers of requests and their cost, times a factor."""
    usd = sum(USD_PER_MILLION.get(call, 0) * n for call, n in calls.items()) / 1e6
    each = ", ".join(f"{call} {n * factor:.0f}" for call, n in calls.most_common(5))
    return f"{each}: {usd * factor:.4f}"


async def measure_process(what: str) -> None:
    """Send or read a large chunk, a large object or many chunks, and print the peak memory."""
    settings = load_settings(max_chunk_bytes=2**29, buffer_bytes=2**29, operation_seconds=120)
    small = load_settings()
    stream = StreamId("bench", uuid.uuid4().hex)
    async with await S3SnsDriver.open(OPTIONS, S3SnsSettings()) as queue:
        before = peak_mib()
        started = time.perf_counter()
        if what == "write-large":
            stream = StreamId("bench", "large")
            async with open_writer(stream, queue=queue, settings=settings) as writer:
                await writer.send_chunk(os.urandom(1_000_000) * (LARGE_BYTES // 1_000_000))
        elif what == "hand-over-large":
            async with open_writer("handed", queue=queue) as writer:
                await hand_over_large(writer, queue)
        elif what == "download-large":
            await download_large(queue)
        elif what == "write-small":
            stream = StreamId("bench", "small")
            async with open_writer(stream, queue=queue, settings=small) as writer:
                for _ in range(SMALL_CHUNKS):
                    await writer.send_chunk(TEXT)
        else:
            stream = StreamId("bench", what.removeprefix("read-"))
            await read_through(stream, queue)
        taken = time.perf_counter() - started
    print(json.dumps({"base": before, "peak": peak_mib(), "seconds": taken}))


async def hand_over_large(writer: StreamWriter[Any], queue: ChunkQueue) -> None:
    """Upload as many bytes as the large chunk has, from an iterable, and send the reference."""

    async def source() -> AsyncIterator[bytes]:
        piece = os.urandom(1_000_000)
        for _ in range(LARGE_BYTES // len(piece)):
            yield piece

    async with open_hand_over(queue=queue) as hand_over:
        await writer.send_chunk(await hand_over.upload(writer, source()))


async def download_large(queue: ChunkQueue) -> None:
    """Download the object that was handed over, block by block."""
    async with (
        open_hand_over(queue=queue) as hand_over,
        open_reader("handed", queue=queue, value_type=ObjectReference) as reader,
    ):
        (reference,) = await reader.collect()
        size = 0
        async for block in hand_over.download("handed", reference):
            size += len(block)
    assert size == LARGE_BYTES


def peak_mib() -> int:
    """Return the peak memory of this process; Linux only."""
    # Not getrusage: its peak includes the time before the program was loaded, when the process was
    # a copy of its parent.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if "VmHWM" in line)


async def read_through(stream: StreamId, queue: ChunkQueue) -> None:
    """Read a stream to its end, and check that it is complete."""
    size = chunks = 0
    async with open_reader(stream, queue=queue) as reader:
        async for event in reader:
            if isinstance(event, Chunk):
                chunks += 1
                size += len(event.data)
    assert (chunks, size) in ((1, LARGE_BYTES), (SMALL_CHUNKS, SMALL_CHUNKS * len(TEXT)))


def measure_memory() -> None:
    """Print peaks of memory, each measured in a process of its own."""
    print(f"one chunk of {LARGE_BYTES // 10**6} MB, and {SMALL_CHUNKS} small ones; MiB, seconds")
    for what in (
        *("write-large", "read-large", "hand-over-large", "download-large"),
        *("write-small", "read-small"),
    ):
        answer = subprocess.run(
            [sys.executable, "-m", "benchmarks.s3sns", "--measure", what],
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(answer.stdout.splitlines()[-1])
        print(
            f"{what:16} peak {found['peak']:5} of which {found['base']:4} before the start, "
            f"{found['seconds']:6.1f} s"
        )


def main() -> None:
    """Run everything, or one measurement of memory in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=500, help="chunks for each row")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        asyncio.run(measure_process(arguments.measure))
        return
    embedded = S3SnsDriver.embedded(S3SnsSettings())
    if embedded is None:
        sys.exit("unset STREAMQ_S3SNS_BUCKET: the benchmark must not cost money")
    with embedded as variables:
        os.environ.update(variables)
        asyncio.run(compare(arguments.chunks))
        asyncio.run(compare_late_reading(arguments.chunks))
        measure_memory()


if __name__ == "__main__":
    main()
