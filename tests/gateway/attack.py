"""Names the requests of an attack on the gateway, and the answers that they may get."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Headers: TypeAlias = dict[str, str]

PLACEHOLDERS = (
    "<mine>",  # a token that may read `mine` and what is below it
    "<describes>",  # one that may only describe it
    "<cancels>",  # one that may only cancel it
    "<expired>",
    "<ticket>",  # a ticket for `mine`
    "<old-ticket>",
    "<forged-ticket>",
)

MINE = {"Authorization": "Bearer <mine>"}
DESCRIBES = {"Authorization": "Bearer <describes>"}
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
COOKIE = {"Cookie": "streamq=<mine>"}
OWN_COOKIE = {**COOKIE, **OWN_PAGE}
HTTPS = {"Host": "streams.example.org", "X-Forwarded-Proto": "https", **OWN_PAGE}

REQUIRED = (401, "token_required")
INVALID = (401, "invalid_token")
SCOPE = (403, "insufficient_scope")
ABSENT = (404, "stream_not_found")
NO_ROUTE = (404, "not_found")
BAD = (400, "bad_request")
CURSOR = (409, "cursor")
ORIGIN = (403, "origin_not_allowed")
SITE = (403, "cross_site")
HOST = (421, "host_not_allowed")
FAILED = (500, "authorize_failed")
NOTHING = (200, "an empty list")
REPORTED = (200, "stream_not_found")
LEFT_OUT = (200, "nothing of it")

ADA = {"X-User": "ada"}
BY_APPLICATION = (
    "Without tokens, where the application's `authorize` permits to read and list `mine`"
)
"""The theme that is tried against a gateway without tokens."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A request, and how it is answered.

    Attributes:
        what: What is tried.
        request: Method and path.
        answer: Status and error code.
        headers: What the request brings.
        body: Its body.
    """

    what: str
    request: str
    answer: tuple[int, str]
    headers: Headers = field(default_factory=dict)
    body: str = ""


def forgery(name: str) -> Attack:
    return Attack(name, "GET /events/a", INVALID, {"Authorization": f"Bearer <forgery {name}>"})


def by_every_route(what: str, name: str, prefix: str = "", headers: Headers = MINE) -> list[Attack]:
    return [
        Attack(f"{what}: {method} {path}", request, answer, headers)
        for method, path in (
            ("GET", "/events/NAME"),
            ("GET", "/events/NAME?from=tail"),
            ("GET", "/events/NAME?from=last"),
            ("GET", "/events/NAME?after=9999"),
            ("GET", "/streams/NAME/events"),
            ("GET", "/story/NAME"),
            ("GET", "/records/NAME"),
            ("GET", "/records/NAME?follow=false"),
            ("GET", "/records/NAME?last=4"),
            ("GET", "/streams/NAME"),
            ("DELETE", "/streams/NAME"),
            ("POST", "/ticket/NAME"),
            ("POST", "/cancel/NAME"),
        )
        for request in (f"{method} {prefix}{path.replace('NAME', name)}",)
        for answer in (NOTHING if path.endswith("follow=false") else ABSENT,)
    ]
