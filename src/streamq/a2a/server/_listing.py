"""Lists tasks, page by page, as far as Temporal's visibility goes.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import base64
import binascii
import json

from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, TaskState
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size

from ._fold import TaskFold
from ._lookup import Lookup

_PAGE_SIZE = 50
_MOST_READ = 1_000
"""Most tasks that one request looks at for those that its filters want."""


async def list_tasks(
    lookup: Lookup, params: ListTasksRequest, context: ServerCallContext
) -> ListTasksResponse:
    """Return a page of tasks.

    Temporal finds the caller's tasks, and those of a context. The other filters need each task's
    log: so a page with them may be short, or empty, and still have a token for the next.

    Raises:
        InvalidParamsError: The token is none of ours, or a number is out of its range.
        AccessError: The caller may not list tasks.
        StreamqError: Temporal or the queue does not answer.
    """
    validate_history_length(params)
    if params.HasField("page_size"):
        validate_page_size(params.page_size)
    caller = await lookup.caller(params.tenant, context)
    caller.check_may_list()
    directory, logs = await lookup.directory(), await lookup.logs()
    size = params.page_size or _PAGE_SIZE
    token, skipped = _decode(params.page_token)
    response = ListTasksResponse(page_size=size)
    if not caller.names_own_tenant:
        return response
    seen = 0
    while True:
        places, following = await directory.page(caller.scope, params.context_id, token, size)
        listed = set(await caller.listed(places[skipped:]))
        for number, place in enumerate(places):
            if number < skipped:
                continue
            seen += 1
            if place not in listed:
                continue
            fold, _ = await logs.snapshot(place)
            if _is_wanted(fold, params):
                task = apply_history_length(fold.snapshot(), params)
                if not params.include_artifacts:
                    task.ClearField("artifacts")
                response.tasks.append(task)
            if len(response.tasks) == size and number + 1 < len(places):
                response.next_page_token = _encode(token, number + 1)
                break
        else:
            token, skipped = following, 0
            if token and len(response.tasks) < size and seen < _MOST_READ:
                continue
            response.next_page_token = _encode(token, 0) if token else ""
        break
    response.total_size = await directory.count(caller.scope, params.context_id)
    return response


def _is_wanted(fold: TaskFold, params: ListTasksRequest) -> bool:
    if fold.reply is not None:
        return False
    if params.status not in (TaskState.TASK_STATE_UNSPECIFIED, fold.state):
        return False
    if params.HasField("status_timestamp_after"):
        after, at = params.status_timestamp_after, fold.status.timestamp
        return (at.seconds, at.nanos) >= (after.seconds, after.nanos)
    return True


def _encode(token: bytes | None, skipped: int) -> str:
    place = [base64.b64encode(token or b"").decode(), skipped]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decode(text: str) -> tuple[bytes | None, int]:
    if not text:
        return None, 0
    try:
        token, skipped = json.loads(base64.urlsafe_b64decode(text.encode()))
        return base64.b64decode(token) or None, int(skipped)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidParamsError("The page token is not valid: take it from an answer") from None
