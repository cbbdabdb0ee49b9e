"""Says what surrounds a stream for those who look at it: its execution, and what they may do.

Design: docs/design/page.md.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

from starlette.requests import Request

from streamq._events import StreamId
from streamq._executions import execution_of
from streamq.access import Action, Rights
from streamq.gateway._cancel_tenants import cancelling_tenants
from streamq.gateway._gateway import Gateway

_READING = (Action.READ, Action.DESCRIBE, Action.LIST)
_SHOWN = (Action.READ, Action.DESCRIBE, Action.CANCEL, Action.DELETE)


def execution_fields(gateway: Gateway, stream: StreamId) -> dict[str, object]:
    """Return what a stream is named after, and where Temporal's UI shows that."""
    execution = execution_of(stream.name)
    return {
        "execution": execution
        and {"kind": execution.kind, "id": execution.id, "run_id": execution.run_id},
        "temporal_url": gateway.viewing.temporal_pages.address(execution),
    }


def permitted_actions(
    request: Request, gateway: Gateway, rights: Rights, stream: StreamId
) -> list[str]:
    """Return what requests with the same credentials may do with a stream.

    ``cancel`` is among it only if there is something that this gateway could cancel.
    """
    allowed = [action for action in _SHOWN if rights.allow(action, stream)]
    if _has_only_cookie(request, rights):
        allowed = [action for action in allowed if action in _READING]
    if Action.CANCEL in allowed and not _can_cancel(gateway, stream):
        allowed.remove(Action.CANCEL)
    return [action.value for action in allowed]


def token_fields(gateway: Gateway, rights: Rights) -> dict[str, Any]:
    """Return whether tokens are accepted, and how long that of the request lasts."""
    token = None
    if rights.subject is not None:
        left = None if rights.expires_at is None else max(rights.expires_at - time.time(), 0.0)
        token = {
            "subject": rights.subject,
            "expires_in_seconds": left if left is None else round(left, 3),
        }
    return {"takes_tokens": gateway.authority.needs_tokens, "token": token}


def _has_only_cookie(request: Request, rights: Rights) -> bool:
    """Whether the request may do nothing but read, since its token is in a cookie."""
    return rights.token_id is not None and "authorization" not in request.headers


def _can_cancel(gateway: Gateway, stream: StreamId) -> bool:
    return (
        execution_of(stream.name) is not None
        and stream.tenant in cancelling_tenants(gateway.settings, gateway.authority.issuers)
        and importlib.util.find_spec("temporalio") is not None
    )
