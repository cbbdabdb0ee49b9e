"""Turns the events of a task's streams into entries of its log: a pure machine, without I/O.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamq._errors import SerializationError
from streamq._events import Chunk, Event, Seal, SealState
from streamq.a2a._entries import (
    EMPTY_PART,
    TOLD_TOPIC,
    Json,
    Told,
    agent_message,
    state_of,
    status_json,
)
from streamq.a2a._parts import part_of
from streamq.a2a._values import ArtifactNote, StatusNote, read_value


@dataclass
class _Artifact:
    """The state of one artifact.

    Attributes:
        has_begun: Whether an update of it is in the log, and the next one may append.
        is_closed: Whether its last chunk is in the log.
        base: Name, description and metadata that the workflow gave it, for each attempt.
        note: The same that the activity sent, for the next update.
    """

    has_begun: bool = False
    is_closed: bool = False
    base: Json = field(default_factory=dict)
    note: Json = field(default_factory=dict)


class Merge:
    """Puts the events of several streams into the one order that every client sees.

    What it has put into the log already, it learns from the log (:meth:`restore`), so that the next
    attempt goes on without a gap or a repeat.

    Args:
        task_id: Id of the task.
        context_id: Its context.
    """

    def __init__(self, task_id: str, context_id: str) -> None:
        self._task_id, self._context_id = task_id, context_id
        self._generation = 0
        self._state = "SUBMITTED"
        self._offsets: dict[str, int] = {}
        self._artifacts: dict[str, _Artifact] = {}
        self.is_ended = False
        """Whether nothing more follows."""

    def offset(self, topic: str) -> int:
        """Return the offset of the newest event of a topic that was taken."""
        return self._offsets.get(topic, 0)

    @property
    def generation(self) -> int:
        """Number of the newest event that clients get, from 1; 0 before the first."""
        return self._generation

    @property
    def topics(self) -> list[str]:
        """The topics whose streams are artifacts."""
        return list(self._artifacts)

    def restore(self, entry: Mapping[str, Any]) -> None:
        """Learn from an entry that is in the log already."""
        if "at" in entry:
            topic, offset = entry["at"]
            self._offsets[topic] = offset
        self._generation = entry.get("g", self._generation)
        if "status" in entry:
            self._state = state_of(entry["status"])
        if "follow" in entry:
            self._artifacts.setdefault(entry["follow"], _Artifact(base=entry.get("base", {})))
        if "artifact" in entry:
            found = self._artifacts.setdefault(entry["artifact"]["artifactId"], _Artifact())
            found.note = {}
            found.has_begun, found.is_closed = True, bool(entry.get("last"))
        self.is_ended = self.is_ended or bool(entry.get("end"))

    def tell(self, offset: int, told: Told) -> Iterator[Json]:
        """Yield the entries for what the workflow tells."""
        at = [TOLD_TOPIC, offset]
        self._offsets[TOLD_TOPIC] = offset
        if told.follow is not None:
            artifact = self._artifacts.setdefault(told.follow, _Artifact())
            artifact.base = told.artifact or {}
            yield {"follow": told.follow, "base": artifact.base, "at": at}
        if told.parts is not None:
            found: Json = {**(told.artifact or {}), "parts": told.parts}
            yield self._event({"artifact": found, "last": True, "at": at})
        if told.message is not None:
            yield {"message": told.message, "at": at}
        if told.reply is not None:
            yield self._event({"reply": told.reply, "at": at})
        if told.is_last:
            if told.status is not None and state_of(told.status) == "COMPLETED":
                yield from self._close_all()
            last: Json = {"at": at, "end": True}
            self.is_ended = True
            yield self._status(told.status, last) if told.status is not None else last
        elif told.status is not None:
            yield self._status(told.status, {"at": at})

    def take(self, topic: str, event: Event, *, now: str) -> Iterator[Json]:
        """Yield the entries for an event of a topic's stream; none for one that was taken."""
        if event.offset <= self.offset(topic) or self.is_ended:
            return
        self._offsets[topic] = event.offset
        at = [topic, event.offset]
        artifact = self._artifacts.setdefault(topic, _Artifact())
        if isinstance(event, Chunk):
            data = _decoded(event)
            value = read_value(data)
            if isinstance(value, ArtifactNote):
                artifact.note |= _described(value)
                return
            if isinstance(value, StatusNote):
                told = agent_message(
                    value.text, f"{topic}-{event.offset}", self._task_id, self._context_id
                )
                yield self._status(status_json("WORKING", now, told), {"at": at})
                return
            if self._state == "SUBMITTED":
                yield self._status(status_json("WORKING", now), {})
            part = part_of(data if value is None else value)
            yield self._update(topic, part, {"at": at})
        elif isinstance(event, Seal):
            if event.state is SealState.END and not artifact.is_closed:
                yield from self._close(topic, {"at": at})
        else:
            artifact.has_begun = artifact.is_closed = False

    def _close_all(self) -> Iterator[Json]:
        for topic, artifact in self._artifacts.items():
            if artifact.has_begun and not artifact.is_closed:
                yield from self._close(topic, {})

    def _close(self, topic: str, entry: Json) -> Iterator[Json]:
        if self._state == "SUBMITTED":
            return  # nothing was ever sent
        yield self._update(topic, EMPTY_PART, {**entry, "last": True})
        self._artifacts[topic].is_closed = True

    def _update(self, topic: str, part: Json, entry: Json) -> Json:
        artifact = self._artifacts[topic]
        found: Json = {"artifactId": topic, "parts": [part]}
        if not artifact.has_begun:
            found |= {"name": topic, **artifact.base}
        found |= artifact.note
        artifact.note = {}
        appends, artifact.has_begun = artifact.has_begun, True
        return self._event({**entry, "artifact": found, **({"append": True} if appends else {})})

    def _status(self, status: Json, entry: Json) -> Json:
        self._state = state_of(status)
        return self._event({**entry, "status": status})

    def _event(self, entry: Json) -> Json:
        self._generation += 1
        return {**entry, "g": self._generation}


def _decoded(event: Chunk[Any]) -> object:
    try:
        return event.value
    except SerializationError:
        return bytes(event.data)


def _described(note: ArtifactNote) -> Json:
    found = {"name": note.name, "description": note.description, "metadata": note.metadata}
    return {name: each for name, each in found.items() if each}
