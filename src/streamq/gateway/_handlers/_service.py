"""Answers about the gateway itself: whether it works, whose tokens it accepts.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq.gateway._authority import own_url
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of

_READY_SECONDS = 2.0


async def send_healthz(request: Request) -> Response:
    """Answer that this process works, and how much it has to do."""
    gateway = gateway_of(request)
    answer: dict[str, object] = {"status": "ok"}
    if gateway.authority.is_open:
        statistics = gateway.statistics()
        answer |= {"streams": statistics.streams, "connections": statistics.connections}
    return JSONResponse(answer, headers=HEADERS)


async def send_readyz(request: Request) -> Response:
    """Answer that the backend answers, too, and has said which tokens were revoked."""
    gateway = gateway_of(request)
    if gateway.authority.needs_tokens:
        await gateway.revocations.check_known(_READY_SECONDS)
    backend = await gateway.check_backend()
    answer = {"status": "ok"}
    if gateway.authority.is_open:
        answer["backend"] = backend
    return JSONResponse(answer, headers=HEADERS)


async def send_metadata(request: Request) -> Response:
    """Answer which issuers' tokens are accepted, by RFC 9728."""
    gateway = gateway_of(request)
    if not gateway.authority.needs_tokens:
        raise HTTPException(404)
    return JSONResponse(gateway.authority.metadata(own_url(request)), headers=HEADERS)
