"""Lets a client watch a task that runs.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.types.a2a_pb2 import SubscribeToTaskRequest, TaskState
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError

from ._event_ids import continuing, last_seen
from ._fold import TaskFold
from ._lookup import Lookup


async def subscribe_to_task(
    lookup: Lookup, params: SubscribeToTaskRequest, context: ServerCallContext
) -> AsyncGenerator[Event]:
    """Yield a task as it is, and then each of its events once, until it has ended.

    With the number of the last event that the client has seen, the events after that one come
    instead of the task: also those of a task that has ended meanwhile.

    Raises:
        TaskNotFoundError: There is none that the caller may see.
        UnsupportedOperationError: It has ended, and the client has seen all of it, or named none.
        InvalidParamsError: The number is none of this task's events.
        StreamqError: Temporal or the backend does not answer.
    """
    seen = last_seen()
    place, fold, cursor = await lookup.task(params.id, params.tenant, context)
    if seen is not None and seen > fold.generation:
        raise InvalidParamsError(
            f"Last-Event-ID {seen} is beyond the newest event that is kept of task "
            f"{place.task_id}, {fold.generation}; subscribe without it"
        )
    if fold.is_terminal and seen in (None, fold.generation):
        raise UnsupportedOperationError(
            f"Task {place.task_id} has ended: {TaskState.Name(fold.state)}"
        )
    if seen is None:
        yield fold.snapshot()
    else:
        yield continuing(seen)
    if seen is not None and seen < fold.generation:
        fold, cursor = TaskFold(place.task_id, place.context_id), ""
    logs = await lookup.logs()
    async with aclosing(logs.follow(place, fold, cursor, keep=False)) as events:
        async for event in events:
            if event is not None and fold.generation > (seen or 0):
                yield event
