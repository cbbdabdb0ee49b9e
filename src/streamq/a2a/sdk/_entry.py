"""Defines what one write of a task stores: an event, the rest of the task, or both.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from a2a.types.a2a_pb2 import (
    Message,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatusUpdateEvent,
)
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict, ParseDict

from streamq._errors import CorruptRecordError

StoredEvent: TypeAlias = Message | Task | TaskStatusUpdateEvent | TaskArtifactUpdateEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEntry:
    """What one write stores.

    Attributes:
        owner: Whose task it is.
        context_id: Context of the task, here and below as it is after the write.
        state: State of the task, a number of ``TaskState``.
        at: Time of its status, in nanoseconds since 1970; ``None`` without one.
        event: What happened; ``None`` if the task was written without an event.
        task: The task, if the event does not explain it; without artifacts that stay as they were.
        is_whole: Whether ``task`` has all artifacts, so that others are gone.
        is_task_event: Whether the event is the task itself.
        write: Random, so that a writer recognizes its own entry.
    """

    owner: str
    context_id: str
    state: int
    at: int | None
    event: StoredEvent | None = None
    task: Task | None = None
    is_whole: bool = False
    is_task_event: bool = False
    write: str = field(default_factory=lambda: secrets.token_hex(8))

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON."""
        found: dict[str, Any] = {
            "owner": self.owner,
            "context": self.context_id,
            "state": self.state,
            "at": self.at,
            "event": self.event and MessageToDict(to_stream_response(self.event)),
            "task": self.task and MessageToDict(self.task),
            "whole": self.is_whole,
            "task_event": self.is_task_event,
            "write": self.write,
        }
        return {name: each for name, each in found.items() if each not in (None, False)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskEntry:
        """Read what :meth:`to_json` returned; fields of a newer version are left out.

        Raises:
            CorruptRecordError: It is something else.
        """
        try:
            return cls(
                owner=data["owner"],
                context_id=data["context"],
                state=data["state"],
                at=data.get("at"),
                event=_event(data["event"]) if "event" in data else None,
                task=_parsed(data["task"], Task()) if "task" in data else None,
                is_whole=data.get("whole", False),
                is_task_event=data.get("task_event", False),
                write=data["write"],
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise CorruptRecordError(
                f"a stored entry is not one of a task ({type(exc).__name__}: {exc}); does "
                "something else write to these streams?"
            ) from exc


def _parsed(data: Any, message: Any) -> Any:
    return ParseDict(data, message, ignore_unknown_fields=True)


def _event(data: Any) -> StoredEvent:
    found = _parsed(data, StreamResponse())
    event: StoredEvent = getattr(found, found.WhichOneof("payload"))
    return event
