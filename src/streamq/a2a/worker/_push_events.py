"""Turns entries of a task's log into the bodies of push notifications: a pure machine, without I/O.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streamq.a2a._entries import GONE_TEXT, TERMINAL, Json, agent_message, state_of, status_json


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification.

    Attributes:
        number: Number of its event; 0 is the task before its first event.
        content: A ``StreamResponse`` of A2A, as JSON.
        is_last: Whether nothing follows.
    """

    number: int
    content: Json
    is_last: bool = False


class Notifications:
    """The notifications of a task: the events that every other client sees, after one of them.

    Args:
        task_id: Id of the task.
        context_id: Its context.
        after: Number of the last event that is not sent; -1 sends the task before its first event.
        number: Number of the newest event of which an earlier attempt learned.
    """

    def __init__(self, task_id: str, context_id: str, *, after: int, number: int = 0) -> None:
        self._task_id, self._context_id = task_id, context_id
        self._after = after
        self._first: Json | None = None
        self.number = number
        """Number of the newest event of the log that was taken."""

    @property
    def holds_back(self) -> bool:
        """Whether something was taken that the next event brings along."""
        return self._first is not None

    def take(self, entry: Mapping[str, Any]) -> Iterator[Notification]:
        """Yield the notifications for an entry."""
        if "message" in entry and self._after < 0 and not self.number:
            self._first = entry["message"]
        self.number = entry.get("g", self.number)
        if "reply" in entry:
            self._first = None
            yield from self._sent({"message": entry["reply"]}, is_last=True)
        elif "status" in entry:
            yield from self._begun()
            yield from self._status(entry["status"])
        elif "artifact" in entry:
            yield from self._begun()
            update = self._event({"artifact": entry["artifact"]})
            update |= {"append": True} if entry.get("append") else {}
            update |= {"lastChunk": True} if entry.get("last") else {}
            yield from self._sent({"artifactUpdate": update})

    def gone(self, now: str, *, is_cancelled: bool) -> Iterator[Notification]:
        """Yield the end of a task whose workflow has ended without saying so."""
        self.number += 1
        text = agent_message(GONE_TEXT, f"{self._task_id}-gone", self._task_id, self._context_id)
        status = status_json("CANCELED", now) if is_cancelled else status_json("FAILED", now, text)
        yield from self._status(status)

    def _begun(self) -> Iterator[Notification]:
        """Yield the task as it was before its first event, once."""
        if self._first is None:
            return
        first, self._first = self._first, None
        task: Json = {
            "id": self._task_id,
            "contextId": self._context_id,
            "status": {"state": "TASK_STATE_SUBMITTED"},
            "history": [first],
            "metadata": {"generation": 0},
        }
        yield Notification(0, {"task": task})

    def _status(self, status: Json) -> Iterator[Notification]:
        is_last = state_of(status) in TERMINAL
        yield from self._sent({"statusUpdate": self._event({"status": status})}, is_last=is_last)

    def _event(self, content: Json) -> Json:
        return {
            "taskId": self._task_id,
            "contextId": self._context_id,
            **content,
            "metadata": {"generation": self.number},
        }

    def _sent(self, content: Json, *, is_last: bool = False) -> Iterator[Notification]:
        if self.number > self._after:
            yield Notification(self.number, content, is_last)
