"""Says in an application's own code what a request may do.

Design: docs/design/access.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streamq._errors import ConfigurationError
from streamq._events import user_stream

from ._rights import Action, Permission, StreamMatch


def permit(
    *actions: str,
    stream: str | None = None,
    workflow: str | None = None,
    prefix: str | None = None,
    every: bool = False,
) -> Permission:
    """Return a permission: some actions on some streams.

    Give one of ``stream``, ``workflow``, ``prefix`` and ``every``.

    Args:
        actions: ``read``, ``describe``, ``list``, ``cancel``, ``delete``, ``write``, ``admin``.
        stream: Name of one stream.
        workflow: Id of a workflow, for all streams of its runs.
        prefix: The stream of this name, and all whose names continue it after a slash: ``chats/7``
            permits ``chats/7/a``, and not ``chats/70``.
        every: All streams of the tenant. It has to be said: an id that is ``None`` by mistake would
            otherwise open everything.

    Raises:
        ConfigurationError: An argument cannot be used.
    """
    try:
        return permission_on(actions, stream=stream, workflow=workflow, prefix=prefix, every=every)
    except ValueError as exc:
        raise ConfigurationError(f"this cannot be permitted: {exc}") from None


def permission_on(
    actions: Iterable[str],
    *,
    stream: str | None,
    workflow: str | None,
    prefix: str | None,
    every: bool,
) -> Permission:
    """Return a permission; the arguments are those of :func:`permit`.

    Raises:
        ValueError: An argument cannot be used.
    """
    given: list[tuple[Literal["exact", "workflow", "prefix"], str | None]] = [
        ("exact", stream),
        ("workflow", workflow),
        ("prefix", prefix),
    ]
    named = [(kind, name) for kind, name in given if name is not None]
    if len(named) + every != 1:
        raise ValueError("say for which streams it is: one of stream, workflow, prefix and every")
    for kind, name in named:
        if not isinstance(name, str):
            raise ValueError(
                f"{kind} is given as {type(name).__name__}, and has to be a text: of a StreamId "
                "give the name"
            )
    if isinstance(actions, str):
        raise ValueError(f"the actions are the text {actions!r}; give a list of them")
    chosen = frozenset(map(_action, actions))
    if not chosen:
        raise ValueError(f"name an action, one or more of {', '.join(Action)}")
    match = StreamMatch(*named[0]) if named else StreamMatch("all")
    return Permission(chosen, match)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an application's own code permits to a request.

    Attributes:
        permissions: Those that :func:`permit` makes; nothing else is permitted. ``True`` for what
            the gateway would permit without this code, ``False`` for nothing.
        subject: Whom the request is from, for quotas; a token's own subject comes before it.
        expires_at: When it ends, in seconds since the epoch: connections end then, and clients come
            back. ``None`` for never. With a token, the earlier end counts.
        tenant: Whose streams; ``None`` for the gateway's own tenant, or the token's. One that is
            not the token's permits nothing.

    Raises:
        ConfigurationError: A value cannot be used.
    """

    permissions: bool | Iterable[Permission]
    subject: str | None = None
    expires_at: float | None = None
    tenant: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.permissions, bool):
            object.__setattr__(self, "permissions", _permissions(self.permissions))
        if self.subject is not None and not (isinstance(self.subject, str) and self.subject):
            raise ConfigurationError(
                f"a grant's subject is {self.subject!r}; give a text, or None for nobody"
            )
        ends = self.expires_at
        if ends is not None and (
            isinstance(ends, bool) or not isinstance(ends, int | float) or not math.isfinite(ends)
        ):
            raise ConfigurationError(
                f"a grant's expires_at is {ends!r}; give seconds since the epoch, as time.time() "
                "returns and tokens have in exp; datetime.timestamp() converts"
            )
        if self.tenant is not None:
            try:
                user_stream(self.tenant, "x")
            except (ValueError, TypeError, AttributeError) as exc:
                raise ConfigurationError(f"a grant has an unusable tenant: {exc}") from None


def _permissions(given: object) -> tuple[Permission, ...]:
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for each in found:
        if not isinstance(each, Permission):
            raise ConfigurationError(
                f"a grant has {type(each).__name__} among its permissions; give what permit() "
                "returns, or True, or False"
            )
    return found


def _action(name: str) -> Action:
    try:
        return Action(name)
    except ValueError:
        raise ValueError(f"{name!r} is none of the actions {', '.join(Action)}") from None
