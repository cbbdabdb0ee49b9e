"""Deletes a stream.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import visible_stream
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of


async def delete_stream(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Delete a stream and answer 204, also if it is not there any more.

    One that the request may not know of is not there: the answer depends on its rights alone.
    """
    if visible_stream(rights, Action.DELETE, asked) != asked:
        raise StreamNotFoundError(f"there is no stream {asked}", stream=str(asked))
    gateway = gateway_of(request)
    await gateway.delete(asked, gateway.client_of(request.scope))
    return Response(status_code=204, headers=HEADERS)
