"""Tests that saved histories replay: a new version must continue what an older one began."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError
from tests.temporal.renew_histories import DIRECTORY, SCENARIOS
from tests.temporal.support.changed_workflows import CHANGED
from tests.temporal.support.following_workflows import Continues, Follows
from tests.temporal.support.receiving_workflows import Gateway

from streamq.temporal import StreamqPlugin
from streamq.temporal._versioned import VERSIONED
from streamq.temporal.generic._delivery import Relay
from streamq.temporal.workflow._inbox import StreamInbox
from streamq.temporal.workflow._poller import Poller
from streamq.temporal.workflow._producers import ChildProducer, ResumedProducer

SAVED = sorted(DIRECTORY.glob("*.json"))
SECOND = timedelta(seconds=1)
LATER_RUNS = {
    "streamq.Stream, poll": "stream-continued-2",
    "streamq.Stream, poll, failure": "stream-continued-failure-2",
    "streamq.Stream, poll, cancelled": "stream-continued-cancel-2",
    "resume_stream": "continued-activity-2",
    "resume_stream, local": "continued-local-2",
    "resume_stream, cancelled": "continued-cancel-2",
    "resume_stream, at the end": "continued-end-4",
    "resume_stream, producer terminated": "continued-gone-2",
    "StreamInbox": "receive-2",
}


def load(path: Path) -> WorkflowHistory:
    history = json.loads(path.read_text())
    started = history["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], history)


def type_name(workflow_type: type) -> str | None:
    return workflow._Definition.must_from_class(workflow_type).name


def type_of(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name


def only_of(history: WorkflowHistory, workflow_types: Iterable[type]) -> list[type]:
    """Return the workflows that a history has: a replayer imports all that it gets."""
    return [each for each in workflow_types if type_name(each) == type_of(history)]


async def replay(history: WorkflowHistory) -> None:
    workflow_types = only_of(history, (Follows, Continues, Gateway))
    await Replayer(workflows=workflow_types, plugins=[StreamqPlugin()]).replay_workflow(history)


def test_every_scenario_is_saved() -> None:
    """A missing history proves nothing."""
    assert {path.stem.rpartition("-")[0] for path in SAVED} == set(SCENARIOS)


def test_every_workflow_of_the_plugin_is_saved() -> None:
    """A generic workflow that is added later needs a history as well."""
    saved = {type_of(load(path)) for path in SAVED}
    assert {type_name(each) for each in VERSIONED} <= saved
    assert {type_name(each) for each in CHANGED} == saved


@pytest.mark.parametrize("name", LATER_RUNS.values(), ids=LATER_RUNS)
def test_later_runs_are_saved(name: str) -> None:
    """Runs after continue-as-new take other code paths than first runs."""
    first, later = (load(DIRECTORY / f"{name[:-1]}{number}.json") for number in (1, name[-1]))
    assert first.events[-1].HasField("workflow_execution_continued_as_new_event_attributes")
    begun = later.events[0].workflow_execution_started_event_attributes
    assert begun.continued_execution_run_id
    if "local" in name:
        kinds = [event.WhichOneof("attributes") for event in later.events]
        assert "marker_recorded_event_attributes" in kinds


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
async def test_saved_histories_replay(path: Path) -> None:
    """Workflows that run while a worker is deployed go on with the new code."""
    await replay(load(path))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
async def test_incompatible_change_is_noticed(path: Path) -> None:
    """A replay that accepts any change would let one through that stops running workflows."""
    history = load(path)
    changed = Replayer(workflows=only_of(history, CHANGED))
    with pytest.raises(NondeterminismError):
        await changed.replay_workflow(history)


@pytest.mark.parametrize(
    ("owner", "method", "name"),
    [
        (Poller, "_poll", "follow-activity-1"),
        (Poller, "_poll", "continue-activity-2"),
        (Poller, "_poll", "stream-poll-1"),
        (Poller, "_poll", "stream-continued-2"),
        (Poller, "_poll_locally", "follow-local-1"),
        (Poller, "_poll_locally", "continued-local-2"),
        (ChildProducer, "start", "continued-activity-1"),
        (ResumedProducer, "result", "continued-activity-3"),
        (ResumedProducer, "result", "stream-continued-2"),
        (ResumedProducer, "settle", "continued-cancel-2"),
        (ResumedProducer, "settle", "continued-gone-3"),
        (Relay, "finish", "stream-signal-1"),
        (StreamInbox, "__anext__", "receive-2"),
    ],
)
async def test_change_of_shared_code_is_noticed(
    owner: Any, method: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workflows that follow a stream share this code, and its commands are in histories."""
    unchanged = getattr(owner, method)

    async def does_more(self: Any, *args: Any, **kwargs: Any) -> Any:
        await workflow.execute_activity("news", start_to_close_timeout=SECOND)
        return await unchanged(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, does_more)
    with pytest.raises(NondeterminismError):
        await replay(load(DIRECTORY / f"{name}.json"))
