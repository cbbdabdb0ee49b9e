"""Cancels what produces a stream, and waits for its end.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq._executions import execution_of
from streamq.access import Action, Rights
from streamq.gateway._authority import check_visible
from streamq.gateway._cancel_tenants import cancelling_tenants, check_cancels_for
from streamq.gateway._clients import Client
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._gateway import Gateway
from streamq.gateway._loops import gateway_of
from streamq.gateway._parameters import number
from streamq.gateway._stopping import NotStoppableError
from streamq.opening._open import describe
from streamq.reading._tail import StreamStatus

_WAIT_SECONDS = 10.0
_MAX_WAIT_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5


async def cancel_producer(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Cancel the workflow or activity that a stream is named after.

    Answers 200 when the stream has ended, and 202 if that takes longer than ``?wait=`` seconds.
    Nothing is cancelled for a stream that has ended, nor for a tenant whose workflows the namespace
    may not have, nor, where several share it, for a stream that is not there.
    """
    check_visible(rights, Action.CANCEL, asked)
    gateway = gateway_of(request)
    tenants = cancelling_tenants(
        gateway.settings, gateway.authority.issuers, is_one_of_many=rights.is_tenant_granted
    )
    check_cancels_for(asked.tenant, tenants)
    return await stop_producer(request, asked, rights, has_to_exist=len(tenants) > 1)


async def stop_producer(
    request: Request, asked: StreamId, rights: Rights, *, has_to_exist: bool
) -> Response:
    """Cancel what a stream is named after; that the request may do so has been checked.

    Args:
        request: The request.
        asked: The stream.
        rights: Whom the request counts for.
        has_to_exist: Whether the stream has to be there.
    """
    wait = request.query_params.get("wait")
    wait_seconds = _WAIT_SECONDS if wait is None else number("wait", wait, _MAX_WAIT_SECONDS)
    gateway = gateway_of(request)
    client = gateway.client_of(request.scope, rights)
    execution = execution_of(asked.name)
    if execution is None:
        raise NotStoppableError(
            f"stream {asked} is not named after a workflow or an activity (ID/RUN ID/TOPIC), so "
            "there is nothing in Temporal to cancel: whatever writes it has to be stopped itself",
            stream=str(asked),
        )
    status = await _status(gateway, client, asked)
    if status is None and has_to_exist:
        raise StreamNotFoundError(f"there is no stream {asked}", stream=str(asked))
    requested = False
    if status is None or status.seal is None:
        requested = await gateway.stopping.cancel(execution)
        status = await _ended(gateway, client, asked, wait_seconds)
    seal = None if status is None else status.seal
    answer: dict[str, Any] = {
        "execution": {"kind": execution.kind, "id": execution.id, "run_id": execution.run_id},
        "cancel_requested": requested,
        "state": "ABSENT" if status is None else seal.state.name if seal else "OPEN",
        "seal": seal.to_dict() if seal else None,
    }
    return JSONResponse(answer, 202 if seal is None else 200, headers=HEADERS)


async def _ended(
    gateway: Gateway, client: Client, stream: StreamId, seconds: float
) -> StreamStatus | None:
    """Return how a stream stands when it has ended, or when the time is over."""
    until = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        status = await _status(gateway, client, stream)
        left = until - time.monotonic()
        if left <= 0 or (status is not None and status.seal is not None):
            return status
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _status(gateway: Gateway, client: Client, stream: StreamId) -> StreamStatus | None:
    try:
        async with gateway.questions.ask(client) as queue:
            return await describe(stream, queue=queue, settings=gateway.brief_settings)
    except StreamNotFoundError:
        return None
