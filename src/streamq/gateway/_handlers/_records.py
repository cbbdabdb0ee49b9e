"""Answers with the stored records of a stream, for readers that decode them by themselves.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._errors import CursorError
from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.calling import _calls as calling
from streamq.driver import Stored, StreamInfo
from streamq.gateway._authority import refusal, visible_stream
from streamq.gateway._clients import Client
from streamq.gateway._error_responses import HEADERS, BadRequestError, TooLargeError
from streamq.gateway._frames import to_json
from streamq.gateway._gateway import Gateway
from streamq.gateway._loops import gateway_of
from streamq.gateway._opening import CLIENT_GONE, ClientGoneError, unless_gone
from streamq.gateway._parameters import number, tenant_of
from streamq.gateway._record_frames import encode_records
from streamq.gateway._record_reads import PAGE_BYTES, PAGE_RECORDS
from streamq.gateway._record_stream import RecordStream
from streamq.gateway._request_rights import rights_of_request
from streamq.opening._open import retry_policy
from streamq.opening._requirements import check_capabilities

from ._seconds import seconds

_MAX_WAIT_SECONDS = 300.0
_MAX_RECORDS = 1_000
_MAX_BYTES = 262_144
_MAX_LAST = 4_096
_LAST_BYTES = 8_388_608
_FIRST = 4
_GROWTH = 8
_MAX_POSITION = 1_024


async def send_backend(request: Request) -> Response:
    """Answer what the backend promises, and whose streams the request reads."""
    gateway = gateway_of(request)
    rights = await (await rights_of_request(request)).in_all()
    if not any(map(rights.allow_some, Action)):
        raise refusal(rights, "learn which backend this is")
    tenant = tenant_of(request, rights)
    async with gateway.questions.ask(gateway.client_of(request.scope, rights)) as queue:
        check_capabilities(queue, ["replay"])
        answer = {
            "tenant": tenant,
            "capabilities": queue.capabilities.to_dict(),
        }
    return JSONResponse(answer, headers=HEADERS)


async def send_records(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Answer with records after a position, as they come or those that are stored now."""
    query = request.query_params
    after = query.get("after", "")
    if len(after) > _MAX_POSITION or not after.isprintable():
        raise CursorError(f"{after[:50]!r} is not a position of any backend")
    gateway = gateway_of(request)
    stream = visible_stream(rights, Action.READ, asked)
    client = gateway.client_of(request.scope, rights)
    if "last" in query:
        if "after" in query:
            raise BadRequestError("after and last exclude each other; give one of them")
        return await _described(
            gateway, stream, client, int(number("last", query["last"], _MAX_LAST))
        )
    match query.get("follow", "true"):
        case "true":
            return await _followed(request, gateway, asked, stream, after, rights)
        case "false":
            return await _page(request, gateway, stream, after, client)
        case other:
            raise BadRequestError(f"follow is {other[:40]!r}; it can be 'true' or 'false'")


async def _followed(
    request: Request,
    gateway: Gateway,
    asked: StreamId,
    stream: StreamId,
    after: str,
    rights: Rights,
) -> Response:
    wait = request.query_params.get("wait")
    wait_seconds = 0.0 if wait is None else number("wait", wait, _MAX_WAIT_SECONDS)
    follow = gateway.records.follow(
        stream,
        after,
        client=gateway.client_of(request.scope, rights),
        may_be_missing=wait is not None,
    )
    try:
        follower = await unless_gone(gateway, request.receive, follow, gateway.records.leave)
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    return RecordStream(gateway, follower, asked=asked, wait_seconds=wait_seconds, rights=rights)


async def _page(
    request: Request, gateway: Gateway, stream: StreamId, after: str, client: Client
) -> Response:
    query = request.query_params
    records = int(number("records", query.get("records", str(PAGE_RECORDS)), _MAX_RECORDS))
    size = int(number("bytes", query.get("bytes", str(PAGE_BYTES)), _MAX_BYTES))
    read = gateway.records.reads.page(
        stream,
        after,
        client,
        max_records=max(records, 1),
        max_bytes=max(size, 1),
        max_wait=gateway.options.queue_seconds,
    )
    try:
        page = await unless_gone(gateway, request.receive, read)
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    data = b"[]" if page is None else page.data
    return Response(b'{"records":%b}' % data, media_type="application/json", headers=HEADERS)


async def _described(gateway: Gateway, stream: StreamId, client: Client, last: int) -> Response:
    async with gateway.questions.ask(client) as queue:
        check_capabilities(queue, ["replay"])
        retry = retry_policy(gateway.brief_settings, queue, stream)
        count = min(last, _FIRST)
        while True:
            info: StreamInfo = await retry.run(partial(calling.describe, queue, stream, last=count))
            if len(info.last) < count or count == last:
                break
            # Not all at once: it is not known how large they are.
            _check_size(info.last, stream)
            count = min(count * _GROWTH, last)
        _check_size(info.last, stream)
        facts = {
            "records_stored": info.records,
            "size_bytes": info.size_bytes,
            "expires_in_seconds": seconds(info.expires_in),
            "attempts": info.attempts,
        }
        if not queue.capabilities.fenced:
            facts["newest_epoch"] = await retry.run(lambda: calling.known_epoch(queue, stream))
    records = await encode_records(info.last, gateway.records.pacer, client)
    document = b'%b,"last":%b}' % (to_json(facts).encode("ascii")[:-1], records)
    return Response(document, media_type="application/json", headers=HEADERS)


def _check_size(records: tuple[Stored, ...], stream: StreamId) -> None:
    size = sum(len(stored.data) for stored in records)
    if len(records) > _FIRST and size > _LAST_BYTES:
        raise TooLargeError(
            f"the newest {len(records)} records of stream {stream} have {size} bytes, more than "
            f"the {_LAST_BYTES} that one answer may have; read it from the beginning",
            stream=str(stream),
        )
