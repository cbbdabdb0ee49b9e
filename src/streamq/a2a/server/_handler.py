"""Answers the operations of A2A from the log and from Temporal.

Any replica answers any request: what it needs is in the log, and in Temporal.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.input_mode_validator import validate_input_modes
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size

from streamq._errors import StreamqError

from ._agent import Agent
from ._directory import TaskPlace
from ._fold import TaskEvent, TaskFold
from ._listing import list_tasks
from ._resources import Resources, server_logger
from ._scope import Scope

F = TypeVar("F", bound=Callable[..., Any])

_CANCEL_SECONDS = 30.0
_LARGEST_MESSAGE = 500_000  # it goes into one payload of Temporal, as JSON, and in arguments
_BROKEN = "The agent failed to answer."
_UNAVAILABLE = "The agent cannot be reached at the moment; try again."

_logger = server_logger()


def _guarded(method: F) -> F:
    """Let callers see errors of A2A only; the log has the others."""

    @functools.wraps(method)
    async def run(*args: Any, **kwargs: Any) -> Any:
        with _disclosing_nothing():
            return await method(*args, **kwargs)

    return run  # type: ignore[return-value]


@contextmanager
def _disclosing_nothing() -> Iterator[None]:
    """Turn errors that are not of A2A into one with a fixed text; the log has the rest."""
    try:
        yield
    except A2AError:
        raise
    except StreamqError as exc:
        _logger.warning("a request failed: %s: %s", type(exc).__name__, exc)
        raise InternalError(_UNAVAILABLE) from exc
    except Exception as exc:
        _logger.exception("a request failed")
        raise InternalError(_BROKEN) from exc


class TaskHandler(RequestHandler):
    """The operations of A2A for one agent.

    It connects to Temporal and to the queue when it is first used, and :meth:`aclose` closes what
    it opened. Tasks belong to the tenant that a request names and to the user that the context
    builder of the SDK's routes finds: another one's task is unknown.

    Args:
        agent: The agent.
        resources: What it reads from; by default as configured.
    """

    def __init__(self, agent: Agent, resources: Resources | None = None) -> None:
        self.agent = agent
        """The agent."""
        self._resources = resources or Resources(agent)

    async def open(self) -> None:
        """Connect now; otherwise the first request does.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        await self._resources.logs()

    async def aclose(self) -> None:
        """Close what was opened. Idempotent."""
        await self._resources.aclose()

    @validate_request_params
    @_guarded
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        """Return a task, with at most as much history as the request wants."""
        validate_history_length(params)
        place = await self._find(params.id, params.tenant, context)
        fold, _ = await (await self._resources.logs()).snapshot(place)
        _check_is_task(fold, place)
        return apply_history_length(fold.snapshot(), params)

    @validate_request_params
    @_guarded
    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        """Return a page of the caller's tasks, in the order in which Temporal lists them."""
        validate_history_length(params)
        if params.HasField("page_size"):
            validate_page_size(params.page_size)
        scope = self._scope(params.tenant, context)
        directory, logs = await self._resources.directory(), await self._resources.logs()
        return await list_tasks(directory, logs, scope, params)

    @validate_request_params
    @_guarded
    async def on_cancel_task(
        self, params: CancelTaskRequest, context: ServerCallContext
    ) -> Task | None:
        """Cancel a task, and return it when it has ended, or after 30 seconds."""
        place = await self._find(params.id, params.tenant, context)
        directory, logs = await self._resources.directory(), await self._resources.logs()
        fold, cursor = await logs.snapshot(place)
        _check_is_task(fold, place)
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

    @validate_request_params
    @_guarded
    async def on_message_send(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> Task | Message:
        """Start or continue a task, and return it when it has ended or waits for its client."""
        place, fold, cursor = await self._accept(params, context)
        logs = await self._resources.logs()
        returns_at_once = params.configuration.return_immediately and not self.agent.can_reply
        if not returns_at_once:
            try:
                async with asyncio.timeout(self.agent.wait_seconds):
                    async with aclosing(logs.follow(place, fold, cursor, keep=True)) as events:
                        async for event in events:
                            if _answers(fold, event, params):
                                break
            except TimeoutError:
                _logger.info("task %s is answered before it has ended", place.task_id)
        if fold.reply is not None:
            return fold.reply
        return apply_history_length(fold.snapshot(), params.configuration)

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Start or continue a task, and yield it and then its events.

        The stream ends with the task, or when the task waits for its client.
        """
        with _disclosing_nothing():
            place, fold, cursor = await self._accept(params, context)
            logs = await self._resources.logs()
            has_begun = not self.agent.can_reply or bool(params.message.task_id)
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

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Yield a task as it is, and then each of its events once, until it has ended."""
        with _disclosing_nothing():
            place = await self._find(params.id, params.tenant, context)
            logs = await self._resources.logs()
            fold, cursor = await logs.snapshot(place)
            _check_is_task(fold, place)
            if fold.is_terminal:
                raise UnsupportedOperationError(
                    f"Task {place.task_id} has ended: {TaskState.Name(fold.state)}"
                )
            yield fold.snapshot()
            async with aclosing(logs.follow(place, fold, cursor, keep=False)) as events:
                async for event in events:
                    if event is not None:
                        yield event

    @validate_request_params
    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Refuse: push notifications are not supported."""
        raise PushNotificationNotSupportedError

    @validate_request_params
    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Refuse: push notifications are not supported."""
        raise PushNotificationNotSupportedError

    @validate_request_params
    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """Refuse: push notifications are not supported."""
        raise PushNotificationNotSupportedError

    @validate_request_params
    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Refuse: push notifications are not supported."""
        raise PushNotificationNotSupportedError

    @validate_request_params
    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """Refuse: there is no extended card."""
        raise UnsupportedOperationError("This agent has no extended card")

    def _scope(self, tenant: str, context: ServerCallContext) -> Scope:
        if tenant and context.tenant and tenant != context.tenant:
            raise InvalidParamsError("The path and the request name different tenants")
        user = context.user.user_name if context.user.is_authenticated else ""
        return Scope(self.agent.agent_name, context.tenant or tenant, user)

    async def _find(self, task_id: str, tenant: str, context: ServerCallContext) -> TaskPlace:
        directory = await self._resources.directory()
        place = await directory.find(self._scope(tenant, context), task_id)
        if place is None:
            raise TaskNotFoundError(f"Task {task_id} not found")
        return place

    async def _accept(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> tuple[TaskPlace, TaskFold, str]:
        """Give a message to its task, or start one; nothing is started for a bad request."""
        validate_history_length(params.configuration)
        message = params.message
        validate_input_modes(message, self.agent.card)
        if (size := message.ByteSize()) > _LARGEST_MESSAGE:
            raise InvalidParamsError(
                f"The message has {size} bytes, and at most {_LARGEST_MESSAGE} are taken; send a "
                "large file as a part with a url"
            )
        if params.configuration.HasField("task_push_notification_config"):
            raise PushNotificationNotSupportedError
        scope = self._scope(params.tenant, context)
        directory = await self._resources.directory()
        if not message.task_id:
            context_id = message.context_id or str(uuid.uuid4())
            place = await directory.start(scope, message, context_id)
            fold = TaskFold(place.task_id, context_id)
            first = Message()
            first.CopyFrom(message)
            first.task_id, first.context_id = place.task_id, context_id
            fold.submitted(first)
            return place, fold, ""
        place = await self._find(message.task_id, params.tenant, context)
        if message.context_id and message.context_id != place.context_id:
            raise InvalidParamsError(
                f"Task {place.task_id} belongs to another context than the message"
            )
        return await self._continue(place, message)

    async def _continue(
        self, place: TaskPlace, message: Message
    ) -> tuple[TaskPlace, TaskFold, str]:
        directory, logs = await self._resources.directory(), await self._resources.logs()
        fold, _ = await logs.snapshot(place)
        _check_is_task(fold, place)
        further = Message()
        further.CopyFrom(message)
        further.context_id = place.context_id
        told = None if fold.is_terminal else await directory.send(place, further)
        if told is None:
            raise UnsupportedOperationError(
                f"Task {place.task_id} has ended and takes no further message"
            )
        fold, cursor = await logs.until_told(place, told)
        return place, fold, cursor


def _check_is_task(fold: TaskFold, place: TaskPlace) -> None:
    """Refuse what was answered with a message: no task has come of it."""
    if fold.reply is not None:
        raise TaskNotFoundError(f"Task {place.task_id} not found")


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
