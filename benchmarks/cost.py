"""Measures the latency and the Temporal cost of reading an activity's chunks, every way in one run.

    python -m benchmarks.cost                    # starts its own Temporal and Valkey; eight minutes
    python -m benchmarks.cost --stock            # with the dev server's own defaults (50 ms steps)
    python -m benchmarks.cost --only local --only "Workflow Streams"
    python -m benchmarks.cost --delays           # only the delays of signals, updates, cancellation

The load is 1,000 chunks of 100 bytes at 200 a second, stamped when the activity sends them.
``p50``, ``p99`` and ``first`` are ages on arrival, in ms: in the workflow for streamq's poll, local
and signal and for the naive pattern; at a reader outside for delivery ``none`` and for Workflow
Streams, whose workflows do not read. ``start`` is the time from the request for the workflow to the
sending of the first chunk; it and ``first`` are medians of many short streams for streamq with one
reader.
Events, bytes and actions are those of all workflows and runs involved. Heartbeats and queries are
not in a history; they are the server's own count. ``docs/cost.md`` has the rules.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median

from rich.console import Console
from rich.table import Table
from temporalio.client import Client

from benchmarks._bill import Bill, MeteredServer, read_bill
from benchmarks._contenders import (
    Contender,
    Load,
    Outcome,
    Stage,
    follow,
    generic,
    popping,
    round_trip_ms,
    signalled,
    stage,
    workflow_streams,
)
from benchmarks._stamp import CHUNK_BYTES
from benchmarks._stats import percentile
from benchmarks.delays import BOUND_MS, IDLE, Delay, Interrupted, measure_delays
from streamq import load_settings, open_queue
from streamq.devserver import FAST
from streamq_redis.embedded import EmbeddedRedis

_UNSEEN = {"grpc_RecordActivityTaskHeartbeat": "heartbeats", "grpc_QueryWorkflow": "queries"}
_SHORT = Load(chunks=10, rate=200)
_SHORT_ROUNDS = 15
_MANY = Load(chunks=200, rate=10)  # as much as one process can deliver to 1,000 readers

NONE, POLL_0, POLL_100 = "none", "poll, 0 ms", "poll, 100 ms"
LOCAL_20, LOCAL_100, SIGNAL_100 = "local, 20 ms", "local, 100 ms", "signal, 100 ms"
WS_QUICKEST, NAIVE = "Workflow Streams, quickest", "one poll per chunk"

_CONTENDERS: Mapping[str, Contender] = {
    NONE: generic(delivery="none", summary=False),
    POLL_0: follow("activity", 0),
    POLL_100: follow("activity", 100),
    LOCAL_20: follow("local", 20),
    LOCAL_100: follow("local", 100),
    SIGNAL_100: signalled(100),
    "Workflow Streams, default": workflow_streams(),
    "Workflow Streams, 100 ms": workflow_streams(batch_ms=100),
    WS_QUICKEST: workflow_streams(flush_each=True, cooldown_ms=0),
    NAIVE: popping,
}
_PROMPT = (NONE, POLL_0, POLL_100, LOCAL_20, LOCAL_100, SIGNAL_100, NAIVE)
_WITH_READERS = (
    (NONE, 10, Load()),
    (POLL_100, 10, Load()),
    (LOCAL_100, 10, Load()),
    (SIGNAL_100, 10, Load()),
    ("Workflow Streams, 100 ms", 10, Load()),
    (WS_QUICKEST, 10, Load()),
    (NONE, 1_000, _MANY),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table."""

    contender: str
    readers: int
    rate: float
    p50_ms: float
    p99_ms: float
    first_ms: float
    start_ms: float
    events: float
    actions: float
    heartbeats: int
    queries: int
    bytes_per_byte: float
    complete: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise, and whether this run met it."""

    what: str
    limit: float
    found: float
    met: bool


async def measure(
    server: MeteredServer, stage: Stage, name: str, readers: int, load: Load
) -> Measured:
    """Run one contender; events and actions are per 1,000 chunks."""
    before = await server.actions()
    outcome: Outcome = await _CONTENDERS[name](stage, load, readers)
    counted = await server.actions() - before
    bill: Bill = await read_bill(stage.client, outcome.workflow_ids)
    unseen = {label: counted[name] for name, label in _UNSEEN.items()}
    return Measured(
        contender=name,
        readers=readers,
        rate=load.rate,
        p50_ms=percentile(outcome.ages, 0.5),
        p99_ms=percentile(outcome.ages, 0.99),
        first_ms=outcome.first_ms,
        start_ms=outcome.start_ms,
        events=bill.events,
        actions=bill.actions,
        bytes_per_byte=bill.bytes / (load.chunks * CHUNK_BYTES),
        complete=outcome.complete,
        consumers=outcome.consumers,
        heartbeats=unseen["heartbeats"],
        queries=unseen["queries"],
    )


async def beginnings(where: Stage, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return the medians of the first chunk's age and of the producer's start, in ms.

    One stream has only one first chunk, so many short ones are run, in alternating ways.
    """
    found: dict[str, list[Outcome]] = {name: [] for name in names}
    for _ in range(_SHORT_ROUNDS):
        for name in names:
            found[name].append(await _CONTENDERS[name](where, _SHORT, 1))
    return {
        name: (median(o.first_ms for o in outcomes), median(o.start_ms for o in outcomes))
        for name, outcomes in found.items()
    }


def chosen(only: list[str], *, one_reader: bool) -> list[tuple[str, int, Load]]:
    """Return the contenders to run, with their readers."""
    jobs = [(name, 1, Load()) for name in _CONTENDERS]
    if not one_reader:
        jobs += _WITH_READERS
    return [job for job in jobs if not only or any(part in job[0] for part in only)]


async def run(
    server: MeteredServer, jobs: list[tuple[str, int, Load]], *, delays: bool
) -> tuple[float, list[Measured], list[Delay]]:
    """Measure everything, one after the other, with the round trip of an empty activity."""
    settings = load_settings(backend="redis")
    client = await Client.connect(server.address)
    trips: list[float] = []
    rows: list[Measured] = []
    async with (
        open_queue(settings) as queue,
        stage(client, queue, settings, workflows=[Interrupted]) as where,
    ):
        trips.append(await round_trip_ms(client))  # warms up
        for name, readers, load in jobs:
            trips.append(await round_trip_ms(client))
            rows.append(await measure(server, where, name, readers, load))
            print(f"{name}, {readers} readers: done", file=sys.stderr)
        measured = {row.contender for row in rows}
        first = await beginnings(where, [name for name in _PROMPT if name in measured])
        waits = await measure_delays(where) if delays else []
    rows = [
        replace(row, first_ms=first[row.contender][0], start_ms=first[row.contender][1])
        if row.readers == 1 and row.contender in first
        else row
        for row in rows
    ]
    return percentile(trips, 0.5), rows, waits


def bars(trip_ms: float, rows: list[Measured], delays: list[Delay]) -> list[Bar]:
    """Compare the lines with one reader, as far as they were measured, with the promises."""
    one = {row.contender: row for row in rows if row.readers == 1}
    found: list[Bar] = []

    def at_most(what: str, limit: float, value: float) -> None:
        found.append(Bar(what, limit, value, value <= limit))

    for name, events in ((POLL_100, 270), (LOCAL_100, 120), (LOCAL_20, 275)):
        if name in one:
            at_most(f"{name}: history events", events, one[name].events)
    if POLL_100 in one:
        at_most(f"{POLL_100}: billable actions", 50, one[POLL_100].actions)
        at_most(f"{POLL_100}: history bytes per byte", 1.8, one[POLL_100].bytes_per_byte)
    if LOCAL_20 in one:
        at_most(f"{LOCAL_20}: p50 ms", 20, one[LOCAL_20].p50_ms)
    for name, window in ((POLL_100, 100), (LOCAL_100, 100), (SIGNAL_100, 100), (LOCAL_20, 20)):
        if name in one:
            limit = window / 2 + 2 * trip_ms
            at_most(f"{name}: p50 ms, half a window and two round trips", limit, one[name].p50_ms)
    if POLL_0 in one:
        for name in (POLL_100, LOCAL_20, LOCAL_100):
            if name in one:
                what = f"{name}: first chunk ms, 1.3 x that of window 0"
                at_most(what, 1.3 * one[POLL_0].first_ms, one[name].first_ms)
    if NAIVE in one:  # its producer is an ordinary activity
        for name in (NONE, POLL_100, LOCAL_20, LOCAL_100):
            if name in one:
                what = f"{name}: start ms, that without streamq and a round trip"
                at_most(what, one[NAIVE].start_ms + trip_ms, one[name].start_ms)
    if WS_QUICKEST in one:
        quickest = one[WS_QUICKEST]
        for name in (POLL_100, LOCAL_100, LOCAL_20):
            if name in one:
                what = f"{name}: history events, an eighth of {WS_QUICKEST}"
                at_most(what, quickest.events / 8, one[name].events)
        if LOCAL_20 in one:
            what = f"{LOCAL_20}: p50 ms, below that of {WS_QUICKEST}"
            at_most(what, quickest.p50_ms, one[LOCAL_20].p50_ms)
    for each in delays:
        if each.way != IDLE:
            at_most(f"{each.way}: {each.kind} ms, longest delay", BOUND_MS, each.longest_ms)
    return found


def show(
    title: str, trip_ms: float, rows: list[Measured], delays: list[Delay], promises: list[Bar]
) -> None:
    """Print the measurements and the promises."""
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    columns = ("readers", "p50", "p99", "first", "start", "events", "actions", "+ heartbeats")
    for column in (*columns, "+ queries", "bytes/byte", "complete"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.contender if row.rate == Load().rate else f"{row.contender} ({row.rate:g}/s)",
            f"{row.readers:,}",
            *(f"{value:,.1f}" for value in (row.p50_ms, row.p99_ms, row.first_ms, row.start_ms)),
            *(f"{value:,}" for value in (row.events, row.actions, row.heartbeats, row.queries)),
            f"{row.bytes_per_byte:.2f}",
            f"{row.complete} of {row.consumers}",
        )
    waits = Table(title="age of signals, updates and cancellation, ms", title_justify="left")
    for column in ("way", "what"):
        waits.add_column(column)
    for column in ("count", "p50", "p99", "longest"):
        waits.add_column(column, justify="right")
    for each in delays:
        ages = (each.p50_ms, each.p99_ms, each.longest_ms)
        waits.add_row(each.way, each.kind, f"{each.count:,}", *(f"{age:,.1f}" for age in ages))
    kept = Table(title="promised", title_justify="left")
    kept.add_column("what")
    for column in ("at most", "found", "met"):
        kept.add_column(column, justify="right")
    for bar in promises:
        met = "yes" if bar.met else "[bold red]no[/]"
        kept.add_row(bar.what, f"{bar.limit:,.1f}", f"{bar.found:,.1f}", met)
    console = Console()
    console = Console(width=console.width if console.is_terminal else 140)
    if rows:
        console.print(table)
    console.print(f"an empty activity took {trip_ms:.1f} ms")
    if delays:
        console.print(waits)
    console.print(kept)


def main() -> int:
    """Run the benchmark; exit code 1 if a promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stock", action="store_true", help="use the dev server's own defaults")
    parser.add_argument("--only", action="append", default=[], help="ways whose name contains this")
    parser.add_argument("--one-reader", action="store_true", help="skip runs with many readers")
    parser.add_argument(
        "--delays",
        action="store_true",
        help="measure only the delays of signals, updates and cancellation",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    with (
        MeteredServer(dynamic_config={} if args.stock else FAST) as server,
        EmbeddedRedis() as redis,
    ):
        os.environ["STREAMQ_REDIS_URL"] = redis.url
        jobs = [] if args.delays else chosen(args.only, one_reader=args.one_reader)
        delays = args.delays or not args.only
        trip_ms, rows, waits = asyncio.run(run(server, jobs, delays=delays))
    # The promises do not apply to the 50 ms steps of the server's defaults.
    promises = [] if args.stock else bars(trip_ms, rows, waits)
    title = f"1,000 chunks of 100 bytes, {'stock' if args.stock else 'tuned'} dev server"
    if args.json:
        found = {"title": title, "round_trip_ms": trip_ms, "load": os.getloadavg()}
        lines = {
            "rows": [asdict(row) for row in rows],
            "delays": [asdict(each) for each in waits],
            "bars": [asdict(bar) for bar in promises],
        }
        print(json.dumps(found | lines))
    else:
        show(title, trip_ms, rows, waits, promises)
    return 0 if all(bar.met for bar in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
