"""Finds the token that a request brings: in its header, its ticket or its cookie.

Design: docs/design/access.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.types import Scope

from streamq._loopback import is_loopback
from streamq.access import InvalidTokenError

from ._error_responses import MissingTokenError
from ._sites import SiteRules, host_of, is_bearer

SECURE_COOKIE = "__Secure-streamq"
"""Name of the cookie by HTTPS; browsers take one of this name from nowhere else."""

LOOPBACK_COOKIE = "streamq"
"""Its name by plain HTTP, on the machine itself only."""

HTTPS = "streamq.https"
"""Key of the scope that says whether the browser sent the request by HTTPS."""

_TICKETS = "streamq.tickets"
_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request brings to show what it may do.

    Attributes:
        kind: Where it was found.
        text: The token or the ticket.
    """

    kind: Literal["header", "ticket", "cookie"]
    text: str


def brought_credential(request: Request, *, reads: bool = False) -> Credential | None:
    """Return the token of a request: that of the header, else a ticket, else that of the cookie.

    Args:
        request: The request.
        reads: Whether it only reads, whatever its method is.

    Raises:
        MissingTokenError: The header is there, and has no token.
        InvalidTokenError: There are two tickets or cookies, or the cookie is not accepted here.
    """
    in_header = header_credential(request)
    if in_header is not None:
        return in_header
    tickets: list[str] = request.scope.get(_TICKETS, [])
    if tickets:
        if len(tickets) > 1:
            raise InvalidTokenError("the request has two tickets")
        return Credential("ticket", tickets[0])
    cookies = _cookies(request)
    if not cookies:
        return None
    if len(cookies) > 1:
        raise InvalidTokenError("the request has two session cookies: another site has set one")
    if not reads and request.method not in _READING:
        raise InvalidTokenError("a cookie permits to read only: send the token in the header")
    if not is_of_own_page(request):
        raise InvalidTokenError(
            "the session cookie is accepted only from pages of this host, or of an origin in "
            "STREAMQ_GATEWAY_ORIGINS, and of a browser that says which page asks (Sec-Fetch-Site "
            "or Origin)"
        )
    return Credential("cookie", cookies[0])


def header_credential(request: Request) -> Credential | None:
    """Return the token in the header of a request; ``None`` without one.

    Raises:
        MissingTokenError: The header is there, and has no token.
    """
    given = request.headers.getlist("authorization")
    if not given:
        return None
    token = given[0].strip().partition(" ")[2].strip()
    if len(given) > 1 or not is_bearer(given[0]) or not token:
        raise MissingTokenError(
            "the header Authorization has to be given once: the word Bearer, and a token"
        )
    return Credential("header", token)


def hide_tickets(scope: Scope) -> None:
    """Move tickets out of the query, which servers write to their logs."""
    query: bytes = scope.get("query_string", b"")
    if b"=" not in query:
        return
    kept, tickets = [], []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == "ticket":
            tickets.append(unquote_plus(value.decode("latin-1")))
        else:
            kept.append(pair)
    if tickets:
        scope["query_string"] = b"&".join(kept)
        scope[_TICKETS] = tickets


def cookie_name(request: Request) -> str | None:
    """Return the name of the session cookie; ``None`` where the connection is not safe for one."""
    if request.scope.get(HTTPS):
        return SECURE_COOKIE
    host = host_of(request.headers.get("host", ""))
    return LOOPBACK_COOKIE if host is not None and is_loopback(host) else None


def is_of_own_page(request: Request) -> bool:
    """Whether a browser says that a page of ours sends this, to a host of ours."""
    rules: SiteRules = request.app.state.site_rules
    return rules.allows_host(request.headers.get("host", "")) and rules.is_own_page(request.headers)


def _cookies(request: Request) -> list[str]:
    name = cookie_name(request)
    found = []
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                found.append(value.strip())
    return found
