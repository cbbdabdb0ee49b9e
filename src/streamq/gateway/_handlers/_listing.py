"""Answers with a list of streams.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq.access import Action, Rights
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, StreamInfo
from streamq.gateway._authority import refusal, visible_prefix
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of
from streamq.gateway._parameters import number
from streamq.gateway._request_rights import Search, rights_of_request

from ._seconds import seconds

_MAX_LISTED = 1_000
_LISTED = 100


async def send_list(request: Request) -> Response:
    """Answer with the streams that the request may know of, the most recent ones first."""
    return await list_streams(request, await (await rights_of_request(request)).search())


async def list_streams(request: Request, search: Search) -> Response:
    """Answer with the streams of a search, the most recent ones first."""
    gateway = gateway_of(request)
    prefix = request.query_params.get("prefix", "")
    limit = int(number("limit", request.query_params.get("limit", str(_LISTED)), _MAX_LISTED))
    rights = search.rights
    prefix = visible_prefix(rights, search.tenant, prefix)
    if not rights.allow_some(Action.LIST):
        raise refusal(rights, "list streams")
    async with gateway.questions.ask(
        gateway.client_of(request.scope, rights), is_list=True
    ) as queue:
        found = await _found(queue, rights, prefix)
    # Every append restarts the time to live, so the stream that expires last is the most recent.
    found.sort(key=lambda info: (info.expires_in is None, info.expires_in), reverse=True)
    infos = {info.stream: info for info in found}
    shown: list[StreamInfo] = []
    is_complete = len(found) < _MAX_LISTED
    async with contextlib.aclosing(search.permitted(Action.LIST, infos)) as permitted:
        async for stream in permitted:
            if len(shown) == limit:
                is_complete = False
                break
            shown.append(infos[stream])
    listed = [
        {
            "name": info.stream.name,
            "records": info.records,
            "size_bytes": info.size_bytes,
            "expires_in_seconds": seconds(info.expires_in),
        }
        for info in shown
    ]
    return JSONResponse({"streams": listed, "is_complete": is_complete}, headers=HEADERS)


async def _found(queue: ChunkQueue, rights: Rights, prefix: str) -> list[StreamInfo]:
    found: list[StreamInfo] = []
    for searched in rights.prefixes(Action.LIST, prefix):
        async with contextlib.aclosing(calling.streams(queue, rights.tenant, searched)) as infos:
            async for info in infos:
                if rights.allow(Action.LIST, info.stream):
                    found.append(info)
                if len(found) == _MAX_LISTED:
                    return found
    return found
