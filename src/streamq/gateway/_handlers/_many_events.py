"""Answers with the events of many streams on one connection.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import refusal, visible_prefix
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of
from streamq.gateway._many._asked import OPTIONS, Asked, asked_by_address, asked_by_body
from streamq.gateway._many._prefix_streams import PrefixSearch
from streamq.gateway._many._response import ManyStreams
from streamq.gateway._opening import CLIENT_GONE, ClientGoneError, unless_gone
from streamq.gateway._parameters import check_options, tenant_of
from streamq.gateway._request_rights import rights_of_request


async def send_many_events(request: Request) -> Response:
    """Answer with server-sent events of all streams that the request asks for."""
    request_rights = await rights_of_request(request, reads=True)
    is_post = request.method == "POST"
    check_options(request, () if is_post else OPTIONS)
    try:
        asked = await asked_by_body(request) if is_post else asked_by_address(request)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    found = await request_rights.below() if asked.prefixes else None
    if asked.names:
        streams, rights = await request_rights.on_all(asked.names)
        return await follow_many(request, asked, streams, rights, found or rights)
    assert found is not None
    return await follow_many(request, asked, [], found, found)


async def follow_many(
    request: Request, asked: Asked, streams: list[StreamId], rights: Rights, found: Rights
) -> Response:
    """Answer with the events of streams on which a request has rights.

    Args:
        request: The request.
        asked: What it asks for.
        streams: The streams that it names.
        rights: What it may do with these.
        found: What it may do with those that prefixes find.
    """
    gateway = gateway_of(request)
    searches = _searches(asked, found, tenant_of(request, found))
    ends = [each.expires_at for each in (rights, found) if each.expires_at is not None]
    rights = replace(rights, expires_at=min(ends, default=None))
    client = gateway.client_of(request.scope, rights)
    held = ExitStack()
    held.callback(gateway.bounds.connections.take(client).release)
    response = ManyStreams(gateway, asked, streams, searches, client, rights, found, held)
    has_more = False
    try:
        has_more = await unless_gone(gateway, request.receive, response.settle())
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    finally:
        if not has_more:
            await response.aclose()
    return response if has_more else Response(status_code=204, headers=HEADERS)


def _searches(asked: Asked, rights: Rights, tenant: str) -> list[PrefixSearch]:
    """Return where to look for the streams of the prefixes: only where the request may list.

    Raises:
        StreamqError: It may list nothing.
    """
    if asked.prefixes and not rights.allow_some(Action.LIST):
        raise refusal(rights, "list streams")
    return [
        PrefixSearch(
            prefix,
            tuple(rights.prefixes(Action.LIST, visible_prefix(rights, tenant, prefix))),
        )
        for prefix in asked.prefixes
    ]
