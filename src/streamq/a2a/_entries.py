"""Defines the entries of a task's log, as plain JSON, and the forms of A2A in it.

A task's log is one stream. Workers write it, replicas read it; neither needs the other's libraries.
Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

LOG_TOPIC = "a2a"
"""Topic of the stream that holds a task's events, in the order in which every client sees them."""

TOLD_TOPIC = "a2a-told"
"""Topic of the stream in which the workflow tells what is to be put into the log."""

MESSAGE_UPDATE = "streamq.a2a.message"
"""Name of the update by which a workflow gets a further message of the client."""

Json: TypeAlias = dict[str, Any]

State: TypeAlias = Literal[
    "SUBMITTED",
    "WORKING",
    "COMPLETED",
    "FAILED",
    "CANCELED",
    "REJECTED",
    "INPUT_REQUIRED",
    "AUTH_REQUIRED",
]

TERMINAL: frozenset[State] = frozenset({"COMPLETED", "FAILED", "CANCELED", "REJECTED"})
INTERRUPTED: frozenset[State] = frozenset({"INPUT_REQUIRED", "AUTH_REQUIRED"})

GONE_TEXT = "The agent's work ended before the task was complete."
"""What clients read of a task whose workflow has ended without saying so."""

EMPTY_PART: Json = {"text": ""}
"""Part of an update that adds nothing: an artifact has at least one part."""


@dataclass(frozen=True, slots=True)
class Told:
    """Entry that a workflow sends to the writer of the log; plain JSON in the stream ``a2a-told``.

    Attributes:
        message: A message of the client, for the history.
        status: A status.
        reply: A message that answers instead of a task.
        parts: Parts of a whole artifact, whose id is in ``artifact``.
        follow: Topic whose stream becomes an artifact from here on.
        artifact: Name, description and metadata of that artifact.
        is_last: Whether the workflow has nothing more to tell.
    """

    message: Json | None = None
    status: Json | None = None
    reply: Json | None = None
    parts: list[Json] | None = None
    follow: str | None = None
    artifact: Json | None = None
    is_last: bool = False

    def to_json(self) -> Json:
        """Return the fields that are set."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: each for name, each in found.items() if each not in (None, False)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Told:
        """Read what :meth:`to_json` returned; fields of a newer version are left out."""
        return cls(**{name: each for name, each in data.items() if name in cls.__slots__})


def status_json(state: State, timestamp: str, message: Json | None = None) -> Json:
    """Return a status as A2A writes it."""
    found: Json = {"state": f"TASK_STATE_{state}", "timestamp": timestamp}
    return found | ({"message": message} if message is not None else {})


def state_of(status: Mapping[str, Any]) -> str:
    """Return the state of a status, without its prefix."""
    return str(status.get("state", "")).removeprefix("TASK_STATE_")


def agent_message(text: str, message_id: str, task_id: str, context_id: str) -> Json:
    """Return a message of the agent as A2A writes it."""
    return {
        "messageId": message_id,
        "taskId": task_id,
        "contextId": context_id,
        "role": "ROLE_AGENT",
        "parts": [{"text": text}],
    }
