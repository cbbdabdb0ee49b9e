"""Gives a message to its task, or starts one, and returns what comes of it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

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
from a2a.utils.task import apply_history_length, validate_history_length

from streamq.a2a._push_config import PushConfig
from streamq.access import Action

from ._access_caller import Caller
from ._directory import TaskPlace, digest_of
from ._fold import TaskEvent, TaskFold
from ._lookup import Lookup
from ._message_checks import check_message
from ._push import add_push, wanted_push
from ._resources import server_logger

_logger = server_logger()


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A task that has a message.

    Attributes:
        place: Where it is.
        fold: The task as far as its log has been read.
        cursor: Where the log goes on.
        is_settled: Whether the answer to the message is there already.
    """

    place: TaskPlace
    fold: TaskFold
    cursor: str
    is_settled: bool = False

    async def follow(self, lookup: Lookup, *, keep: bool) -> AsyncGenerator[TaskEvent | None]:
        """Return what comes after the cursor."""
        return (await lookup.logs()).follow(self.place, self.fold, self.cursor, keep=keep)


async def send_message(
    lookup: Lookup, params: SendMessageRequest, context: ServerCallContext
) -> Task | Message:
    """Start or continue a task, and return it when it has ended or waits for its client.

    Raises:
        A2AError: The message, or the task that it names, takes no part in that.
        StreamqError: Temporal or the backend does not answer.
    """
    accepted = await _accept(lookup, params, context)
    fold, agent = accepted.fold, lookup.agent
    returns_at_once = params.configuration.return_immediately and not agent.can_reply
    if not returns_at_once and not accepted.is_settled:
        try:
            async with asyncio.timeout(agent.wait_seconds):
                async with aclosing(await accepted.follow(lookup, keep=True)) as events:
                    async for event in events:
                        if _answers(fold, event, params):
                            break
        except TimeoutError:
            _logger.info("task %s is answered before it has ended", accepted.place.task_id)
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
    accepted = await _accept(lookup, params, context)
    fold = accepted.fold
    if fold.reply is not None:
        yield fold.reply
        return
    has_begun = not lookup.agent.can_reply or bool(params.message.task_id) or fold.generation > 0
    if has_begun:
        yield apply_history_length(fold.snapshot(), params.configuration)
    if accepted.is_settled:
        return
    async with aclosing(await accepted.follow(lookup, keep=False)) as events:
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
) -> _Accepted:
    """Give a message to its task, or start one; nothing is started for a bad request."""
    validate_history_length(params.configuration)
    message = params.message
    check_message(message, lookup.agent.card)
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
) -> _Accepted:
    """Start a task, unless the same message has started it already."""
    message, caller = params.message, await lookup.caller(params.tenant, context)
    caller.check_may_start()
    scope, repeatable = caller.scope, message.message_id
    if message.context_id:
        context_id = message.context_id
    elif lookup.agent.message_ids_are_unique:
        context_id = scope.own_context_id(message.message_id)
    else:
        context_id, repeatable = str(uuid.uuid4()), ""
    push = await wanted_push(lookup, params.configuration)
    task_id = scope.new_task_id(context_id, repeatable)
    directory, extensions = await lookup.directory(), lookup.extensions(context)
    place = await directory.start(scope, message, context_id, task_id, extensions)
    if place is None:
        return await _repeat(lookup, caller, message, task_id, push)
    if push is not None:
        await (await lookup.push()).start(place, push)
    fold = TaskFold(task_id, context_id)
    first = Message()
    first.CopyFrom(message)
    first.task_id, first.context_id = task_id, context_id
    fold.submitted(first)
    return _Accepted(place, fold, "")


async def _repeat(
    lookup: Lookup, caller: Caller, message: Message, task_id: str, push: PushConfig | None
) -> _Accepted:
    """Return the task that the same message has started before."""
    place = await (await lookup.directory()).find(caller.scope, task_id)
    if place is None or place.started_by != digest_of(message):
        raise InvalidParamsError(
            f"Message id {message.message_id} was used in this context before, for a message with "
            "another content, which started a task; give each message an id of its own"
        )
    await caller.check(place, Action.WRITE, Action.READ)
    if push is not None:
        await (await lookup.push()).start(place, push)  # the first replica may not have come to it
    fold, cursor = await (await lookup.logs()).snapshot(place)
    is_settled = fold.is_terminal or fold.is_interrupted or fold.reply is not None
    return _Accepted(place, fold, cursor, is_settled=is_settled)


async def _continue(
    lookup: Lookup, place: TaskPlace, message: Message, push: PushConfig | None
) -> _Accepted:
    fold, cursor = await lookup.fold(place)
    if push is not None and not fold.is_terminal:
        await add_push(lookup, place, fold, cursor, push)
    further = Message()
    further.CopyFrom(message)
    further.context_id = place.context_id
    if not fold.is_terminal and fold.has_taken(further):
        # An earlier run of the workflow may have taken it, which Temporal does not compare.
        return _Accepted(place, fold, cursor, is_settled=fold.is_interrupted)
    told = None if fold.is_terminal else await (await lookup.directory()).send(place, further)
    if told is None:
        raise UnsupportedOperationError(
            f"Task {place.task_id} has ended and takes no further message"
        )
    fold, cursor = await (await lookup.logs()).until_told(place, told)
    # What the message led to may be in the log already.
    is_settled = fold.told >= told and (fold.is_interrupted or fold.is_terminal)
    return _Accepted(place, fold, cursor, is_settled=is_settled)


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
