"""Measures how long signals, updates and cancellation wait for a workflow that follows a stream.

``benchmarks.cost`` runs this. A workflow follows a steady stream. Signals and updates arrive at
random moments and carry the time of their sending, so that the handler knows their age; short runs
are cancelled at random moments. For comparison, a second workflow runs the same producer and polls
nothing: its delays are those of the server, the machine and the SDK.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, is_cancelled_exception

from benchmarks._contenders import (
    HEARTBEAT_SECONDS,
    TASK_QUEUE,
    Load,
    Polling,
    Stage,
    tokens,
)
from benchmarks._stats import percentile
from streamq.temporal import stream_activity

BOUND_MS = 500.0
"""The stated bound for a workflow that polls locally."""

Following: TypeAlias = Polling | Literal["nothing"]
Kind: TypeAlias = Literal["signal", "update", "cancel"]

IDLE = "polls nothing"
_WAYS: dict[str, tuple[Following, float]] = {
    IDLE: ("nothing", 0),
    "poll, 100 ms": ("activity", 100),
    "local, 20 ms": ("local", 20),
    "local, 100 ms": ("local", 100),
}
_ROUNDS = 3
_LOAD = Load(chunks=100_000, rate=200)  # too long to be followed to its end
_SECONDS = 9.0  # of signals and updates in a round
_MEAN_GAP = 0.06
_SETTLING_SECONDS = 0.5  # enough for the workflow to follow the stream
_CANCELLED_BATCHES = 3  # in a round
_CANCELLED_TOGETHER = 4
_LONGEST_PAUSE = 1.1  # two turns of local polls and a regular one

_HOUR = timedelta(hours=1)
_HEARTBEAT = timedelta(seconds=HEARTBEAT_SECONDS)


@dataclass(slots=True)
class _Seen:
    ages: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, kind: Kind, sent_ns: int) -> None:
        self.ages[kind].append((time.monotonic_ns() - sent_ns) / 1e6)


_SEEN: defaultdict[str, _Seen] = defaultdict(_Seen)
_CANCELLED_NS: dict[str, int] = {}  # time of the cancellation request, by the workflow's id


@dataclass(frozen=True, slots=True)
class Delay:
    """One line: the ages of signals, updates or cancellations when the workflow got them, in ms."""

    way: str
    kind: Kind
    count: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


@workflow.defn
class Interrupted:
    """Follows a stream, or only runs its producer, and records the ages of signals and updates."""

    @workflow.run
    async def run(self, following: Following, window_ms: float) -> None:
        """Run the producer until cancelled."""
        if following == "nothing":
            await self._wait()
        else:
            await self._follow(following, window_ms)

    async def _wait(self) -> None:
        producer = workflow.start_activity(
            "tokens",
            _LOAD,
            start_to_close_timeout=_HOUR,
            heartbeat_timeout=_HEARTBEAT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        try:
            await workflow.wait([producer])
        except asyncio.CancelledError:
            self._note_cancelled()
            producer.cancel()
        await producer

    async def _follow(self, polling: Polling, window_ms: float) -> None:
        async with stream_activity(
            tokens,
            _LOAD,
            polling=polling,
            window=timedelta(milliseconds=window_ms),
            start_to_close_timeout=_HOUR,
            heartbeat_timeout=_HEARTBEAT,
        ) as stream:
            try:
                async for _ in stream:
                    pass
            except (asyncio.CancelledError, ActivityError) as exc:
                if is_cancelled_exception(exc):
                    self._note_cancelled()  # here, since leaving the block waits for the seal
                raise

    @workflow.signal
    def poke(self, sent_ns: int) -> None:
        """Record the age of a signal."""
        _SEEN[workflow.info().workflow_id].note("signal", sent_ns)

    @workflow.update
    def ask(self, sent_ns: int) -> None:
        """Record the age of an update."""
        _SEEN[workflow.info().workflow_id].note("update", sent_ns)

    def _note_cancelled(self) -> None:
        workflow_id = workflow.info().workflow_id
        _SEEN[workflow_id].note("cancel", _CANCELLED_NS.pop(workflow_id))


async def measure_delays(stage: Stage) -> list[Delay]:
    """Interrupt every way of following in turn; the stage must have :class:`Interrupted`."""
    found: dict[str, _Seen] = {way: _Seen() for way in _WAYS}
    for number in range(_ROUNDS):
        for way in _WAYS:
            taken = [await _interrupted(stage, way)]
            for _ in range(_CANCELLED_BATCHES):
                taken += await asyncio.gather(
                    *(_short(stage, way) for _ in range(_CANCELLED_TOGETHER))
                )
            for seen in taken:
                for kind, ages in seen.ages.items():
                    found[way].ages[kind] += ages
        print(f"delays, round {number + 1} of {_ROUNDS}: done", file=sys.stderr)
    return [
        Delay(way, kind, len(ages), percentile(ages, 0.5), percentile(ages, 0.99), max(ages))
        for way, seen in found.items()
        for kind, ages in seen.ages.items()
    ]


async def _interrupted(stage: Stage, way: str) -> _Seen:
    """Send signals and updates to one workflow, alternately and at random moments."""
    handle = await _start(stage, way)
    await asyncio.sleep(_SETTLING_SECONDS)
    until = time.monotonic() + _SECONDS
    async with asyncio.TaskGroup() as sending:
        while time.monotonic() < until:
            for send in (_signal, _update):
                await asyncio.sleep(random.uniform(0, 2 * _MEAN_GAP))
                sending.create_task(send(handle))
    return await _cancelled(handle)


async def _signal(handle: WorkflowHandle[Any, Any]) -> None:
    await handle.signal(Interrupted.poke, time.monotonic_ns())


async def _update(handle: WorkflowHandle[Any, Any]) -> None:
    await handle.execute_update(Interrupted.ask, time.monotonic_ns())


async def _short(stage: Stage, way: str) -> _Seen:
    """Run one workflow that is only cancelled."""
    handle = await _start(stage, way)
    await asyncio.sleep(_SETTLING_SECONDS)
    return await _cancelled(handle)


async def _cancelled(handle: WorkflowHandle[Any, Any]) -> _Seen:
    """Cancel a workflow at a random moment; return all that it has recorded."""
    await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE))
    _CANCELLED_NS[handle.id] = time.monotonic_ns()
    await handle.cancel()
    with suppress(WorkflowFailureError):
        await handle.result()
    return _SEEN.pop(handle.id)


async def _start(stage: Stage, way: str) -> WorkflowHandle[Any, Any]:
    return await stage.client.start_workflow(
        Interrupted.run,
        args=_WAYS[way],
        id=f"delays-{uuid.uuid4().hex}",
        task_queue=TASK_QUEUE,
    )
