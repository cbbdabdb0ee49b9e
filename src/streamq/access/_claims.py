"""Translates between rights and the claims of a token.

The rights are ``authorization_details`` (RFC 9396) of the type ``streamq``.

Design: docs/design/access.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ._errors import InvalidTokenError
from ._rights import Action, MatchType, Permission, StreamMatch

DETAILS = "authorization_details"
DETAIL_TYPE = "streamq"
TENANT = "tenant"

_MOST_DETAILS = 100
_MATCH_TYPES = get_args(MatchType)


def permissions_of(claims: Mapping[str, Any]) -> tuple[Permission, ...]:
    """Return the permissions that the claims state; none if there are no details of our type.

    Details of other types are for other servers, and ignored.

    Raises:
        InvalidTokenError: A detail of our type is malformed: it may have been meant to narrow.
    """
    details = claims.get(DETAILS, [])
    if not isinstance(details, list) or len(details) > _MOST_DETAILS:
        raise InvalidTokenError(f"{DETAILS} is no list of at most {_MOST_DETAILS} objects")
    found = []
    for detail in details:
        if not isinstance(detail, dict) or not isinstance(detail.get("type"), str):
            raise InvalidTokenError(f"{DETAILS} has an entry without a type")
        if detail["type"] == DETAIL_TYPE:
            found.append(_permission(detail))
    return tuple(found)


def details_of(permissions: Iterable[Permission]) -> list[dict[str, Any]]:
    """Return permissions as ``authorization_details``."""
    details: list[dict[str, Any]] = []
    for permission in permissions:
        detail: dict[str, Any] = {
            "type": DETAIL_TYPE,
            "actions": sorted(action.value for action in permission.actions),
            "match_type": permission.streams.match_type,
        }
        if permission.streams.match:
            detail["match"] = permission.streams.match
        details.append(detail)
    return details


def _permission(detail: Mapping[str, Any]) -> Permission:
    unknown = detail.keys() - {"type", "actions", "match_type", "match"}
    if unknown:
        raise InvalidTokenError(f"a {DETAIL_TYPE} detail has the unknown field {min(unknown)!r}")
    actions, match_type = detail.get("actions"), detail.get("match_type", "exact")
    match = detail.get("match", "")
    if not isinstance(actions, list) or not actions:
        raise InvalidTokenError(f"a {DETAIL_TYPE} detail has no actions")
    if match_type not in _MATCH_TYPES or not isinstance(match, str):
        raise InvalidTokenError(
            f"a {DETAIL_TYPE} detail has match_type {match_type!r}; it is one of "
            f"{', '.join(_MATCH_TYPES)}, and match is text"
        )
    try:
        return Permission(frozenset(map(Action, actions)), StreamMatch(match_type, match))
    except ValueError as exc:
        raise InvalidTokenError(f"a {DETAIL_TYPE} detail cannot be used: {exc}") from None
