"""Explores where an attempt that writes a task's log may be stopped: the next one continues it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from streamq import Chunk, Encoding, Event, Reset, Seal, SealState
from streamq.a2a import ArtifactNote, StatusNote
from streamq.a2a._entries import TOLD_TOPIC, Told, status_json
from streamq.a2a.server._fold import TaskFold
from streamq.a2a.worker._merge import Merge


def _text(offset: int, text: str) -> Event:
    return Chunk(offset, 1, offset - 1, Encoding.TEXT, text.encode())


def _value(offset: int, value: StatusNote | ArtifactNote) -> Event:
    data = json.dumps(dataclasses.asdict(value)).encode()
    return Chunk(offset, 1, offset - 1, Encoding.JSON, data)


_MESSAGE = {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "go"}]}
_STORY: list[tuple[str, int, Event | Told]] = [
    (TOLD_TOPIC, 1, Told(message=_MESSAGE)),
    (TOLD_TOPIC, 2, Told(follow="left", artifact={"name": "Left"})),
    ("left", 1, _text(1, "a")),
    ("default", 1, _value(1, ArtifactNote(name="Main"))),
    ("default", 2, _text(2, "x")),
    ("left", 2, _text(2, "b")),
    ("default", 3, _value(3, StatusNote("half"))),
    ("left", 3, Reset(3, 2)),
    (TOLD_TOPIC, 3, Told(status=status_json("INPUT_REQUIRED", "2026-01-01T00:00:00Z"))),
    ("left", 4, _text(4, "c")),
    (TOLD_TOPIC, 4, Told(message=_MESSAGE | {"messageId": "2"})),
    ("left", 5, Seal(5, 2, SealState.END)),
    ("default", 4, _text(4, "y")),
    (
        TOLD_TOPIC,
        5,
        Told(parts=[{"text": "whole"}], artifact={"artifactId": "sum", "name": "Sum"}),
    ),
    (
        TOLD_TOPIC,
        6,
        Told(status=status_json("COMPLETED", "2026-01-01T00:00:00Z"), is_last=True),
    ),
]


def _write(merge: Merge) -> list[dict[str, Any]]:
    """Give a machine the whole story, as an attempt does that reads every stream anew."""
    entries: list[dict[str, Any]] = []
    for topic, offset, what in _STORY:
        if not isinstance(what, Told):
            entries += merge.take(topic, what, now="2026-01-01T00:00:00Z")
        elif offset > merge.offset(TOLD_TOPIC):
            entries += merge.tell(offset, what)
    return entries


WHOLE = _write(Merge("task", "context"))


@pytest.mark.parametrize("stopped", range(len(WHOLE) + 1))
def test_the_next_attempt_continues_the_log_wherever_the_first_was_stopped(stopped: int) -> None:
    """A worker that dies between two entries leaves neither a gap nor a repeat."""
    merge = Merge("task", "context")
    for entry in WHOLE[:stopped]:
        merge.restore(entry)
    rest = [] if merge.is_ended else _write(merge)
    assert WHOLE[:stopped] + rest == WHOLE


def test_numbers_are_dense_and_the_log_ends_with_the_task() -> None:
    """Clients compare numbers to find out whether they have missed something."""
    numbers = [each["g"] for each in WHOLE if "g" in each]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [bool(each.get("end")) for each in WHOLE].index(True) == len(WHOLE) - 1


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_a_snapshot_and_what_follows_it_are_the_whole_task(cut: int) -> None:
    """Whoever folds the log in two parts, or has a copy of the first one, gets the same task."""
    whole, first = TaskFold("task", "context"), TaskFold("task", "context")
    for entry in WHOLE:
        whole.apply(entry)
    for entry in WHOLE[:cut]:
        first.apply(entry)
    second = first.copy()
    for entry in WHOLE[cut:]:
        second.apply(entry)
    assert second.snapshot() == whole.snapshot()
    texts = {
        each.artifact_id: "".join(part.text for part in each.parts)
        for each in whole.snapshot().artifacts
    }
    assert texts == {"left": "c", "default": "xy", "sum": "whole"}
