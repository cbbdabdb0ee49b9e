"""Answers with the events of a stream as they come.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import visible_stream
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of
from streamq.gateway._opening import CLIENT_GONE, ClientGoneError, follow_unless_gone
from streamq.gateway._parameters import start_place, wait_seconds, wants_last_attempt
from streamq.gateway._places import EventPlace
from streamq.gateway._sse import EventStream


async def send_events(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Answer with server-sent events, from the place that the request names."""
    gateway = gateway_of(request)
    stream = visible_stream(rights, Action.READ, asked)
    after = start_place(request)
    wait = wait_seconds(request)
    client = gateway.client_of(request.scope, rights)
    follow = gateway.follow(
        stream,
        after,
        may_be_missing=wait is not None,
        client=client,
        last_attempt=wants_last_attempt(request.query_params.get("attempts", "all")),
    )
    try:
        follower = await follow_unless_gone(gateway, request.receive, follow)
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    if follower is None:
        return Response(status_code=204, headers=HEADERS)
    opening = None if isinstance(after, EventPlace) else follower.place
    return EventStream(
        gateway,
        follower,
        asked=asked,
        opening=opening,
        wait_seconds=wait or 0.0,
        rights=rights,
    )
