"""Defines what the holder of a token may do with which streams.

Design: docs/design/access.md.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamq._events import StreamId
from streamq._executions import execution_of

MatchType: TypeAlias = Literal["exact", "workflow", "prefix", "all"]


class Action(enum.StrEnum):
    """What can be permitted.

    ``read`` includes ``describe``; ``admin`` includes everything. ``write`` is for messages to the
    tasks of an agent; the gateway has nothing that needs it.
    """

    READ = "read"
    DESCRIBE = "describe"
    LIST = "list"
    CANCEL = "cancel"
    DELETE = "delete"
    ADMIN = "admin"
    WRITE = "write"


_INCLUDED_IN: dict[Action, frozenset[Action]] = {
    Action.READ: frozenset({Action.READ, Action.ADMIN}),
    Action.DESCRIBE: frozenset({Action.DESCRIBE, Action.READ, Action.ADMIN}),
    Action.LIST: frozenset({Action.LIST, Action.ADMIN}),
    Action.CANCEL: frozenset({Action.CANCEL, Action.ADMIN}),
    Action.DELETE: frozenset({Action.DELETE, Action.ADMIN}),
    Action.ADMIN: frozenset({Action.ADMIN}),
    Action.WRITE: frozenset({Action.WRITE, Action.ADMIN}),
}


@dataclass(frozen=True, slots=True)
class StreamMatch:
    """Names of streams.

    Attributes:
        match_type: ``exact`` is one stream; ``workflow`` all streams of the workflows with this id,
            also of later runs; ``prefix`` the stream of this name and all names below it, on whole
            segments: ``chat-7`` matches ``chat-7`` and ``chat-7/a``, and not ``chat-70``; ``all``
            every stream of the tenant.
        match: The name, the workflow id or the prefix; empty for ``all``.

    Raises:
        ValueError: One of both needs the other.
    """

    match_type: MatchType
    match: str = ""

    def __post_init__(self) -> None:
        # A stream may be called "/"; a prefix of that name would be everything.
        named = self.match if self.match_type == "exact" else self.match.strip("/")
        if (self.match_type == "all") == bool(named):
            needs = "no name" if self.match_type == "all" else "a name"
            raise ValueError(f"match_type {self.match_type!r} needs {needs} as match")

    def covers(self, name: str) -> bool:
        """Whether a stream of this name is matched."""
        match self.match_type:
            case "all":
                return True
            case "exact":
                return name == self.match
            case "workflow":
                found = execution_of(name)
                return found is not None and (found.kind, found.id) == ("workflow", self.match)
            case "prefix":
                above = self.match.rstrip("/")
                return name == above or name.startswith(above + "/")

    def narrowed(self, prefix: str) -> str | None:
        """Return the beginning of all names that are matched and begin with ``prefix``.

        ``None`` if there can be none. Other names may have this beginning, too.
        """
        root = self.match
        if self.match_type == "workflow":
            root += "/"
        elif self.match_type == "prefix":
            root = root.rstrip("/")
        if root.startswith(prefix):
            return root
        below = {"exact": None, "prefix": root + "/"}.get(self.match_type, root)
        return prefix if below is not None and prefix.startswith(below) else None


@dataclass(frozen=True, slots=True)
class Permission:
    """Some actions on some streams."""

    actions: frozenset[Action]
    streams: StreamMatch

    def permits(self, action: Action) -> bool:
        """Whether an action on these streams is permitted, by itself or by one that includes it."""
        return not _INCLUDED_IN[action].isdisjoint(self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a request may do.

    Attributes:
        tenant: The tenant whose streams it may see; no others exist for it.
        permissions: What is permitted; nothing else is.
        within: What has to permit it, too; ``None`` for nothing. An application's own code narrows
            a token so.
        subject: Who holds the token, or whom the application names; ``None`` for nobody.
        issuer: Who issued it.
        token_id: The token's own id, by which it can be revoked.
        issued_at: When, in seconds since the epoch.
        expires_at: When it ends; ``None`` for never.
        lacks_token: Whether a request without a token could do more with one.
        by_application: Whether the application's own code was asked.
        is_tenant_granted: Whether that code named the tenant, so that others may have other ones.
    """

    tenant: str
    permissions: tuple[Permission, ...]
    subject: str | None = None
    issuer: str | None = None
    token_id: str | None = None
    issued_at: float = 0.0
    expires_at: float | None = None
    lacks_token: bool = False
    within: tuple[Permission, ...] | None = None
    by_application: bool = False
    is_tenant_granted: bool = False

    @classmethod
    def of_everybody(
        cls, tenant: str, actions: Collection[Action], *, takes_tokens: bool = False
    ) -> Rights:
        """Return the rights of requests without a token, where tokens are accepted or not."""
        return cls(
            tenant=tenant,
            lacks_token=takes_tokens,
            permissions=(Permission(frozenset(actions), StreamMatch("all")),) if actions else (),
        )

    def allow(self, action: Action, stream: StreamId) -> bool:
        """Whether an action on a stream is permitted."""
        if stream.tenant != self.tenant:
            return False
        return all(
            any(each.permits(action) and each.streams.covers(stream.name) for each in permissions)
            for permissions in self._all_of
        )

    def allow_some(self, action: Action) -> bool:
        """Whether an action is permitted on any stream."""
        return all(
            any(each.permits(action) for each in permissions) for permissions in self._all_of
        )

    def prefixes(self, action: Action, prefix: str) -> list[str]:
        """Return where to look for the streams below ``prefix`` on which an action is permitted.

        None of these is below another. A search beyond them would take longer where others have
        streams, and so tell what they are called.
        """
        found = [prefix]
        for permissions in self._all_of:
            found = [
                narrowed
                for each in permissions
                if each.permits(action)
                for narrowed in map(each.streams.narrowed, found)
                if narrowed is not None
            ]
        kept: list[str] = []
        for one in sorted(found):
            if not kept or not one.startswith(kept[-1]):
                kept.append(one)
        return kept

    @property
    def administers(self) -> bool:
        """Whether the holder may administer the tenant: everything, on all its streams."""
        return all(
            any(
                each.permits(Action.ADMIN) and each.streams.match_type == "all"
                for each in permissions
            )
            for permissions in self._all_of
        )

    def know(self, stream: StreamId) -> bool:
        """Whether the holder may know that a stream exists: any right on it says so."""
        return any(self.allow(action, stream) for action in Action)

    @property
    def _all_of(self) -> tuple[tuple[Permission, ...], ...]:
        """Sets of permissions, each of which has to permit what is done."""
        return (self.permissions,) if self.within is None else (self.permissions, self.within)
