"""Says whose task it is, and makes ids that only its owner's requests fit.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass

_SCOPE_DIGITS, _CONTEXT_DIGITS = 24, 16


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose tasks a request may see.

    Attributes:
        agent: Name of the agent.
        tenant: Tenant that the request names; empty without one.
        user: Name of the caller; empty if the agent knows no users.
    """

    agent: str
    tenant: str
    user: str

    @property
    def prefix(self) -> str:
        """What the ids of all its tasks begin with; it discloses nothing."""
        return f"{_digest(self.agent, self.tenant, self.user)[:_SCOPE_DIGITS]}-"

    def context_prefix(self, context_id: str) -> str:
        """Return what the ids of a context's tasks begin with."""
        return f"{self.prefix}{_digest(context_id)[:_CONTEXT_DIGITS]}-"

    def new_task_id(self, context_id: str) -> str:
        """Return an id for a new task, which is also the id of its workflow."""
        return f"{self.context_prefix(context_id)}{uuid.uuid4().hex}"

    def owns(self, task_id: str) -> bool:
        """Whether an id can be that of a task of this scope."""
        return task_id.startswith(self.prefix)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
