"""Saved histories: a new version must go on with what an older one began."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from streamq.temporal import StreamqPlugin
from streamq.temporal._follower import Follower

from .changed import CHANGED
from .followers import Continues, Follows
from .renew_histories import DIRECTORY, SCENARIOS

SAVED = sorted(DIRECTORY.glob("*.json"))
SECOND = timedelta(seconds=1)


def load(path: Path) -> WorkflowHistory:
    history = json.loads(path.read_text())
    started = history["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], history)


def replayer() -> Replayer:
    return Replayer(workflows=[Follows, Continues], plugins=[StreamqPlugin()])


def test_every_scenario_is_saved() -> None:
    """A history that is not there proves nothing."""
    assert {path.stem.rpartition("-")[0] for path in SAVED} == set(SCENARIOS)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
async def test_saved_histories_replay(path: Path) -> None:
    """Workflows that run while a worker is deployed go on with the new code."""
    await replayer().replay_workflow(load(path))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
async def test_an_incompatible_change_is_noticed(path: Path) -> None:
    """A replay that accepts anything would let a change through that stops running workflows."""
    changed = Replayer(workflows=CHANGED)
    with pytest.raises(NondeterminismError):
        await changed.replay_workflow(load(path))


@pytest.mark.parametrize("name", ["follow-activity-1", "continue-activity-2", "stream-poll-1"])
async def test_a_change_of_the_engine_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is shared by all that follow a stream, and its commands are in their histories."""
    polls = Follower._poll

    async def polls_twice(self: Follower, over: bool) -> Any:
        await workflow.execute_activity("news", start_to_close_timeout=SECOND)
        return await polls(self, over)

    monkeypatch.setattr(Follower, "_poll", polls_twice)
    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(load(DIRECTORY / f"{name}.json"))
