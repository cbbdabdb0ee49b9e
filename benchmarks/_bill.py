"""Counts the cost of a stream in Temporal: history events, history bytes and billable actions.

The rules are those of https://docs.temporal.io/cloud/actions, as far as a history shows them;
``docs/cost.md`` lists them. Heartbeats, queries and rejected updates are not in a history. They
come from the counter ``action`` of Temporal's server for each namespace: :class:`MeteredServer`.
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from streamq.devserver import TemporalDevServer, free_port

_ONE_ACTION = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: "workflow start",
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED: "child workflow",
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activity",
    EventType.EVENT_TYPE_TIMER_STARTED: "timer",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signal",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "update",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes",
}
_MAX_LOCAL_RETRIES = 100
_PUBLISHING_SECONDS = 1.5
_METRIC = re.compile(r'^action\{action_type="(\w+)",namespace="default",.*\} ([\d.e+]+)$', re.M)


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of one stream, over all runs of all workflows involved.

    Attributes:
        events: Events in their histories.
        bytes: Size of their histories, as the server reports it.
        actions: Billable actions that a history shows, without heartbeats.
        by_kind: Those actions by kind.
    """

    events: int = 0
    bytes: int = 0
    actions: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)


def actions_in(events: Sequence[HistoryEvent]) -> Counter[str]:
    """Return the billable actions that one run's history shows, by kind.

    A signal counts where it is received, and a child's start in the child's own history, so that
    all histories together count each once.
    """
    found: Counter[str] = Counter()
    marked: set[int] = set()
    for event in events:
        kind = event.event_type
        if kind in _ONE_ACTION:
            found[_ONE_ACTION[kind]] += 1
        elif kind == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            found["activity retry"] += event.activity_task_started_event_attributes.attempt - 1
        elif kind == EventType.EVENT_TYPE_MARKER_RECORDED:
            marked.add(event.marker_recorded_event_attributes.workflow_task_completed_event_id)
        elif kind == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            metering = event.workflow_task_completed_event_attributes.metering_metadata
            retries = metering.nonfirst_local_activity_execution_attempts
            found["local activity retry"] += min(retries, _MAX_LOCAL_RETRIES)
    found["markers of a workflow task"] = len(marked)
    found["workflow task heartbeat"] = _task_heartbeats(events)
    return +found


def _task_heartbeats(events: Sequence[HistoryEvent]) -> int:
    """Count the workflow tasks that were prolonged: followed by another task without a cause.

    An update causes a workflow task without an event; the task that accepts it shows this.
    """
    found, completed, caused, uncaused = 0, 0, True, False
    for event in events:
        kind = event.event_type
        if kind == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            completed, caused = event.event_id, False
        elif kind == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
            uncaused = not caused
            found += uncaused
            caused = True
        else:
            if kind == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                found -= uncaused
                uncaused = False
            caused = caused or _task_of(event) != completed
    return found


def _task_of(event: HistoryEvent) -> int:
    """Return the workflow task whose commands caused the event; 0 if it has another cause."""
    attributes = getattr(event, event.WhichOneof("attributes") or "", None)
    return int(getattr(attributes, "workflow_task_completed_event_id", 0))


async def read_bill(client: Client, workflow_ids: Iterable[str]) -> Bill:
    """Sum up every run of these workflows and of the children that they started."""
    events = size = 0
    by_kind: Counter[str] = Counter()
    waiting: list[tuple[str, str | None]] = [
        (workflow_id, await _first_run(client, workflow_id)) for workflow_id in workflow_ids
    ]
    seen: set[tuple[str, str | None]] = set()
    while waiting:
        run = waiting.pop()
        if run in seen:
            continue
        seen.add(run)
        handle = client.get_workflow_handle(run[0], run_id=run[1])
        history = (await handle.fetch_history()).events
        description = await handle.describe()
        events += len(history)
        size += description.raw_description.workflow_execution_info.history_size_bytes
        by_kind += actions_in(history)
        for event in history:
            if event.HasField("child_workflow_execution_started_event_attributes"):
                child = event.child_workflow_execution_started_event_attributes.workflow_execution
                waiting.append((child.workflow_id, child.run_id))
            if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                following = event.workflow_execution_continued_as_new_event_attributes
                waiting.append((run[0], following.new_execution_run_id))
    return Bill(events, size, by_kind.total(), by_kind)


async def _first_run(client: Client, workflow_id: str) -> str:
    events = (await client.get_workflow_handle(workflow_id).fetch_history()).events
    return events[0].workflow_execution_started_event_attributes.first_execution_run_id


class MeteredServer(TemporalDevServer):
    """A dev server that reports the number of actions it has counted."""

    _metrics_port = 0

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        self._metrics_port = free_port()
        return [*super().command(data_dir), "--metrics-port", str(self._metrics_port)]

    async def actions(self) -> Counter[str]:
        """Return the actions of the namespace so far, by the server's name for them.

        Takes more than a second, because the server publishes its counters once a second.
        """
        await asyncio.sleep(_PUBLISHING_SECONDS)
        address = f"http://127.0.0.1:{self._metrics_port}/metrics"

        def fetch() -> str:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return str(answer.read().decode())

        found: Counter[str] = Counter()
        for name, value in _METRIC.findall(await asyncio.to_thread(fetch)):
            found[name] += round(float(value))
        return found
