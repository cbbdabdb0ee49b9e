"""Gives a browser its token as a cookie, and takes it away.

Design: docs/design/access.md.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq.gateway._credentials import SECURE_COOKIE, brought_credential, cookie_name
from streamq.gateway._error_responses import (
    HEADERS,
    BadRequestError,
    MissingTokenError,
    SessionsOffError,
)
from streamq.gateway._loops import gateway_of
from streamq.gateway._sites import SiteRules

_MOST_COOKIE_BYTES = 4_000  # browsers take 4,096 for name, value and attributes


async def send_session(request: Request) -> Response:
    """Begin a session for POST, and end it for DELETE."""
    return await (_end if request.method == "DELETE" else _begin)(request)


async def _begin(request: Request) -> Response:
    """Set the token of the header as a cookie, which lasts no longer than the token."""
    name = _name(request)
    rights = await gateway_of(request).rights_of_token(request)
    brought = brought_credential(request)
    if brought is None or brought.kind != "header" or rights.expires_at is None:
        raise MissingTokenError("a session begins with a token in the header Authorization")
    if len(brought.text) > _MOST_COOKIE_BYTES:
        raise BadRequestError(
            f"the token has {len(brought.text)} bytes, and a cookie at most {_MOST_COOKIE_BYTES}; "
            "send it in the header, with fetch"
        )
    left = max(int(rights.expires_at - time.time()), 0)
    answer = JSONResponse({"expires_in_seconds": left}, headers=HEADERS)
    answer.headers["Set-Cookie"] = _cookie(name, brought.text, left)
    return answer


async def _end(request: Request) -> Response:
    """Remove the cookie. It is not looked at: a browser may remove one that has expired."""
    answer = Response(status_code=204, headers=HEADERS)
    answer.headers["Set-Cookie"] = _cookie(_name(request), "", 0)
    return answer


def _name(request: Request) -> str:
    """Return the name of the cookie.

    Raises:
        SessionsOffError: No tokens are used.
        BadRequestError: A cookie would not be safe here.
    """
    if not gateway_of(request).authority.needs_tokens:
        raise SessionsOffError(
            "this gateway takes no tokens, so there is nothing to begin a session with: configure "
            "STREAMQ_TOKEN_KEY_FILE or STREAMQ_TOKEN_ISSUERS first"
        )
    rules: SiteRules = request.app.state.site_rules
    if not rules.allows_host(request.headers.get("host", "")):
        raise BadRequestError(
            "a session needs to know by which names browsers reach the gateway: give them as "
            "STREAMQ_GATEWAY_HOSTS, or create_app(hosts=...)"
        )
    name = cookie_name(request)
    if name is None:
        raise BadRequestError(
            "a session needs HTTPS. If a proxy in front ends TLS, name it in "
            "STREAMQ_GATEWAY_TRUSTED_PROXIES, and let it send X-Forwarded-Proto"
        )
    return name


def _cookie(name: str, token: str, seconds: int) -> str:
    """Return a cookie for the folder of this route.

    Without ``Path`` it is that of the address that the browser knows, whatever proxies have done to
    it.
    """
    secure = "; Secure" if name == SECURE_COOKIE else ""
    return f"{name}={token}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
