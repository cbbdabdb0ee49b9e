"""Says whose task it is, and makes ids that only its owner's requests fit.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass

_SCOPE_DIGITS, _CONTEXT_DIGITS, _MESSAGE_DIGITS = 24, 16, 32


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose tasks a request may see.

    Attributes:
        agent: Name of the agent.
        tenant: Tenant of the caller's token; without tokens that which the request names, or empty.
        user: Name of the caller: the subject of its token; empty if the agent knows no users.
        issuer: Who vouches for that name: the issuer of the token; empty without one.
    """

    agent: str
    tenant: str
    user: str
    issuer: str = ""

    @property
    def prefix(self) -> str:
        """What the ids of all its tasks begin with; it discloses nothing."""
        return f"{_digest(*self._parts)[:_SCOPE_DIGITS]}-"

    def context_prefix(self, context_id: str) -> str:
        """Return what the ids of a context's tasks begin with."""
        return f"{self.prefix}{_digest(context_id)[:_CONTEXT_DIGITS]}-"

    def new_task_id(self, context_id: str, message_id: str = "") -> str:
        """Return an id for a new task, which is also the id of its workflow.

        With the id of a message it is the one task that this message starts in this context.
        """
        end = _digest(message_id)[:_MESSAGE_DIGITS] if message_id else uuid.uuid4().hex
        return f"{self.context_prefix(context_id)}{end}"

    def own_context_id(self, message_id: str) -> str:
        """Return the context of a message that names none, the same each time it is sent."""
        return _digest(*self._parts, message_id)[:_MESSAGE_DIGITS]

    def owns(self, task_id: str) -> bool:
        """Whether an id can be that of a task of this scope."""
        return task_id.startswith(self.prefix)

    def memo(self, context_id: str) -> dict[str, str]:
        """Return what a task's workflow notes of its owner."""
        named = {"agent": self.agent, "tenant": self.tenant, "user": self.user}
        issuer = {"issuer": self.issuer} if self.issuer else {}
        return {**named, **issuer, "context": context_id}

    @property
    def _parts(self) -> tuple[str, ...]:
        named = (self.agent, self.tenant, self.user)
        return (*named, self.issuer) if self.issuer else named


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
