"""Answers where a stream stands.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import visible_stream
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of
from streamq.opening._open import describe

from ._seconds import seconds
from ._viewing import execution_fields, permitted_actions, token_fields


async def send_status(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Answer with attempt, offset, seal, size and what the request may do, as JSON."""
    stream = visible_stream(rights, Action.DESCRIBE, asked)
    gateway = gateway_of(request)
    async with gateway.questions.ask(gateway.client_of(request.scope, rights)) as queue:
        status = await describe(stream, queue=queue, settings=gateway.brief_settings)
    return JSONResponse(
        {
            "tenant": stream.tenant,
            "name": stream.name,
            "attempt": status.attempt,
            "offset": status.offset,
            "state": status.seal.state.name if status.seal else "OPEN",
            "seal": status.seal.to_dict() if status.seal else None,
            "records": status.records,
            "size_bytes": status.size_bytes,
            "expires_in_seconds": seconds(status.expires_in),
            "actions": permitted_actions(request, gateway, rights, stream),
            **execution_fields(gateway, stream),
            **token_fields(gateway, rights),
        },
        headers=HEADERS,
    )
