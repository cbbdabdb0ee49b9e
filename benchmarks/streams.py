"""Measures many live streams between one producer process and one reader process.

    python -m benchmarks.streams                              # Redis, 500 and 1,000 streams x 20/s
    python -m benchmarks.streams --streams 1 --per-second 200
    python -m benchmarks.streams --backend sqlite --streams 1000 --before HEAD~1

Contenders, in turn: streamq; naive, which is redis-py with one blocking XREAD for each stream and
pipelined XADD; and with ``--before`` an earlier version of streamq. redis-py has hiredis in all
of them. CPU counts from the first planned moment until the last chunk was stored, or has arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio

from benchmarks.measuring import (
    Arrivals,
    Contender,
    Generator,
    Load,
    Measure,
    Outcome,
    Stage,
    Task,
    checkout,
    play,
    preamble,
    repeat,
    report,
)
from streamq import Chunk, load_settings, open_queue, open_reader, open_writer
from streamq_redis.embedded import EmbeddedRedis

_MODULE = "benchmarks.streams"
_CARRIED_MS = 50.0
_ALSO = ("hdrhistogram", "hiredis")
_READ_AT_ONCE = 100
_BLOCK_MS = 10_000

_MEASURES = (
    Measure("p50", "p50, ms"),
    Measure("p99", "p99, ms"),
    Measure("max", "longest, ms"),
    Measure("emit_p99", "of that the generator's delay, p99, ms"),
    Measure("cpu", "CPU of both sides a chunk, us"),
    Measure("cpu_producer", "CPU of the producer a chunk, us"),
    Measure("cpu_reader", "CPU of the reader a chunk, us"),
    Measure("peak_producer", "peak memory of the producer, MiB"),
    Measure("peak_reader", "peak memory of the reader, MiB"),
    Measure("connections", "connections to the server"),
)


# -- streamq ---------------------------------------------------------------------------------------


async def write_streamq(task: Task, generator: Generator) -> None:
    """Send each chunk into the writer of its stream."""
    settings = load_settings()
    async with open_queue(settings) as queue, AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(open_writer(name, queue=queue, settings=settings))
            for name in _names(task)
        ]
        async for due in generator.chunks():
            for stream, chunk in due:
                await writers[stream].send_chunk(chunk)
        for writer in writers:
            await writer.flush()
        generator.done()


async def read_streamq(task: Task, arrivals: Arrivals) -> None:
    """Follow each stream with a reader of its own."""
    settings = load_settings()
    async with open_queue(settings) as queue, AsyncExitStack() as stack:

        async def follow(stream: int, name: str) -> None:
            reader = await stack.enter_async_context(
                open_reader(name, queue=queue, settings=settings)
            )
            async for event in reader:
                if isinstance(event, Chunk):
                    arrivals.take(stream, event.data)

        await _followed(arrivals, [follow(*each) for each in enumerate(_names(task))])


# -- naive -----------------------------------------------------------------------------------------


async def write_naive(task: Task, generator: Generator) -> None:
    """Add the chunks that are due by one pipeline."""
    names = _names(task)
    async with redis.asyncio.from_url(task.options["url"]) as client:
        await client.ping()
        async for due in generator.chunks():
            pipe = client.pipeline(transaction=False)
            for stream, chunk in due:
                pipe.xadd(names[stream], {"d": chunk})
            await pipe.execute()
        generator.done()


async def read_naive(task: Task, arrivals: Arrivals) -> None:
    """Block in one XREAD for each stream, each with a connection of its own."""
    names = _names(task)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        task.options["url"], max_connections=len(names) + 5, socket_timeout=60
    )
    async with redis.asyncio.Redis(connection_pool=pool) as client:

        async def follow(stream: int, name: str) -> None:
            last: Any = "0"
            while True:
                for _, entries in await _xread(client, name, last):
                    for _, fields in entries:
                        arrivals.take(stream, fields[b"d"])
                    last = entries[-1][0]

        await _followed(arrivals, [follow(*each) for each in enumerate(names)])
    await pool.disconnect()


async def _xread(client: redis.asyncio.Redis, name: str, last: Any) -> Any:
    found: Any = await client.xread({name: last}, count=_READ_AT_ONCE, block=_BLOCK_MS)
    # By version and protocol of redis-py: pairs, or a mapping to lists of pages.
    if isinstance(found, dict):
        return [(key, [each for page in pages for each in page]) for key, pages in found.items()]
    return found or ()


# -- both ------------------------------------------------------------------------------------------


def _names(task: Task) -> list[str]:
    return [f"bench-{task.run}/{stream}" for stream in range(task.load.streams)]


async def _followed(arrivals: Arrivals, followers: list[Any]) -> None:
    tasks = [asyncio.create_task(each) for each in followers]
    arrivals.ready()
    complete = asyncio.create_task(arrivals.complete())
    await asyncio.wait({complete, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    left = {complete, *tasks}
    while left:  # more than once, since redis-py may swallow a cancellation
        for each in left:
            each.cancel()
        _, left = await asyncio.wait(left, timeout=1.0)
    for each in tasks:
        if not each.cancelled() and (error := each.exception()) is not None:
            raise error


def _role(text: str) -> int:
    if Task.decode(text).options["way"] == "naive":
        return play(text, write_naive, read_naive)
    return play(text, write_streamq, read_streamq)


# -- the runs --------------------------------------------------------------------------------------


@asynccontextmanager
async def _connections(url: str) -> AsyncIterator[Stage]:
    async with redis.asyncio.from_url(url) as client:

        async def count() -> Mapping[str, float]:
            found: Any = await client.client_list()
            return {"connections": len(found) - 1}  # ours

        yield Stage(probe=count)


def _contenders(args: argparse.Namespace, server: dict[str, str], before: Path | None) -> list[Any]:
    module, environment = _MODULE, server
    url = server.get("STREAMQ_REDIS_URL", "")
    ours = {"way": "streamq"}
    found = [Contender("streamq", module, ours, environment=environment)]
    if url and not args.no_naive:
        found.append(Contender("naive", module, {"way": "naive", "url": url}))
    if before is not None:
        found.append(Contender("before", module, ours, before, environment))
    return found


async def _run(args: argparse.Namespace, server: dict[str, str], before: Path | None) -> bool:
    contenders = _contenders(args, server, before)
    is_met = True
    carried: dict[str, int] = {each.name: 0 for each in contenders}
    async with AsyncExitStack() as stack:
        stage = Stage()
        if url := server.get("STREAMQ_REDIS_URL"):
            stage = await stack.enter_async_context(_connections(url))
        for streams in args.streams:
            load = Load(streams, args.per_second, args.seconds)
            outcomes = await repeat(contenders, load, rounds=args.rounds, stage=stage)
            title = f"{load} on {args.backend}, {args.rounds} rounds of {args.seconds:g} s"
            is_met &= report(title, outcomes, _MEASURES, subject="streamq", as_json=args.json)
            _note_carried(carried, load, outcomes)
    if len(args.streams) > 1 and not args.json:
        found = ", ".join(f"{name} {most:,}" for name, most in carried.items())
        print(f"most streams of these with a p99 below {_CARRIED_MS:g} ms in every round: {found}")
    return is_met


def _note_carried(carried: dict[str, int], load: Load, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        found = outcome.figures("p99")
        if all(value is not None and value < _CARRIED_MS for value in found):
            carried[outcome.contender] = max(carried[outcome.contender], load.streams)


def main() -> int:
    """Run the benchmark; exit code 1 if a run had a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=["redis", "sqlite"], default="redis")
    parser.add_argument("--streams", type=int, nargs="+", default=[500, 1_000])
    parser.add_argument("--per-second", type=float, default=20.0, help="chunks of each stream")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="Redis to measure; by default the benchmark starts a Valkey")
    parser.add_argument("--before", help="an earlier version: a revision, or a checkout's folder")
    parser.add_argument("--no-naive", action="store_true", help="leave the naive contender out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        return _role(args.task)
    for line in preamble():
        print(line, file=sys.stderr if args.json else sys.stdout)
    with ExitStack() as stack:
        server = {"STREAMQ_BACKEND": args.backend}
        if args.backend == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            server["STREAMQ_SQLITE_PATH"] = os.path.join(folder, "streams.db")
        else:
            url = args.url or stack.enter_context(EmbeddedRedis()).url
            server["STREAMQ_REDIS_URL"] = url
        before = args.before and stack.enter_context(checkout(args.before, packages=_ALSO))
        return 0 if asyncio.run(_run(args, server, before)) else 1


if __name__ == "__main__":
    sys.exit(main())
