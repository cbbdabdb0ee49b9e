"""Cancels a task, and waits for its end.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import CancelTaskRequest, Task, TaskState
from a2a.utils.errors import TaskNotCancelableError

from streamq.access import Action

from ._lookup import Lookup
from ._resources import server_logger

_CANCEL_SECONDS = 30.0

_logger = server_logger()


async def cancel_task(
    lookup: Lookup, params: CancelTaskRequest, context: ServerCallContext
) -> Task:
    """Cancel a task, and return it when it has ended, or after 30 seconds.

    Raises:
        TaskNotFoundError: There is none that the caller may see.
        AccessError: The caller may not cancel it.
        TaskNotCancelableError: It has ended.
        StreamqError: Temporal or the backend does not answer.
    """
    place, fold, cursor = await lookup.task(params.id, params.tenant, context, Action.CANCEL)
    directory, logs = await lookup.directory(), await lookup.logs()
    if fold.is_terminal or not await directory.cancel(place):
        raise TaskNotCancelableError(f"Task {place.task_id} has ended already")
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            async with aclosing(logs.follow(place, fold, cursor, keep=True)) as events:
                async for _ in events:
                    pass
    except TimeoutError:
        _logger.warning(
            "task %s has not ended %g s after its cancellation was requested; does "
            "a worker of its task queue run?",
            place.task_id,
            _CANCEL_SECONDS,
        )
    if fold.is_terminal and fold.state != TaskState.TASK_STATE_CANCELED:
        raise TaskNotCancelableError(f"Task {place.task_id} ended before it was cancelled")
    return fold.snapshot()
