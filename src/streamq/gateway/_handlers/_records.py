"""Answers with the stored records of a stream, for readers that decode them by themselves.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._errors import CursorError, QuotaError
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
from streamq.gateway._parameters import check_options, number, tenant_of, wait_seconds
from streamq.gateway._record_frames import encode_records
from streamq.gateway._record_reads import PAGE_BYTES, PAGE_RECORDS
from streamq.gateway._record_stream import RecordStream
from streamq.gateway._request_rights import rights_of_request
from streamq.opening._open import retry_policy
from streamq.opening._requirements import check_capabilities

from ._seconds import seconds

_MAX_RECORDS = 1_000
_MAX_BYTES = 262_144
_MAX_LAST = 4_096
_LAST_BYTES = 8_388_608
_FIRST = 4
_GROWTH = 8
_MAX_POSITION = 1_024
_MOST_DELAY_SECONDS = 10.0


async def send_backend(request: Request) -> Response:
    """Answer what the backend promises, and whose streams the request reads."""
    gateway = gateway_of(request)
    asked = await rights_of_request(request)
    check_options(request, ())
    rights = await asked.in_all()
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
        last = int(number("last", query["last"], _MAX_LAST))
        return await _described(request, gateway, stream, client, last)
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
    wait = wait_seconds(request)
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
    return RecordStream(gateway, follower, asked=asked, wait_seconds=wait or 0.0, rights=rights)


async def _page(
    request: Request, gateway: Gateway, stream: StreamId, after: str, client: Client
) -> Response:
    query = request.query_params
    records = int(number("records", query.get("records", str(PAGE_RECORDS)), _MAX_RECORDS, 1))
    size = int(number("bytes", query.get("bytes", str(PAGE_BYTES)), _MAX_BYTES, 1))

    async def read() -> bytes:
        page = await gateway.records.reads.page(
            stream,
            after,
            client,
            max_records=records,
            max_bytes=size,
            max_wait=gateway.options.queue_seconds,
        )
        if page is None:
            return b"[]"
        await _when_due(gateway, client, len(page.data))
        return page.data

    try:
        data = await unless_gone(gateway, request.receive, read())
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    return Response(b'{"records":%b}' % data, media_type="application/json", headers=HEADERS)


async def _described(
    request: Request, gateway: Gateway, stream: StreamId, client: Client, last: int
) -> Response:
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
    if info.last:  # whether a stream exists is no matter of bytes
        try:
            await unless_gone(gateway, request.receive, _when_due(gateway, client, len(records)))
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
    document = b'%b,"last":%b}' % (to_json(facts).encode("ascii")[:-1], records)
    return Response(document, media_type="application/json", headers=HEADERS)


async def _when_due(gateway: Gateway, client: Client, size: int) -> None:
    """Count the bytes of an answer, and wait until the quotas permit it.

    Raises:
        QuotaError: That is longer than an answer may take; nothing is counted.

    Cancellation: nothing is counted.
    """
    throttles = gateway.quotas.throttles(client)
    wait = max((each.book(size) for each in throttles), default=0.0)
    try:
        if wait > _MOST_DELAY_SECONDS:
            raise QuotaError(
                "the quota of bytes per second is used up for the moment; try again later"
            )
        await asyncio.sleep(wait)
    except BaseException:
        for each in throttles:
            each.refund(size)
        raise


def _check_size(records: tuple[Stored, ...], stream: StreamId) -> None:
    size = sum(len(stored.data) for stored in records)
    if len(records) > _FIRST and size > _LAST_BYTES:
        raise TooLargeError(
            f"the newest {len(records)} records of stream {stream} have {size} bytes, more than "
            f"the {_LAST_BYTES} that one answer may have; read it from the beginning",
            stream=str(stream),
        )
