"""Answers with the events of many streams on one connection.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response

from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of
from streamq.gateway._many._asked import asked_by_address, asked_by_body
from streamq.gateway._many._response import ManyStreams
from streamq.gateway._opening import CLIENT_GONE, ClientGoneError, unless_gone
from streamq.gateway._request_rights import rights_of_request


async def send_many_events(request: Request) -> Response:
    """Answer with server-sent events of all streams that the request asks for."""
    gateway = gateway_of(request)
    request_rights = await rights_of_request(request, reads=True)
    is_post = request.method == "POST"
    asked = await asked_by_body(request) if is_post else asked_by_address(request)
    streams, rights = await request_rights.on_all(asked.names)
    client = gateway.client_of(request.scope, rights)
    held = ExitStack()
    held.callback(gateway.hold_connection(client).release)
    response = ManyStreams(gateway, asked, streams, client, rights, held)
    has_more = False
    try:
        has_more = await unless_gone(gateway, request.receive, response.settle())
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    finally:
        if not has_more:
            await response.aclose()
    return response if has_more else Response(status_code=204, headers=HEADERS)
