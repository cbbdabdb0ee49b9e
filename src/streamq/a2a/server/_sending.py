"""Gives a message to its task, or starts one, and returns what comes of it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.types.a2a_pb2 import (
    Message,
    SendMessageRequest,
    Task,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError
from a2a.utils.input_mode_validator import validate_input_modes
from a2a.utils.task import apply_history_length, validate_history_length

from streamq.a2a._push_config import PushConfig
from streamq.access import Action

from ._directory import TaskPlace
from ._fold import TaskEvent, TaskFold
from ._lookup import Lookup
from ._push import add_push, wanted_push
from ._resources import server_logger

_LARGEST_MESSAGE = 500_000  # it goes into one payload of Temporal, as JSON, and in arguments

_logger = server_logger()


async def send_message(
    lookup: Lookup, params: SendMessageRequest, context: ServerCallContext
) -> Task | Message:
    """Start or continue a task, and return it when it has ended or waits for its client.

    Raises:
        A2AError: The message, or the task that it names, takes no part in that.
        StreamqError: Temporal or the backend does not answer.
    """
    place, fold, cursor = await _accept(lookup, params, context)
    logs, agent = await lookup.logs(), lookup.agent
    returns_at_once = params.configuration.return_immediately and not agent.can_reply
    if not returns_at_once:
        try:
            async with asyncio.timeout(agent.wait_seconds):
                async with aclosing(logs.follow(place, fold, cursor, keep=True)) as events:
                    async for event in events:
                        if _answers(fold, event, params):
                            break
        except TimeoutError:
            _logger.info("task %s is answered before it has ended", place.task_id)
    if fold.reply is not None:
        return fold.reply
    return apply_history_length(fold.snapshot(), params.configuration)


async def stream_message(
    lookup: Lookup, params: SendMessageRequest, context: ServerCallContext
) -> AsyncGenerator[Event]:
    """Start or continue a task, and yield it and then its events.

    The stream ends with the task, or when the task waits for its client.

    Raises:
        A2AError: The message, or the task that it names, takes no part in that.
        StreamqError: Temporal or the backend does not answer.
    """
    place, fold, cursor = await _accept(lookup, params, context)
    logs = await lookup.logs()
    has_begun = not lookup.agent.can_reply or bool(params.message.task_id)
    if has_begun:
        yield apply_history_length(fold.snapshot(), params.configuration)
    async with aclosing(logs.follow(place, fold, cursor, keep=False)) as events:
        async for event in events:
            if event is None:
                continue
            if not has_begun and not isinstance(event, Message):
                yield apply_history_length(_before(fold), params.configuration)
            has_begun = True
            yield event
            if fold.is_interrupted:
                return


async def _accept(
    lookup: Lookup, params: SendMessageRequest, context: ServerCallContext
) -> tuple[TaskPlace, TaskFold, str]:
    """Give a message to its task, or start one; nothing is started for a bad request."""
    validate_history_length(params.configuration)
    message = params.message
    validate_input_modes(message, lookup.agent.card)
    if (size := message.ByteSize()) > _LARGEST_MESSAGE:
        raise InvalidParamsError(
            f"The message has {size} bytes, and at most {_LARGEST_MESSAGE} are taken; send a "
            "large file as a part with a url"
        )
    if not message.task_id:
        return await _start(lookup, params, context)
    place = await lookup.place(message.task_id, params.tenant, context, Action.WRITE)
    if message.context_id and message.context_id != place.context_id:
        raise InvalidParamsError(
            f"Task {place.task_id} belongs to another context than the message"
        )
    push = await wanted_push(lookup, params.configuration)
    return await _continue(lookup, place, message, push)


async def _start(
    lookup: Lookup, params: SendMessageRequest, context: ServerCallContext
) -> tuple[TaskPlace, TaskFold, str]:
    message, caller = params.message, await lookup.caller(params.tenant, context)
    caller.check_may_start()
    context_id = message.context_id or str(uuid.uuid4())
    push = await wanted_push(lookup, params.configuration)
    place = await (await lookup.directory()).start(caller.scope, message, context_id)
    if push is not None:
        await (await lookup.push()).start(place, push)
    fold = TaskFold(place.task_id, context_id)
    first = Message()
    first.CopyFrom(message)
    first.task_id, first.context_id = place.task_id, context_id
    fold.submitted(first)
    return place, fold, ""


async def _continue(
    lookup: Lookup, place: TaskPlace, message: Message, push: PushConfig | None
) -> tuple[TaskPlace, TaskFold, str]:
    fold, cursor = await lookup.fold(place)
    if push is not None and not fold.is_terminal:
        await add_push(lookup, place, fold, cursor, push)
    further = Message()
    further.CopyFrom(message)
    further.context_id = place.context_id
    told = None if fold.is_terminal else await (await lookup.directory()).send(place, further)
    if told is None:
        raise UnsupportedOperationError(
            f"Task {place.task_id} has ended and takes no further message"
        )
    fold, cursor = await (await lookup.logs()).until_told(place, told)
    return place, fold, cursor


def _answers(fold: TaskFold, event: TaskEvent | None, params: SendMessageRequest) -> bool:
    """Whether a blocking request returns after an event; at the end it does in any case."""
    if event is None:
        return False
    return params.configuration.return_immediately or (
        fold.is_interrupted and isinstance(event, TaskStatusUpdateEvent)
    )


def _before(fold: TaskFold) -> Task:
    """Return a task as it was before its first event."""
    task = fold.snapshot()
    task.status.Clear()
    task.status.state = TaskState.TASK_STATE_SUBMITTED
    task.metadata["generation"] = 0
    return task
