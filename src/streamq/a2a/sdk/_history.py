"""Makes a task of its entries, and of each write the smallest entry that explains it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.server.events.event_queue import Event
from a2a.server.tasks.task_manager import append_artifact_to_task
from a2a.types.a2a_pb2 import Task, TaskArtifactUpdateEvent, TaskStatusUpdateEvent
from a2a.utils.errors import InvalidAgentResponseError

from streamq.driver import START

from ._entry import TaskEntry


class TaskHistory:
    """One task, as far as its entries have been read."""

    def __init__(self) -> None:
        self.task = Task()
        """The task; copy it before others get it."""
        self.owner = ""
        """Whose task it is."""
        self.version = 0
        """How many writes there were; 0 before the first."""
        self.before = START
        """The driver's position before the newest entry."""
        self.position = START
        """The driver's position after the newest entry."""
        self.write = ""
        """Which write was the newest: :attr:`TaskEntry.write`."""

    def copy(self) -> TaskHistory:
        """Return an independent copy."""
        found = TaskHistory()
        found.task.CopyFrom(self.task)
        found.owner, found.version = self.owner, self.version
        found.before, found.position, found.write = self.before, self.position, self.write
        return found

    def take(self, entry: TaskEntry, position: str) -> None:
        """Take the next entry.

        Args:
            entry: The entry.
            position: The driver's position after it.
        """
        if entry.task is not None:
            self._replace(entry.task, is_whole=entry.is_whole)
        elif entry.event is not None:
            _apply(self.task, entry.event)
        self.owner, self.write = entry.owner, entry.write
        self.version += 1
        self.before, self.position = self.position, position

    def entry_for(self, task: Task, event: Event | None, owner: str) -> TaskEntry:
        """Return what to store so that this task becomes that one."""
        at = task.status.timestamp.ToNanoseconds() if task.status.HasField("timestamp") else None
        is_task_event = isinstance(event, Task)
        found: Task | None = None
        is_whole = False
        if not self._is_explained(task, event):
            found, is_whole = self._changed(task)
        return TaskEntry(
            owner=owner,
            context_id=task.context_id,
            state=task.status.state,
            at=at,
            event=None if is_task_event else event,
            task=found,
            is_whole=is_whole,
            is_task_event=is_task_event,
        )

    def _is_explained(self, task: Task, event: Event | None) -> bool:
        if not isinstance(event, TaskStatusUpdateEvent | TaskArtifactUpdateEvent):
            return False
        after = Task()
        after.CopyFrom(self.task)
        try:
            _apply(after, event)
        except InvalidAgentResponseError:
            return False
        return after == task

    def _changed(self, task: Task) -> tuple[Task, bool]:
        """Return the task without the artifacts that stay, and whether it has all of them."""
        old = {each.artifact_id: each for each in self.task.artifacts}
        names = [each.artifact_id for each in task.artifacts]
        kept = [each.artifact_id for each in self.task.artifacts]
        found = Task()
        found.CopyFrom(task)
        if names[: len(kept)] != kept or len(set(names)) != len(names):
            return found, True
        found.ClearField("artifacts")
        for each in task.artifacts:
            if old.get(each.artifact_id) != each:
                found.artifacts.append(each)
        return found, False

    def _replace(self, task: Task, *, is_whole: bool) -> None:
        artifacts = [] if is_whole else list(self.task.artifacts)
        places = {each.artifact_id: number for number, each in enumerate(artifacts)}
        for each in task.artifacts:
            if not is_whole and each.artifact_id in places:
                artifacts[places[each.artifact_id]] = each
            else:
                artifacts.append(each)
        found = Task()
        found.CopyFrom(task)
        found.ClearField("artifacts")
        found.artifacts.extend(artifacts)
        self.task = found


def _apply(task: Task, event: object) -> None:
    """Do to a task what the SDK's task manager does for an event."""
    if isinstance(event, TaskStatusUpdateEvent):
        if task.status.HasField("message"):
            task.history.append(task.status.message)
        task.metadata.MergeFrom(event.metadata)
        task.status.CopyFrom(event.status)
    elif isinstance(event, TaskArtifactUpdateEvent):
        append_artifact_to_task(task, event)
