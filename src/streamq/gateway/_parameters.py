"""Reads the parameters of requests: names of streams, places, numbers.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from starlette.requests import Request

from streamq._events import StreamId, user_stream
from streamq.access import Rights

from ._error_responses import BadRequestError
from ._places import EventPlace, NamedPlace

MOST_WAIT_SECONDS = 300.0
"""Longest wait for a stream to appear."""


def check_options(request: Request, known: Collection[str]) -> None:
    """Check that the query has nothing but options of the route: a misspelt one would do nothing.

    Raises:
        BadRequestError: It has another one.
    """
    unknown = sorted(request.query_params.keys() - set(known))
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    options = f"its options are {', '.join(known)}" if known else "it has no options"
    raise BadRequestError(f"this address has no option {unknown[0][:40]!r}: {hint}{options}")


def tenant_of(request: Request, rights: Rights) -> str:
    """Return the tenant that a request asks for: that of its path, or its own.

    Raises:
        BadRequestError: It is no name of a tenant.
    """
    return stream_of(request, rights, "x").tenant


def stream_of(request: Request, rights: Rights, name: str) -> StreamId:
    """Return the stream that a request asks for, which it may not know of.

    Raises:
        BadRequestError: It has a name that no stream can have.
    """
    try:
        return user_stream(request.path_params.get("tenant", rights.tenant), name)
    except ValueError as exc:
        raise BadRequestError(str(exc)) from None


def start_place(request: Request) -> EventPlace | NamedPlace:
    """Return the place after which to continue.

    The header wins: a browser that reconnects sends it with the original address.

    Raises:
        BadRequestError: It is no place, or there are several.
    """
    query = request.query_params
    header = request.headers.get("last-event-id", "")
    if header:
        return EventPlace.parse("Last-Event-ID", header)
    given = [name for name in ("after", "last_event_id", "from") if name in query]
    if len(given) > 1:
        raise BadRequestError(f"{' and '.join(given)} exclude each other; give one of them")
    if not given:
        return EventPlace(0)
    if given[0] != "from":
        return EventPlace.parse(given[0], query[given[0]])
    return named_start(query["from"])


def named_start(name: object) -> EventPlace | NamedPlace:
    """Return the place that ``from`` names.

    Raises:
        BadRequestError: There is none of this name.
    """
    match name:
        case "beginning":
            return EventPlace(0)
        case "last":
            return "last"
        case "tail":
            return "tail"
        case other:
            raise BadRequestError(
                f"from is {str(other)[:40]!r}; it can be 'beginning', 'last' or 'tail'"
            )


def wait_seconds(request: Request) -> float | None:
    """Return how long a stream may take to appear; ``None`` if it has to exist.

    Raises:
        BadRequestError: It is no number of seconds.
    """
    wait = request.query_params.get("wait")
    return None if wait is None else number("wait", wait, MOST_WAIT_SECONDS)


def wants_last_attempt(value: object) -> bool:
    """Return whether attempts that a stored reset has voided are left out.

    Raises:
        BadRequestError: The value is neither ``all`` nor ``last``.
    """
    if value not in ("all", "last"):
        raise BadRequestError(f"attempts is {str(value)[:40]!r}; it can be 'all' or 'last'")
    return value == "last"


def number(name: str, text: str, most: float, least: int = 0) -> float:
    """Return a parameter that is a whole number.

    Raises:
        BadRequestError: It is none, or not between ``least`` and ``most``.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and least <= int(text) <= most):
        raise BadRequestError(f"{name} is {text[:40]!r}; it can be {least} to {most:g}")
    return float(text)
