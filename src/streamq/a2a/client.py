"""Follows a task with the SDK's client, through lost connections, and shows no event twice.

Verifies push notifications, too.

Needs ``a2a-sdk``.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx
from a2a.client.client import Client, ClientCallContext
from a2a.client.errors import A2AClientError
from a2a.extensions.common import HTTP_EXTENSION_HEADER
from a2a.types.a2a_pb2 import (
    GetTaskRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskStatus,
)
from a2a.utils.errors import InternalError, UnsupportedOperationError

from ._extension import EVENT_IDS, LAST_EVENT_ID
from ._push_verifying import verify_notification
from ._states import TERMINAL_STATES

__all__ = ["follow_task", "verify_notification"]

_LOST = (A2AClientError, InternalError, httpx.TransportError, OSError)
_NO_TOKEN, _FORBIDDEN = 401, 403
_OF_GRPC = {"UNAUTHENTICATED": _NO_TOKEN, "PERMISSION_DENIED": _FORBIDDEN}
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0


async def follow_task(
    client: Client, task_id: str, *, tenant: str = "", retry_seconds: float = 60.0
) -> AsyncGenerator[StreamResponse, None]:
    """Yield a task as it is, and then each of its events once, until it has ended.

    A lost connection is made again, with any replica, and the events that were missed come first.
    Over gRPC the next one is the task as it is then instead: it replaces what there was. The last
    event is the one that ends the task; a task that had ended already is yielded as it is.

    This rests on the numbers that agents of streamq give their events (``generation``), and on
    their extension by which a subscription continues after one of them. With another agent each new
    connection begins with the task.

    Args:
        client: A client of the SDK that streams. It stays open.
        task_id: Id of the task.
        tenant: Tenant of the task.
        retry_seconds: How long to try again after the last event.

    Raises:
        TaskNotFoundError: There is no such task.
        A2AError: Any other refusal; or the last failure, after ``retry_seconds``. What is forbidden
            is not tried again. With a token that is refused it is tried once more, as the client's
            credentials may be new by then.

    Cancellation: ends the subscription; close the generator if you leave it early.
    """
    clock = asyncio.get_running_loop().time
    seen, until, pause = -1, clock() + retry_seconds, _SHORTEST_PAUSE_SECONDS
    may_renew = True
    while True:
        failure: Exception | None = None
        request = SubscribeToTaskRequest(id=task_id, tenant=tenant)
        try:
            subscription = client.subscribe(request, context=_continuing_after(seen))
            async with aclosing(subscription) as events:  # type: ignore[type-var]
                async for event in events:
                    number = _number(event)
                    until, pause = clock() + retry_seconds, _SHORTEST_PAUSE_SECONDS
                    may_renew = True
                    if number is not None and number <= seen:
                        continue
                    seen = seen if number is None else number
                    yield event
                    if _ends(event):
                        return
        except UnsupportedOperationError:  # it has ended
            task = await client.get_task(GetTaskRequest(id=task_id, tenant=tenant))
            number = _number(StreamResponse(task=task))
            if task.status.state not in TERMINAL_STATES:
                raise  # the agent does not stream
            if number is None or number > seen:
                yield StreamResponse(task=task)
            return
        except _LOST as exc:
            status = _status(exc)
            if status == _FORBIDDEN or (status == _NO_TOKEN and not may_renew):
                raise
            may_renew = may_renew and status != _NO_TOKEN
            failure = exc
        if clock() + pause >= until:
            raise failure or A2AClientError(f"the stream of task {task_id} ends again and again")
        await asyncio.sleep(random.uniform(0, pause))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _continuing_after(seen: int) -> ClientCallContext | None:
    """Return how to ask for the events after the last one; an agent without ids ignores it."""
    if seen < 0:
        return None
    wanted = {HTTP_EXTENSION_HEADER: EVENT_IDS, LAST_EVENT_ID: str(seen)}
    return ClientCallContext(service_parameters=wanted)


def _status(exc: Exception) -> int:
    """Return the status of HTTP with which an agent has refused, or that of gRPC as one; else 0.

    The SDK has no errors for tokens and rights: it raises its general one from the transport's.
    """
    cause = exc.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code
    code = getattr(cause, "code", None)  # of grpc.aio.AioRpcError; gRPC is an extra of the SDK
    return _OF_GRPC.get(code().name, 0) if callable(code) else 0


def _number(event: StreamResponse) -> int | None:
    payload = getattr(event, event.WhichOneof("payload") or "task")
    found = payload.metadata
    return int(found["generation"]) if "generation" in found else None


def _ends(event: StreamResponse) -> bool:
    found: Task | None = event.task if event.HasField("task") else None
    status: TaskStatus = found.status if found is not None else event.status_update.status
    return status.state in TERMINAL_STATES
