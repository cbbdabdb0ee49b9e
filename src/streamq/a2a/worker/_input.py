"""Defines the input of an agent's workflow.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamq.a2a._entries import Json


@dataclass(frozen=True, slots=True)
class TaskInput:
    """What a workflow gets of the message that starts it; plain JSON.

    Attributes:
        message: The message, as A2A writes it in JSON.
        context_id: Context that the task belongs to.
        tenant: Tenant of the client's token, or that it named without tokens; empty without one.
        user: Name of the caller, the subject of its token; empty if the agent knows no users.
        can_reply: Whether the workflow may answer with a message instead of a task.
        heartbeat_seconds: How soon a worker that died is noticed.
        activity: Name of the activity, for the workflow ``streamq.AgentTask``.
        args: Its arguments.
        start_to_close_seconds: How long one attempt of it may take.
        max_attempts: How often it is tried; 0 is without limit.
        extensions: Extensions of A2A, by URI, that the client has activated.
        state: What the run before handed over, if the workflow was continued as new.
        pending: Messages of the client that the run before had not taken.
    """

    message: Json
    context_id: str
    tenant: str = ""
    user: str = ""
    can_reply: bool = False
    heartbeat_seconds: float = 10.0
    activity: str = ""
    args: list[Any] = field(default_factory=list)
    start_to_close_seconds: float = 3_600.0
    max_attempts: int = 0
    extensions: list[str] = field(default_factory=list)
    state: Any = None
    pending: list[Json] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text of the message: its text parts, joined by line breaks."""
        return text_of(self.message)


def text_of(message: Json) -> str:
    """Return the text of a message: its text parts, joined by line breaks."""
    return "\n".join(str(part["text"]) for part in message.get("parts", ()) if "text" in part)
