"""Compares streamq on SQS with bare aioboto3, on one server in one run: latency and requests.

    python -m benchmarks.sqs                 # starts its own emulator
    python -m benchmarks.sqs --endpoint-url https://sqs.eu-central-1.amazonaws.com   # costs money

A producer sends 100-byte chunks at a steady rate into a FIFO queue. One reader receives and deletes
them, in the same process. Bare: SendMessage for each chunk, ReceiveMessage (ten at most,
waiting 20 s), DeleteMessageBatch. Rounds of both alternate. The client counts all requests,
including those that create, find and end a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aioboto3
from aiobotocore.client import AioBaseClient

from benchmarks._stamp import CHUNK_BYTES, age_ms, stamped
from benchmarks._stats import Row, compare, percentile, show
from streamq import Chunk, load_settings, open_queue, open_reader, open_writer
from streamq_aws.embedded import Ministack

_DOLLARS_PER_REQUEST = 0.5 / 1_000_000  # FIFO, us-east-1, beyond the first million a month
_KINDS = ("SendMessage", "ReceiveMessage", "DeleteMessage")


@dataclass
class Round:
    """Measurements of one round."""

    ages: list[float] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the requests of every client in this process, by operation."""
    counted: Counter[str] = Counter()
    original = AioBaseClient._make_api_call

    async def counts(self: Any, operation: str, params: Any) -> Any:
        counted[operation.removesuffix("Batch")] += 1
        return await original(self, operation, params)

    AioBaseClient._make_api_call = counts
    try:
        yield counted
    finally:
        AioBaseClient._make_api_call = original


async def paced(chunks: int, rate: float) -> AsyncIterator[str]:
    """Yield stamped chunks at a steady rate."""
    started = time.monotonic()
    for i in range(chunks):
        if rate:
            await asyncio.sleep(max(0.0, started + i / rate - time.monotonic()))
        yield stamped()


async def bare(chunks: int, rate: float) -> Round:
    """Send and receive with aioboto3 alone."""
    found = Round()
    async with aioboto3.Session().client("sqs") as sqs:
        with counting() as found.requests:
            made = await sqs.create_queue(
                QueueName=f"bench-{uuid.uuid4().hex}.fifo", Attributes={"FifoQueue": "true"}
            )
            url = made["QueueUrl"]

            async def send() -> None:
                number = 0
                async for chunk in paced(chunks, rate):
                    number += 1
                    await sqs.send_message(
                        QueueUrl=url,
                        MessageBody="x",
                        MessageGroupId="g",
                        MessageDeduplicationId=str(number),
                        MessageAttributes={
                            "c": {"DataType": "Binary", "BinaryValue": chunk.encode()}
                        },
                    )

            sending = asyncio.ensure_future(send())
            while len(found.ages) < chunks:
                answer = await sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=10,
                    WaitTimeSeconds=20,
                    MessageAttributeNames=["c"],
                )
                messages = answer.get("Messages", [])
                for each in messages:
                    found.ages.append(age_ms(each["MessageAttributes"]["c"]["BinaryValue"]))
                if messages:
                    await sqs.delete_message_batch(
                        QueueUrl=url,
                        Entries=[
                            {"Id": str(i), "ReceiptHandle": each["ReceiptHandle"]}
                            for i, each in enumerate(messages)
                        ],
                    )
            await sending
            await sqs.delete_queue(QueueUrl=url)
    return found


async def with_streamq(chunks: int, rate: float) -> Round:
    """Do the same with streamq."""
    settings = load_settings(backend="sqs")
    name, found = f"bench/{uuid.uuid4().hex}", Round()
    async with open_queue(settings) as writing, open_queue(settings) as reading:
        with counting() as found.requests:

            async def send() -> None:
                async with open_writer(name, queue=writing, settings=settings) as stream:
                    async for chunk in paced(chunks, rate):
                        await stream.send_chunk(chunk)

            sending = asyncio.ensure_future(send())
            async with open_reader(name, queue=reading, settings=settings) as reader:
                async for event in reader:
                    if isinstance(event, Chunk):
                        found.ages.append(age_ms(event.data))
            await sending
            await writing.delete(reader.stream)
    return found


def rows_of(rate: float, chunks: int, rounds: list[tuple[Round, Round]]) -> list[Row]:
    """Compare the rounds of one rate."""
    pace = f"{rate:g}/s" if rate else "at once"
    scale = 1_000 / chunks

    def both(what: str, value: Any) -> Row:
        return compare(
            f"{pace}: {what}", [value(b) for b, _ in rounds], [value(s) for _, s in rounds]
        )

    def of(kind: str) -> Any:
        return lambda each: max(scale * each.requests[kind], 0.001)

    def total(each: Round) -> float:
        return scale * each.requests.total()

    return [
        both("send to reader, median (ms)", lambda each: statistics.median(each.ages)),
        both("send to reader, 99 % (ms)", lambda each: percentile(each.ages, 0.99)),
        *(both(f"{kind} per 1,000 chunks", of(kind)) for kind in _KINDS),
        both("all requests per 1,000 chunks", total),
        both("US cents per 1,000 chunks", lambda each: 100 * _DOLLARS_PER_REQUEST * total(each)),
    ]


async def run(args: argparse.Namespace) -> list[Row]:
    """Measure every rate."""
    rows: list[Row] = []
    for rate in (20.0, 200.0, 0.0):
        chunks = min(args.chunks, int(rate * args.seconds)) if rate else args.chunks
        rounds = [
            (await bare(chunks, rate), await with_streamq(chunks, rate)) for _ in range(args.rounds)
        ]
        rows += rows_of(rate, chunks, rounds)
    return rows


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--endpoint-url", help="use this service and the usual credentials, not an emulator"
    )
    parser.add_argument("--chunks", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="longest round at a pace")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if args.endpoint_url:
            os.environ["AWS_ENDPOINT_URL"], where = args.endpoint_url, args.endpoint_url
        else:
            server = stack.enter_context(Ministack())
            os.environ.update(server.environment, STREAMQ_SQS_MAX_MESSAGE_BYTES="262144")
            where = "ministack"
        rows = asyncio.run(run(args))
    title = f"streamq on SQS (FIFO, {where}) beside aioboto3, {CHUNK_BYTES}-byte chunks"
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
