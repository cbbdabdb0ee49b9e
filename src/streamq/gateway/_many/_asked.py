"""Reads what a request for many streams asks for, from its address or its body.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from streamq._events import STREAM_NAME_BYTES
from streamq.gateway._error_responses import BadRequestError
from streamq.gateway._parameters import (
    MOST_WAIT_SECONDS,
    named_start,
    wait_seconds,
    wants_last_attempt,
)
from streamq.gateway._places import EventPlace, NamedPlace

from ._places_token import KnownPlaces, NamedPlaces, PlacesToken

MOST_BY_GET = 256
"""Most streams of a connection whose events have ids: proxies take headers of 8 KiB."""

MOST_BY_POST = 1_000
"""Most streams that are followed at once on another connection."""

_MOST_PREFIXES = 16
_MOST_BODY_BYTES = 1_048_576
OPTIONS = ("stream", "prefix", "after", "last_event_id", "from", "wait", "attempts")
"""Options of the address of a ``GET``."""

_FIELDS = ("streams", "prefixes", "from", "wait", "after", "attempts")


@dataclass(frozen=True, slots=True)
class Among:
    """Streams that an application has chosen for a request.

    Attributes:
        names: Streams.
        prefixes: Beginnings of names.
    """

    names: tuple[str, ...]
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for.

    Attributes:
        names: Streams.
        prefixes: Beginnings of names.
        start: Where a stream begins in which the client has no place.
        wait_seconds: How long a named stream may take to appear; ``None`` if it has to exist.
        last_attempt: Whether attempts that a stored reset has voided are left out.
        places: The places that the client has.
        comes_back: Whether it brought places, or the id of a connection that had none yet.
        token: The places that came as the id of an event, or a new one; ``None`` if events are to
            have no ids.
    """

    names: tuple[str, ...]
    prefixes: tuple[str, ...]
    start: EventPlace | NamedPlace
    wait_seconds: float | None
    last_attempt: bool
    places: KnownPlaces
    comes_back: bool
    token: PlacesToken | None

    @property
    def most(self) -> int:
        """Most streams of the connection."""
        return MOST_BY_POST if self.token is None else MOST_BY_GET


def asked_by_address(request: Request, among: Among | None = None) -> Asked:
    """Return what the query of a GET asks for.

    Args:
        request: The request.
        among: Streams that the application has chosen, instead of those of the query.

    Raises:
        BadRequestError: A parameter cannot be used.
    """
    query = request.query_params
    token = PlacesToken()
    header = request.headers.get("last-event-id", "")
    given = [name for name in ("after", "last_event_id") if name in query]
    if header:  # a browser that comes back sends it with the original address
        token = PlacesToken.parse("Last-Event-ID", header)
    elif len(given) > 1:
        raise BadRequestError(f"{' and '.join(given)} exclude each other; give one of them")
    elif given:
        token = PlacesToken.parse(given[0], query[given[0]])
    asked = Asked(
        names=_unique("stream", among.names if among else query.getlist("stream")),
        prefixes=_unique("prefix", among.prefixes if among else query.getlist("prefix")),
        start=named_start(query.get("from", "beginning")),
        wait_seconds=wait_seconds(request),
        last_attempt=wants_last_attempt(query.get("attempts", "all")),
        places=token,
        comes_back=bool(header or given),
        token=token,
    )
    _check(asked, "?stream=NAME&stream=NAME or ?prefix=P")
    for name in asked.names:
        if not token.admit(name, 2 * MOST_BY_GET):
            raise BadRequestError(
                f"the ids of this connection cannot tell stream {name[:60]!r} from another one of "
                "its streams: use POST /events"
            )
    if not asked.prefixes:
        token.keep(())  # streams that the client does not ask for any more
    return asked


async def asked_by_body(request: Request, among: Among | None = None) -> Asked:
    """Return what the body of a POST asks for.

    Args:
        request: The request.
        among: Streams that the application has chosen, instead of those of the body.

    Raises:
        BadRequestError: It is not JSON of the form that is expected.
    """
    body = await _body(request)
    unknown = body.keys() - set(_FIELDS)
    if unknown:
        raise BadRequestError(
            f"the body has the unknown field {min(unknown)[:40]!r}; known are {', '.join(_FIELDS)}"
        )
    after = body.get("after") or {}
    if not isinstance(after, dict) or not all(isinstance(each, str) for each in after.values()):
        raise BadRequestError('after has to be an object of places: {"NAME": "3@1764..."}')
    places = {name: EventPlace.parse(f"after[{name[:60]!r}]", at) for name, at in after.items()}
    asked = Asked(
        names=_unique("streams", among.names if among else _texts(body, "streams")),
        prefixes=_unique("prefixes", among.prefixes if among else _texts(body, "prefixes")),
        start=named_start(body.get("from", "beginning")),
        wait_seconds=_wait(body.get("wait")),
        last_attempt=wants_last_attempt(body.get("attempts", "all")),
        places=NamedPlaces(places),
        comes_back=bool(places),
        token=None,
    )
    _check(asked, '{"streams": ["NAME"]} or {"prefixes": ["P"]}')
    return asked


def _check(asked: Asked, example: str) -> None:
    """Check the bounds of a request.

    Raises:
        BadRequestError: It asks for nothing, or for too much.
    """
    if not asked.names and not asked.prefixes:
        raise BadRequestError(
            f"this asks for no stream: give {example}; the address of one stream is /events/NAME"
        )
    if len(asked.names) > asked.most:
        more = "use several connections"
        if asked.token is not None:
            more = f"POST /events takes up to {MOST_BY_POST:,} in its body"
        raise BadRequestError(
            f"this asks for {len(asked.names):,} streams, and one connection of this kind has at "
            f"most {asked.most:,}: {more}"
        )
    if len(asked.prefixes) > _MOST_PREFIXES:
        raise BadRequestError(
            f"this asks for {len(asked.prefixes)} prefixes; one connection has at most "
            f"{_MOST_PREFIXES}: give a shorter prefix that they have in common, or use several "
            "connections"
        )
    for prefix in asked.prefixes:
        if len(prefix.encode("utf-8", "surrogatepass")) > STREAM_NAME_BYTES:
            raise BadRequestError(f"a prefix is longer than {STREAM_NAME_BYTES:,} bytes")


def _unique(field: str, names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(names))
    if field.startswith("prefix") and any(
        "\ud800" <= character <= "\udfff" for each in found for character in each
    ):
        raise BadRequestError(f"{field} has a lone surrogate, which is no character")
    return found


def _wait(value: object) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= float(str(value)) <= MOST_WAIT_SECONDS:
        raise BadRequestError(f"wait is {str(value)[:40]!r}; it can be 0 to {MOST_WAIT_SECONDS:g}")
    return float(str(value))


def _texts(body: dict[str, Any], field: str) -> list[str]:
    value = body.get(field) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRequestError(f"{field} has to be a list of texts")
    return value


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _MOST_BODY_BYTES:
            raise BadRequestError(f"the body is larger than {_MOST_BODY_BYTES:,} bytes")
    try:
        found = json.loads(bytes(data))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRequestError('the body has to be a JSON object, such as {"streams": ["NAME"]}')
    return found
