"""Lists tasks, page by page, as far as Temporal's visibility goes.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC

from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, Task, TaskState
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size

from ._access_caller import Caller
from ._directory import INVALID_TOKEN, Wanted
from ._fold import TaskFold
from ._lookup import Lookup

_PAGE_SIZE = 50
_LARGEST_NUMBER = 2**31  # of an answer's field
_MOST_READ = 1_000
"""Most tasks that one request looks at for those that its filters want."""

_RUNNING = (
    TaskState.TASK_STATE_SUBMITTED,
    TaskState.TASK_STATE_WORKING,
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_AUTH_REQUIRED,
)


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a page begins.

    Attributes:
        token: Token of Temporal's page; ``None`` for the first.
        skipped: How many tasks of that page come before.
        total: What the first page said of the number of tasks; ``None`` if this is the first.
    """

    token: bytes | None = None
    skipped: int = 0
    total: int | None = None

    def encode(self) -> str:
        """Return it as a page token."""
        place = [base64.b64encode(self.token or b"").decode(), self.skipped, self.total]
        return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> _Position:
        """Return the position of a page token.

        Raises:
            InvalidParamsError: It is none of ours.
        """
        if not text:
            return cls()
        try:
            token, skipped, total = json.loads(base64.urlsafe_b64decode(text.encode()))
            if not (0 <= skipped < _LARGEST_NUMBER and 0 <= total < _LARGEST_NUMBER):
                raise ValueError
            return cls(base64.b64decode(token) or None, int(skipped), int(total))
        except (binascii.Error, ValueError, TypeError, RecursionError):
            raise InvalidParamsError(INVALID_TOKEN) from None


async def list_tasks(
    lookup: Lookup, params: ListTasksRequest, context: ServerCallContext
) -> ListTasksResponse:
    """Return a page of tasks.

    Temporal finds the caller's tasks, those of a context, and some that the other filters rule out.
    The rest needs each task's log: so a page may be short, or empty, and still have a token for the
    next. With filters the first page looks on, to count what they want; others look for one more
    task, so that the last page has no token.

    Raises:
        InvalidParamsError: The token is none of ours, or a number is out of its range.
        AccessError: The caller may not list tasks.
        StreamqError: Temporal or the queue does not answer.
    """
    validate_history_length(params)
    if params.HasField("page_size"):
        validate_page_size(params.page_size)
    begin = _Position.decode(params.page_token)
    caller = await lookup.caller(params.tenant, context)
    caller.check_may_list()
    response = ListTasksResponse(page_size=params.page_size or _PAGE_SIZE)
    if not caller.names_own_tenant:
        return response
    wanted = _wanted(params)
    needs_logs = lookup.agent.can_reply or _has_filters(params)
    counts = needs_logs and begin.total is None
    seen = matched = 0
    following: _Position | None = None
    async with aclosing(_tasks(lookup, caller, wanted, begin, response.page_size)) as found:
        async for fold, after in found:
            seen += 1
            is_wanted = fold is not None and _is_wanted(fold, params)
            matched += is_wanted
            is_full = len(response.tasks) == response.page_size
            if is_full and is_wanted and not counts:
                break  # so there is a next page
            if not is_full:
                following = after
                if is_wanted and fold is not None:
                    response.tasks.append(_shown(fold, params))
            if seen >= _MOST_READ and after is not None:
                break
        else:
            if matched == len(response.tasks):
                following = None  # what comes after this page is not wanted
            seen = 0
    total = begin.total
    if total is None:
        total = matched if counts else await (await lookup.directory()).count(caller.scope, wanted)
        if counts and seen:  # there are more than were looked at
            total += await (await lookup.directory()).count(caller.scope, wanted) - seen
    response.total_size = max(total, matched)
    if following is not None:
        response.next_page_token = replace(following, total=response.total_size).encode()
    return response


async def _tasks(
    lookup: Lookup, caller: Caller, wanted: Wanted, position: _Position, size: int
) -> AsyncGenerator[tuple[TaskFold | None, _Position | None]]:
    """Yield tasks from a position on, and the position after each; the last has none.

    Of a task that the caller may not list there is only the position.
    """
    directory, logs = await lookup.directory(), await lookup.logs()
    token, skipped = position.token, position.skipped
    while True:
        places, following = await directory.page(caller.scope, wanted, token, size)
        listed = set(await caller.listed(places[skipped:]))
        for number, place in enumerate(places[skipped:], skipped + 1):
            after: _Position | None = _Position(token, number)
            if number == len(places):
                after = _Position(following) if following else None
            fold = (await logs.snapshot(place))[0] if place in listed else None
            yield fold, after
        if not following:
            return
        token, skipped = following, 0


def _wanted(params: ListTasksRequest) -> Wanted:
    """Return what Temporal can leave out; it knows less than the logs."""
    since = None
    if params.HasField("status_timestamp_after"):
        since = params.status_timestamp_after.ToDatetime(tzinfo=UTC)
    return Wanted(params.context_id, params.status in _RUNNING, since)


def _has_filters(params: ListTasksRequest) -> bool:
    return params.status != TaskState.TASK_STATE_UNSPECIFIED or params.HasField(
        "status_timestamp_after"
    )


def _shown(fold: TaskFold, params: ListTasksRequest) -> Task:
    task = apply_history_length(fold.snapshot(), params)
    if not params.include_artifacts:
        task.ClearField("artifacts")
    return task


def _is_wanted(fold: TaskFold, params: ListTasksRequest) -> bool:
    if fold.reply is not None:
        return False
    if params.status not in (TaskState.TASK_STATE_UNSPECIFIED, fold.state):
        return False
    if params.HasField("status_timestamp_after"):
        after, at = params.status_timestamp_after, fold.status.timestamp
        return (at.seconds, at.nanos) >= (after.seconds, after.nanos)
    return True
