"""Permissions and grants that an application states in its own code."""

from __future__ import annotations

from typing import Any

import pytest

from streamq import ConfigurationError
from streamq.access import Action, Grant, Permission, Rights, StreamMatch, permit
from streamq.driver import StreamId


def test_a_permission_says_which_streams() -> None:
    """One call has all that a token can state."""
    read = frozenset({Action.READ})
    assert permit("read", stream="a") == Permission(read, StreamMatch("exact", "a"))
    assert permit("read", workflow="a") == Permission(read, StreamMatch("workflow", "a"))
    assert permit("read", prefix="a") == Permission(read, StreamMatch("prefix", "a"))
    assert permit("read", every=True) == Permission(read, StreamMatch("all"))
    assert permit("read", "cancel", stream="/").actions == {Action.READ, Action.CANCEL}


MISTAKES: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("read",), {}, "say for which streams"),
    (("read",), {"stream": None}, "say for which streams"),
    (("read",), {"prefix": ""}, "needs a name"),
    (("read",), {"prefix": "/"}, "needs a name"),
    (("read",), {"stream": ""}, "needs a name"),
    (("read",), {"stream": "a", "prefix": "a"}, "say for which streams"),
    (("read",), {"every": True, "prefix": "a"}, "say for which streams"),
    ((), {"stream": "a"}, "name an action"),
    (("raed",), {"stream": "a"}, "'raed' is none of the actions read, "),
    (("raed",), {"stream": "a"}, "'raed' is none"),
    ((["read"],), {"stream": "a"}, "is none of the actions"),
    (("read",), {"stream": StreamId("default", "a")}, "of a StreamId give the name"),
    (("read",), {"prefix": 7}, "has to be a text"),
]


@pytest.mark.parametrize(("actions", "of", "message"), MISTAKES)
def test_what_is_empty_or_wrong_permits_nothing(
    actions: tuple[Any, ...], of: dict[str, Any], message: str
) -> None:
    """An id that is missing by mistake would otherwise open everything."""
    with pytest.raises(ConfigurationError, match=message):
        permit(*actions, **of)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"permissions": None}, "NoneType among its permissions"),
        ({"permissions": ["read"]}, "str among its permissions"),
        ({"permissions": True, "subject": ""}, "subject is ''"),
        ({"permissions": True, "subject": 7}, "subject is 7"),
        ({"permissions": True, "expires_at": "soon"}, "expires_at is 'soon'"),
        ({"permissions": True, "expires_at": float("nan")}, "expires_at is nan"),
        ({"permissions": True, "expires_at": float("inf")}, "expires_at is inf"),
        ({"permissions": True, "tenant": ""}, "unusable tenant"),
        ({"permissions": True, "tenant": "streamq.system"}, "reserved"),
    ],
)
def test_a_grant_that_cannot_be_meant_is_refused(of: dict[str, Any], message: str) -> None:
    """Where it is made, and not in the middle of a connection."""
    with pytest.raises(ConfigurationError, match=message):
        Grant(**of)


def test_a_grant_keeps_its_permissions() -> None:
    """Also those of an iterator, which could be read once only."""
    one = permit("read", stream="a")
    grant = Grant(iter([one]))
    assert grant.permissions == (one,)
    assert Grant(True).permissions is True


def test_rights_within_others_are_those_of_both() -> None:
    """What narrows a token never widens it, nor is anything searched beyond either."""
    rights = Rights(
        tenant="t",
        permissions=(permit("read", "list", prefix="a"), permit("read", "list", stream="b/1")),
        within=(permit("list", "delete", prefix="a/x"), permit("read", prefix="b")),
    )

    def allowed(name: str) -> set[str]:
        return {str(each) for each in Action if rights.allow(each, StreamId("t", name))}

    assert allowed("a/x/1") == {"list"}
    assert allowed("a/y") == set()
    assert allowed("b/1") == {"read", "describe"}
    assert allowed("b/2") == set()
    assert rights.prefixes(Action.LIST, "") == ["a/x"]
    assert rights.prefixes(Action.LIST, "a/x/1") == ["a/x/1"]
    assert rights.prefixes(Action.LIST, "b") == []
    assert rights.prefixes(Action.READ, "") == ["b/1"]
    assert not rights.allow_some(Action.DELETE)
    every = permit("admin", every=True)
    assert Rights(tenant="t", permissions=(every,), within=(every,)).administers
    assert not Rights(
        tenant="t", permissions=(every,), within=(permit("read", every=True),)
    ).administers
