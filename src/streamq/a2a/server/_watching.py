"""Lets a client watch a task that runs.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.types.a2a_pb2 import SubscribeToTaskRequest, TaskState
from a2a.utils.errors import UnsupportedOperationError

from ._lookup import Lookup


async def subscribe_to_task(
    lookup: Lookup, params: SubscribeToTaskRequest, context: ServerCallContext
) -> AsyncGenerator[Event]:
    """Yield a task as it is, and then each of its events once, until it has ended.

    Raises:
        TaskNotFoundError: There is none that the caller may see.
        UnsupportedOperationError: It has ended.
        StreamqError: Temporal or the backend does not answer.
    """
    place, fold, cursor = await lookup.task(params.id, params.tenant, context)
    if fold.is_terminal:
        raise UnsupportedOperationError(
            f"Task {place.task_id} has ended: {TaskState.Name(fold.state)}"
        )
    yield fold.snapshot()
    logs = await lookup.logs()
    async with aclosing(logs.follow(place, fold, cursor, keep=False)) as events:
        async for event in events:
            if event is not None:
                yield event
