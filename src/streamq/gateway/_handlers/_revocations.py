"""Revokes tokens for requests that may administer their tenant.

Design: docs/design/access.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._errors import ConfigurationError
from streamq.access import Issuer, Rights
from streamq.access._moments import moment
from streamq.access._revocations import Revocation
from streamq.access._revoking import subject_revocation, token_revocation
from streamq.gateway._authority import refusal
from streamq.gateway._error_responses import HEADERS, BadRequestError
from streamq.gateway._loops import gateway_of
from streamq.gateway._request_rights import rights_of_request
from streamq.gateway._revocations import EFFECTIVE_SECONDS, RevocationImpossibleError

_MOST_BYTES = 16_384
_FIELDS = {"jti", "subject", "issuer", "before", "expires_at"}


async def send_revocation(request: Request) -> Response:
    """Revoke what the body says, in the tenant of the request, and answer when it is stored."""
    gateway = gateway_of(request)
    rights = await (await rights_of_request(request)).in_all()
    if not gateway.authority.needs_tokens:
        raise RevocationImpossibleError(
            "this gateway takes no tokens, so there is nothing to revoke: configure a key or an "
            "issuer first"
        )
    if not rights.administers:
        raise refusal(rights, "revoke tokens (action admin on all streams)")
    revocation = _revocation(gateway.authority.issuers, rights, await _body(request))
    async with gateway.questions.ask(gateway.client_of(request.scope, rights)):
        await gateway.revocations.revoke(revocation)
    return JSONResponse(
        {"revoked": True, "effective_within_seconds": EFFECTIVE_SECONDS}, headers=HEADERS
    )


def _revocation(issuers: Collection[Issuer], rights: Rights, body: dict[str, Any]) -> Revocation:
    unknown = body.keys() - _FIELDS
    if unknown:
        raise BadRequestError(
            f"the body has the unknown field {min(unknown)[:40]!r}; known are "
            f"{', '.join(sorted(_FIELDS))}"
        )
    jti, subject, issuer = (_text(body, name) for name in ("jti", "subject", "issuer"))
    before, expires_at = _moment_in(body, "before"), _moment_in(body, "expires_at")
    if (jti is None) == (subject is None):
        raise BadRequestError("the body needs jti, for one token, or subject, and not both")
    if (before is not None and jti is not None) or (expires_at is not None and subject is not None):
        raise BadRequestError("before belongs to subject, and expires_at to jti")
    issuer = rights.issuer if issuer is None else issuer
    try:
        if jti is not None:
            return token_revocation(
                issuers, jti, issuer=issuer, tenant=rights.tenant, expires_at=expires_at
            )
        assert subject is not None
        return subject_revocation(
            issuers, subject, issuer=issuer, tenant=rights.tenant, before=before
        )
    except ConfigurationError as exc:
        raise BadRequestError(exc.message) from None


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > _MOST_BYTES:
            raise BadRequestError(f"the body is larger than {_MOST_BYTES} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRequestError(
            'the body has to be a JSON object, such as {"jti": "..."} or {"subject": "..."}'
        )
    return found


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequestError(f"{name} has to be a text")
    return value


def _moment_in(body: dict[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    found = moment(value)
    if found is None:
        raise BadRequestError(
            f"{name} has to be a number of seconds since 1970, before the year 10000"
        )
    return found
