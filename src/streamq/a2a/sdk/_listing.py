"""Lists the tasks that a queue has, page by page, as the SDK's own stores do.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from contextlib import aclosing

from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import (
    ListTasksCursor,
    decode_list_tasks_cursor,
    encode_list_tasks_cursor,
)

from ._entry import TaskEntry
from ._journal import TaskJournal


async def list_tasks(
    journal: TaskJournal, owner: str, params: ListTasksRequest
) -> ListTasksResponse:
    """Return a page of an owner's tasks, the one that changed last first.

    Raises:
        InvalidParamsError: The token is none of ours.
        StreamqError: The backend does not answer.
    """
    found: list[ListTasksCursor] = []
    async with aclosing(journal.newest()) as newest:
        async for task_id, each in newest:
            if each.entry.owner == owner and _is_wanted(each.entry, params):
                found.append(ListTasksCursor(timestamp_ns=each.entry.at, task_id=task_id))
    found.sort(key=ListTasksCursor.sort_key, reverse=True)
    total = len(found)
    if params.page_token:
        cursor = decode_list_tasks_cursor(params.page_token)
        if cursor is None:
            raise InvalidParamsError("The page token is not valid: take it from an answer")
        found = [each for each in found if each.sort_key() < cursor.sort_key()]
    size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
    page = found[:size]
    response = ListTasksResponse(total_size=total, page_size=size)
    if len(found) > size:
        response.next_page_token = encode_list_tasks_cursor(page[-1])
    for place in page:
        if (history := await journal.read(place.task_id)).version:
            response.tasks.append(history.task)
    return response


def _is_wanted(entry: TaskEntry, params: ListTasksRequest) -> bool:
    if params.context_id and entry.context_id != params.context_id:
        return False
    if params.status and entry.state != params.status:
        return False
    if params.HasField("status_timestamp_after"):
        after = params.status_timestamp_after.ToNanoseconds()
        return entry.at is not None and entry.at >= after
    return True
