"""Makes a task of the entries of its log, and of each entry the event that clients get.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from a2a.types.a2a_pb2 import (
    Artifact,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import ParseDict

from streamq.a2a._entries import GONE_TEXT, TOLD_TOPIC
from streamq.a2a._states import INTERRUPTED_STATES, TERMINAL_STATES

TaskEvent: TypeAlias = TaskStatusUpdateEvent | TaskArtifactUpdateEvent | Message


class TaskFold:
    """One task, as far as its log has been read.

    Args:
        task_id: Its id.
        context_id: Its context.
    """

    def __init__(self, task_id: str, context_id: str) -> None:
        self._task = Task(id=task_id, context_id=context_id)
        self._task.status.state = TaskState.TASK_STATE_SUBMITTED
        self._places: dict[str, Artifact] = {}
        self.generation = 0
        """Number of the newest event, from 1; the same for every client."""
        self.reply: Message | None = None
        """The message that answered instead of a task."""
        self.told = 0
        """How much of what the workflow told the log has."""
        self._expects_first = False

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended."""
        return self._task.status.state in TERMINAL_STATES

    @property
    def is_interrupted(self) -> bool:
        """Whether the task waits for its client."""
        return self._task.status.state in INTERRUPTED_STATES

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the log has been read."""
        return not self._task.history and not self.generation

    @property
    def state(self) -> TaskState:
        """State of the task."""
        return self._task.status.state

    @property
    def status(self) -> TaskStatus:
        """Status of the task; do not change it."""
        return self._task.status

    def has_taken(self, message: Message) -> bool:
        """Whether the log has this message of the client, after the first one."""
        return message in self._task.history[1:]

    def snapshot(self) -> Task:
        """Return a copy of the task."""
        found = Task()
        found.CopyFrom(self._task)
        found.metadata["generation"] = self.generation
        return found

    def copy(self) -> TaskFold:
        """Return an independent copy."""
        found = TaskFold(self._task.id, self._task.context_id)
        found._task.CopyFrom(self._task)
        found._places = {each.artifact_id: each for each in found._task.artifacts}
        found.generation, found.reply = self.generation, self.reply
        found.told, found._expects_first = self.told, self._expects_first
        return found

    def size(self) -> int:
        """Return how many bytes the task has."""
        return self._task.ByteSize()

    def apply(self, entry: Mapping[str, Any], *, keep: bool = True) -> TaskEvent | None:
        """Take one entry, and return the event that clients get of it.

        Args:
            entry: The entry.
            keep: Whether artifacts are collected; without, the task stays without them.
        """
        self.generation = entry.get("g", self.generation)
        topic, offset = entry.get("at", ("", 0))
        if topic == TOLD_TOPIC:
            self.told = offset
        if "message" in entry:
            message = ParseDict(entry["message"], Message(), ignore_unknown_fields=True)
            if self._expects_first:
                self._expects_first = False
                self._task.history[0].CopyFrom(message)
            else:
                self._keep_status_message()
                self._task.history.append(message)
            return None
        if "reply" in entry:
            self.reply = ParseDict(entry["reply"], Message(), ignore_unknown_fields=True)
            return self.reply
        if "status" in entry:
            return self._status(
                ParseDict(entry["status"], TaskStatus(), ignore_unknown_fields=True)
            )
        if "artifact" in entry:
            return self._artifact(entry, keep=keep)
        return None

    def submitted(self, message: Message) -> None:
        """Take the message that started the task, of which the log has nothing yet."""
        self._task.history.append(message)
        self._expects_first = True

    def gone(self, *, is_cancelled: bool) -> TaskStatusUpdateEvent | None:
        """End a task whose workflow has ended without saying so; ``None`` if it did."""
        if self.is_terminal or self.reply is not None:
            return None
        self.generation += 1
        status = TaskStatus(
            state=TaskState.TASK_STATE_CANCELED if is_cancelled else TaskState.TASK_STATE_FAILED
        )
        if not is_cancelled:
            status.message.CopyFrom(
                Message(
                    message_id=f"{self._task.id}-gone",
                    task_id=self._task.id,
                    context_id=self._task.context_id,
                    role="ROLE_AGENT",
                    parts=[Part(text=GONE_TEXT)],
                )
            )
        return self._status(status)

    def _status(self, status: TaskStatus) -> TaskStatusUpdateEvent:
        self._keep_status_message()
        self._task.status.CopyFrom(status)
        event = TaskStatusUpdateEvent(
            task_id=self._task.id, context_id=self._task.context_id, status=status
        )
        event.metadata["generation"] = self.generation
        return event

    def _keep_status_message(self) -> None:
        """Move the message of the status to the history, where what follows it comes after it."""
        if self._task.status.HasField("message"):
            self._task.history.append(self._task.status.message)
            self._task.status.ClearField("message")

    def _artifact(self, entry: Mapping[str, Any], *, keep: bool) -> TaskArtifactUpdateEvent:
        event = TaskArtifactUpdateEvent(
            task_id=self._task.id,
            context_id=self._task.context_id,
            append=bool(entry.get("append")),
            last_chunk=bool(entry.get("last")),
        )
        ParseDict(entry["artifact"], event.artifact, ignore_unknown_fields=True)
        event.metadata["generation"] = self.generation
        if keep:
            self._collect(event)
        return event

    def _collect(self, event: TaskArtifactUpdateEvent) -> None:
        found, update = self._places.get(event.artifact.artifact_id), event.artifact
        if found is None:
            found = self._task.artifacts.add()
            self._places[update.artifact_id] = found
            found.CopyFrom(update)
            return
        if not event.append:
            found.CopyFrom(update)
            return
        for name in ("name", "description"):
            if getattr(update, name):
                setattr(found, name, getattr(update, name))
        if update.HasField("metadata"):
            found.metadata.MergeFrom(update.metadata)
        for part in update.parts:
            _append(found, part)


def _append(artifact: Artifact, part: Part) -> None:
    """Append a part; text continues the text before it, so that a snapshot has one part of it."""
    last = artifact.parts[-1] if artifact.parts else None
    if last is not None and _is_plain_text(last) and _is_plain_text(part):
        last.text += part.text
    else:
        artifact.parts.append(part)


def _is_plain_text(part: Part) -> bool:
    return (
        part.HasField("text")
        and not part.filename
        and not part.media_type
        and not part.HasField("metadata")
    )
