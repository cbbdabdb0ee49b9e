"""Turns the events of an agent's task into those of the task that the SDK's handler has for it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from a2a.types.a2a_pb2 import (
    Artifact,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatusUpdateEvent,
)

TaskEvent: TypeAlias = Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent

_INNER, _NUMBER = "streamq_task", "generation"


def inner_id(task: Task | None) -> str:
    """Return the id of the agent's task behind one of the SDK's; empty without one."""
    return str(task.metadata[_INNER]) if task is not None and _INNER in task.metadata else ""


def outer_task(task: Task, task_id: str) -> Task:
    """Return the task with which the SDK's one begins."""
    found = Task()
    found.CopyFrom(task)
    found.metadata[_INNER] = task.id
    found.id = task_id
    for message in (*found.history, found.status.message):
        if message.message_id:
            message.task_id = task_id
    return found


def forwarded(event: TaskEvent, task_id: str) -> TaskEvent:
    """Return an event with the SDK's id of the task.

    The SDK keeps the metadata of statuses in the task, and of artifact updates only that of the
    artifact. So the number of the event goes there, too: it tells what has been forwarded.
    """
    found = type(event)()
    found.CopyFrom(event)  # type: ignore[arg-type]
    if isinstance(found, Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent):
        found.task_id = task_id
    if isinstance(found, TaskStatusUpdateEvent) and found.status.HasField("message"):
        found.status.message.task_id = task_id
    if isinstance(found, TaskArtifactUpdateEvent):
        found.artifact.metadata[_NUMBER] = found.metadata[_NUMBER]
    return found


def missed(task: Task, newest: Task, task_id: str) -> Iterator[TaskEvent]:
    """Yield what makes of the SDK's task the agent's one as it is now; nothing if it is that.

    Args:
        task: What the SDK has.
        newest: The agent's task.
        task_id: The SDK's id of the task.
    """
    number = _number(newest)
    if number <= max([_number(task), *map(_number, task.artifacts)]):
        return
    known = {each.artifact_id: each for each in task.artifacts}
    for artifact in newest.artifacts:
        old = known.get(artifact.artifact_id)
        if old is not None and _joined(old.parts) == _joined(artifact.parts):
            continue
        update = TaskArtifactUpdateEvent(
            task_id=newest.id, context_id=newest.context_id, artifact=artifact
        )
        update.metadata[_NUMBER] = number
        yield forwarded(update, task_id)
    status = TaskStatusUpdateEvent(
        task_id=newest.id, context_id=newest.context_id, status=newest.status
    )
    status.metadata[_NUMBER] = number
    yield forwarded(status, task_id)


def _number(holder: Task | Artifact) -> int:
    if _NUMBER not in holder.metadata:
        return 0
    found = holder.metadata[_NUMBER]
    return int(found) if isinstance(found, float | int) else 0


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Return parts with texts that follow each other as one: a snapshot has them that way."""
    found: list[Part] = []
    for part in parts:
        is_text = part.WhichOneof("content") == "text" and part == Part(text=part.text)
        if is_text and found and found[-1] == Part(text=found[-1].text):
            found[-1].text += part.text
        else:
            copy = Part()
            copy.CopyFrom(part)
            found.append(copy)
    return found
