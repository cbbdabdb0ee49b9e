"""Tests that local polls never keep the workflow task open longer than their budget."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from streamq.temporal import POLL_ACTIVITY
from streamq.temporal.activities._poll_request import PollRequest, PollResult
from streamq.temporal.workflow._poll_options import PollOptions
from streamq.temporal.workflow._poller import LOCAL_BUDGET_MS, Poller


@workflow.defn(sandboxed=False)
class PollsLocally:
    """Polls a stream that never ends."""

    @workflow.run
    async def run(self, window_seconds: float, polls: int) -> None:
        follower = Poller("stream", PollOptions(polling="local", window_seconds=window_seconds))
        for _ in range(polls):
            await follower.poll()


class ScriptedPolls:
    """Stands for ``streamq.poll``: returns at once, and tells how long it took.

    Args:
        took_ms: What each local poll tells, in turn, again and again.
    """

    def __init__(self, *took_ms: int) -> None:
        self._took_ms = itertools.cycle(took_ms)
        self._clock_ms = 1_000
        self.waits_ms: list[list[int]] = []  # of local polls, by the regular poll before them
        self.took_ms: list[list[int]] = []

    @activity.defn(name=POLL_ACTIVITY)
    async def poll(self, request: PollRequest) -> PollResult:
        took = 0
        if activity.info().is_local:
            took = next(self._took_ms)
            self.waits_ms[-1].append(round(request.max_wait_seconds * 1_000))
            self.took_ms[-1].append(took)
        else:
            self.waits_ms.append([])
            self.took_ms.append([])
        self._clock_ms += took
        return PollResult("cursor", False, count=1, elapsed_ms=took, clock_ms=self._clock_ms)


def markers_by_task(events: list[HistoryEvent]) -> list[int]:
    """Return how many local polls each workflow task recorded that recorded any."""
    tasks = [
        event.marker_recorded_event_attributes.workflow_task_completed_event_id
        for event in events
        if event.HasField("marker_recorded_event_attributes")
    ]
    return [len(list(group)) for _, group in itertools.groupby(tasks)]


@pytest.mark.parametrize(
    ("window_ms", "took_ms", "between"),
    [
        (20, [20], 20),
        (100, [100], 4),
        (100, [30, 100], 6),
        (200, [200], 2),
        (100, [900], 1),  # a worker that is overloaded: no second one
        (LOCAL_BUDGET_MS, [1], 0),
    ],
)
async def test_local_polls_stay_within_their_budget(
    client: Client, task_queue: str, window_ms: int, took_ms: list[int], between: int
) -> None:
    """Signals, updates and cancellation wait for the workflow task: the stated bound must hold."""
    polls = ScriptedPolls(*took_ms)
    rounds = 3
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[PollsLocally],
        activities=[polls.poll],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle: Any = await client.start_workflow(
            PollsLocally.run,
            args=[window_ms / 1_000, rounds * (between + 1)],
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            task_timeout=timedelta(seconds=60),
        )
        await asyncio.wait_for(handle.result(), 30)
        history = await handle.fetch_history()
    assert [len(each) for each in polls.waits_ms] == [between] * rounds
    for waits, took in zip(polls.waits_ms, polls.took_ms, strict=True):
        spent = 0
        for wait, each in zip(waits, took, strict=True):
            assert window_ms <= wait <= LOCAL_BUDGET_MS - spent
            spent += each
    # One workflow task for each round: none is prolonged, and a regular poll closes it.
    assert markers_by_task(list(history.events)) == [between] * rounds * bool(between)
