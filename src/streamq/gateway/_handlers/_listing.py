"""Answers with a list of streams.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import contextlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq.access import Action, Rights
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, StreamInfo
from streamq.gateway._authority import refusal, visible_prefix
from streamq.gateway._error_responses import HEADERS, BadRequestError
from streamq.gateway._loops import gateway_of
from streamq.gateway._parameters import check_options, number
from streamq.gateway._request_rights import Search, rights_of_request
from streamq.gateway._stream_details import StreamDetails

from ._seconds import seconds
from ._viewing import execution_fields, token_fields

_MAX_LISTED = 1_000
_LISTED = 100
_OPTIONS = ("prefix", "limit", "details")
_DETAILS = ("state", "attempt", "offset", "seal", "opened_at", "attempt_opened_at")


async def send_list(request: Request) -> Response:
    """Answer with the streams that the request may know of, the most recent ones first.

    With ``?details=true`` also with the state of each, as far as that is known.
    """
    asked = await rights_of_request(request)
    check_options(request, _OPTIONS)
    return await list_streams(request, await asked.search())


async def list_streams(request: Request, search: Search) -> Response:
    """Answer with the streams of a search, the most recent ones first."""
    gateway = gateway_of(request)
    with_details = _is_true("details", request.query_params.get("details", "false"))
    prefix = request.query_params.get("prefix", "")
    limit = int(number("limit", request.query_params.get("limit", str(_LISTED)), _MAX_LISTED))
    rights = search.rights
    prefix = visible_prefix(rights, search.tenant, prefix)
    if not rights.allow_some(Action.LIST):
        raise refusal(rights, "list streams")
    client = gateway.client_of(request.scope, rights)
    async with gateway.questions.ask(client, is_list=True) as queue:
        found = await _found(queue, rights, prefix)
    # Every append restarts the time to live, so the stream that expires last is the most recent.
    found.sort(key=lambda info: (info.expires_in is None, info.expires_in), reverse=True)
    infos = {info.stream: info for info in found}
    listed: list[StreamInfo] = []
    described: list[StreamInfo] = []
    is_complete = len(found) < _MAX_LISTED
    async with contextlib.aclosing(search.each(infos)) as answers:
        async for stream, of_stream in answers:
            if not of_stream.allow(Action.LIST, stream):
                continue
            if len(listed) == limit:
                is_complete = False
                break
            listed.append(infos[stream])
            if of_stream.allow(Action.DESCRIBE, stream):
                described.append(infos[stream])
    answer: dict[str, Any] = {
        "streams": [_fields(info) for info in listed],
        "is_complete": is_complete,
    }
    if with_details:
        details, is_known = await gateway.viewing.details.of(described, client)
        answer["streams"] = [
            _fields(info)
            | _detailed(details.get(info.stream))
            | execution_fields(gateway, info.stream)
            for info in listed
        ]
        answer |= {"details_are_complete": is_known, **token_fields(gateway, rights)}
    return JSONResponse(answer, headers=HEADERS)


def _fields(info: StreamInfo) -> dict[str, object]:
    return {
        "name": info.stream.name,
        "records": info.records,
        "size_bytes": info.size_bytes,
        "expires_in_seconds": seconds(info.expires_in),
    }


def _detailed(details: StreamDetails | None) -> dict[str, object]:
    """Return the fields of a stream's details; each is null while they are not known."""
    if details is None:
        return dict.fromkeys(_DETAILS)
    seal = details.seal
    return {
        "state": seal.state.name if seal else "OPEN",
        "attempt": details.attempt,
        "offset": details.offset,
        "seal": seal.to_dict() if seal else None,
        "opened_at": details.opened_at,
        "attempt_opened_at": details.attempt_opened_at,
    }


def _is_true(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadRequestError(f"{name} is true or false, not {text!r}")
    return text == "true"


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
