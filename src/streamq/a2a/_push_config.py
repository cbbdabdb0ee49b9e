"""Defines where a task's push notifications go, as plain JSON, and the names of what sends them.

Replicas write it, workers read it; neither needs the other's libraries.
Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ._entries import Json

PUSH_WORKFLOW = "streamq.A2APush"
"""Name of the workflow that sends the notifications of one task."""

SET_UPDATE = "streamq.a2a.push.set"
DELETE_UPDATE = "streamq.a2a.push.delete"

PUSH_MEMO = "streamq.a2a.push"
"""Key of the memo, in which the workflow keeps its configs: reading them needs no worker."""

TOO_MANY = "TooManyPushConfigs"
"""Type of the failure with which the workflow refuses a config."""


@dataclass(frozen=True, slots=True)
class PushConfig:
    """Where notifications of a task go, and from where in its log on.

    Attributes:
        id: Its id, unique in its task.
        url: Address of the receiver.
        token: Sent with each notification.
        scheme: Scheme of the header ``Authorization``.
        credentials: What follows the scheme.
        sealed: Token and credentials, encrypted, in the place of both.
        tenant: Tenant that the request named.
        cursor: Where in the log to begin; empty for its beginning.
        after: Number of the last event that is not sent; -1 sends the task itself first.
        issuer: Address of the agent, for signatures.
    """

    id: str
    url: str = field(repr=False)
    token: str = field(default="", repr=False)
    scheme: str = ""
    credentials: str = field(default="", repr=False)
    sealed: str = ""
    tenant: str = ""
    cursor: str = ""
    after: int = -1
    issuer: str = ""

    def to_json(self) -> Json:
        """Return it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PushConfig:
        """Read what :meth:`to_json` returned; fields of a newer version are left out."""
        return cls(**{name: each for name, each in data.items() if name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Input of the workflow that sends a task's notifications; plain JSON.

    Attributes:
        task_id: Id of the task.
        context_id: Its context.
        heartbeat_seconds: How soon a worker that died is noticed.
        configs: Configs to send to.
        kept: Configs whose notifications an earlier run has sent.
    """

    task_id: str
    context_id: str
    heartbeat_seconds: float = 10.0
    configs: list[Json] = field(default_factory=list)
    kept: list[Json] = field(default_factory=list)


def push_workflow_id(task_id: str) -> str:
    """Return the id of the workflow that sends a task's notifications."""
    return f"a2a-push:{task_id}"
