"""Measures how soon a cancelled workflow has stopped its producer, from a reader's point of view.

    python -m benchmarks.cancel                        # starts its own Temporal and Valkey
    python -m benchmarks.cancel --cancel-seconds 30    # with the SDK's own heartbeat throttle
    python -m benchmarks.cancel --push                 # the server pushes cancellations

A worker runs the generic workflow with its defaults; the producer streams for ever. The time is
measured from ``handle.cancel()``, at a random moment between heartbeats, to the CANCELLED seal at a
subscriber. It is compared with the time of one empty activity on the same server in the same run,
because cancellation needs a workflow task, a heartbeat and a round trip to the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks._stats import Row, percentile, show
from streamq import SealState, Settings, StreamWriter, load_settings, open_queue
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe
from streamq_redis.embedded import EmbeddedRedis

_TASK_QUEUE = "cancel"
_PUSH = {
    "frontend.WorkerCommandsEnabled": "true",
    "system.enableCancelActivityWorkerCommand": "true",
}
_ROUND_TRIPS = 20
_STEPS = 20  # allowance beyond the heartbeat interval, in round trips of an activity


@streaming_activity
async def chatter(stream: StreamWriter) -> None:
    """Stream for ever."""
    while True:
        await stream.send_chunk("word ")
        await asyncio.sleep(0.05)


@activity.defn
async def nothing() -> None:
    """Do nothing."""


@workflow.defn
class RoundTrips:
    """Empty activities, one after the other."""

    @workflow.run
    async def run(self) -> None:
        """Run them."""
        for _ in range(_ROUND_TRIPS):
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=10))


async def round_trip_ms(client: Client) -> float:
    """Return the mean time of an empty activity."""
    started = time.perf_counter()
    await client.execute_workflow(
        RoundTrips.run, id=f"empty-{uuid.uuid4().hex}", task_queue=_TASK_QUEUE
    )
    return (time.perf_counter() - started) * 1_000 / _ROUND_TRIPS


async def cancel_ms(client: Client, queue: ChunkQueue, settings: Settings, pause: float) -> float:
    """Start a producer, cancel it after a while, and return how long its seal took."""
    handle = await client.start_workflow(
        "streamq.Stream",
        {"activity": "chatter"},
        id=f"cancel-{uuid.uuid4().hex}",
        task_queue=_TASK_QUEUE,
    )
    async with subscribe(handle, queue=queue, settings=settings) as events:
        await anext(events)
        await asyncio.sleep(pause)
        started = time.perf_counter()
        await handle.cancel()
        async for _ in events:
            pass
        elapsed = (time.perf_counter() - started) * 1_000
        seal = events.seal
    if seal is None or seal.state is not SealState.CANCELLED:
        raise SystemExit(f"a cancelled producer ended with {seal}")
    try:
        await handle.result()
    except WorkflowFailureError:
        return elapsed
    raise SystemExit("a cancelled workflow succeeded")


async def run(address: str, rounds: int, together: int, settings: Settings) -> list[Row]:
    """Take all measurements; rounds of both alternate."""
    client = await Client.connect(address)
    empty: list[float] = []
    found: list[list[float]] = []
    # By default a heartbeat is sent every 8 s, so that longer pauses add nothing.
    longest = min(settings.cancel_seconds, 8.0)
    async with (
        open_queue(settings) as queue,
        Worker(
            client,
            task_queue=_TASK_QUEUE,
            activities=[chatter, nothing],
            workflows=[RoundTrips],
            workflow_runner=UnsandboxedWorkflowRunner(),
            plugins=[StreamqPlugin(queue, settings)],
        ),
    ):
        for _ in range(rounds):
            empty.append(await round_trip_ms(client))
            pauses = [random.uniform(longest, 2 * longest) for _ in range(together)]
            found.append(
                await asyncio.gather(*(cancel_ms(client, queue, settings, p) for p in pauses))
            )
    return [
        _row("cancel to CANCELLED at a reader, p50 ms", empty, found, 0.5),
        _row("cancel to CANCELLED at a reader, p95 ms", empty, found, 0.95, settings),
    ]


def _row(
    what: str,
    empty: list[float],
    found: list[list[float]],
    share: float,
    settings: Settings | None = None,
) -> Row:
    bare = statistics.median(empty)
    ours = percentile([each for every in found for each in every], share)
    ratios = [percentile(f, share) / e for f, e in zip(found, empty, strict=True)]
    spread = (min(ratios), max(ratios))
    if settings is None:
        return Row(what, bare, ours, spread)
    limit = settings.cancel_seconds * 1_000 + _STEPS * bare
    promised = f"<= {settings.cancel_seconds:g} s + {_STEPS} x bare"
    return Row(what, bare, ours, spread, promised, ours <= limit)


def main() -> int:
    """Run the benchmark; exit code 1 if the promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender")
    parser.add_argument("--together", type=int, default=20, help="workflows cancelled in a round")
    parser.add_argument("--cancel-seconds", type=float, help="STREAMQ_CANCEL_SECONDS")
    parser.add_argument("--stock", action="store_true", help="use the dev server's own defaults")
    parser.add_argument("--push", action="store_true", help="the server pushes cancellations")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    chosen: dict[str, Any] = {"backend": "redis"}
    if args.cancel_seconds is not None:
        chosen["cancel_seconds"] = args.cancel_seconds
    settings = load_settings(**chosen)
    dynamic_config = ({} if args.stock else dict(FAST)) | (_PUSH if args.push else {})
    with (
        TemporalDevServer(dynamic_config=dynamic_config) as temporal,
        EmbeddedRedis() as redis,
    ):
        os.environ["STREAMQ_REDIS_URL"] = redis.url
        rows = asyncio.run(run(temporal.address, args.rounds, args.together, settings))
    server = "the stock dev server" if args.stock else "a tuned dev server"
    if args.push:
        server += " that pushes cancellations"
    title = (
        f"Cancelling a producer, STREAMQ_CANCEL_SECONDS={settings.cancel_seconds:g}, on {server}; "
        f"bare is an empty activity; {args.rounds} rounds of {args.together}"
    )
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
