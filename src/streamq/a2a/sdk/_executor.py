"""Runs a workflow as the executor of the SDK's handler, and forwards the events of its log.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.cluster import ConcurrentTaskModificationError, VersionedTaskStore
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskManager
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
)
from a2a.utils.errors import (
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from streamq.a2a.server._access_request import trusted
from streamq.a2a.server._handler import TaskHandler

from ._forwarding import TaskEvent, forwarded, inner_id, missed, outer_task

_CANCEL_SECONDS = 30.0


class WorkflowExecutor(AgentExecutor):
    """An executor of the SDK's handler whose work is a workflow of Temporal.

    A message starts the agent's workflow, or is given to it. The events of the task's log are
    forwarded to the SDK, which numbers and stores them once more. The workflow outlives the
    replica; what is forwarded does not: a further message of the client on any replica, or
    :meth:`resume`, goes on where the last one stopped.

    The SDK's server decides who may call: settings for tokens do not concern this.

    Args:
        handler: The agent, as ``TaskHandler(agent)``. Close it after the SDK's handler.
    """

    def __init__(self, handler: TaskHandler) -> None:
        self._handler = handler
        self._running: dict[str, asyncio.Event] = {}

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Give the message to the workflow, and forward events until it ends, or asks its client.

        Raises:
            A2AError: The agent refuses the message, or cannot be reached.

        Cancellation: ends the forwarding, not the workflow.
        """
        message, task, task_id = Message(), context.current_task, str(context.task_id)
        message.CopyFrom(context.message or Message())
        # To a message without a context the SDK gives a new one, also if its task has one.
        message.context_id = str(context.context_id) if task is None else task.context_id
        message.task_id = inner_id(task)
        request = SendMessageRequest(message=message)
        events = self._handler.on_message_send_stream(request, trusted(context.call_context))
        with self._runs(task_id):
            async for event in _translated(events, task, task_id):
                await event_queue.enqueue_event(event)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Cancel the workflow, and return when its end has been forwarded, or after 30 seconds.

        Raises:
            A2AError: The agent cannot be reached.
        """
        task, task_id = context.current_task, str(context.task_id)
        ended = await self._cancelled(task, context.call_context)
        if ended is None or task is None:
            return
        if (running := self._running.get(task_id)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await running.wait()
            return
        for event in missed(task, ended, task_id):
            await event_queue.enqueue_event(event)

    async def stop_work(self, task: Task, context: ServerCallContext) -> None:
        """Cancel the workflow of a task that was stored as CANCELED: ``on_cancel`` of the store.

        The SDK calls an executor only if the task runs on the replica that is asked to cancel it.

        Raises:
            A2AError: The agent cannot be reached.
        """
        await self._cancelled(task, context)

    async def resume(
        self, task_id: str, store: VersionedTaskStore, context: ServerCallContext
    ) -> bool:
        """Forward what the replica that ran a task can no longer forward, until the task ends.

        Subscribers on all replicas get it. Call it only if that replica is gone: two that forward
        the same task disturb each other.

        Args:
            task_id: Id of the task in the SDK's handler.
            store: The store of that handler.
            context: A context of the task's owner.

        Returns:
            Whether everything was forwarded, to the end or to a question for the client; not, if
            somebody else wrote to the task.

        Raises:
            TaskNotFoundError: There is no such task, or the store has another owner for it.
            A2AError: The agent cannot be reached.

        Cancellation: what was forwarded is stored; the rest can be resumed.
        """
        stored = await store.get(task_id, context)
        if stored is None or not (inner := inner_id(stored.task)):
            raise TaskNotFoundError(f"Task {task_id} not found")
        manager = TaskManager(store, context, task_id, stored.task.context_id, None)
        try:
            async for event in _translated(self._following(inner, context), stored.task, task_id):
                await manager.process(event)
        except ConcurrentTaskModificationError:
            return False
        return True

    async def _following(self, inner: str, context: ServerCallContext) -> AsyncGenerator[Any]:
        request, context = SubscribeToTaskRequest(id=inner), trusted(context)
        try:
            async with aclosing(self._handler.on_subscribe_to_task(request, context)) as events:
                async for event in events:
                    yield event
        except UnsupportedOperationError:  # it has ended
            yield await self._handler.on_get_task(GetTaskRequest(id=inner), context)

    async def _cancelled(self, task: Task | None, context: ServerCallContext) -> Task | None:
        """Cancel the workflow of a task, and return what became of it; ``None`` without one."""
        if not (inner := inner_id(task)):
            return None
        found: Task | None
        context = trusted(context)
        try:
            found = await self._handler.on_cancel_task(CancelTaskRequest(id=inner), context)
        except TaskNotCancelableError:
            found = await self._handler.on_get_task(GetTaskRequest(id=inner), context)
        return found

    @contextlib.contextmanager
    def _runs(self, task_id: str) -> Iterator[None]:
        ended = self._running[task_id] = asyncio.Event()
        try:
            yield
        finally:
            ended.set()
            if self._running.get(task_id) is ended:
                del self._running[task_id]


async def _translated(
    events: AsyncGenerator[Any], task: Task | None, task_id: str
) -> AsyncGenerator[TaskEvent]:
    """Yield the agent's events as those of the SDK's task.

    Args:
        events: A stream of the agent, which may begin with the task as it is.
        task: What the SDK has of the task so far; ``None`` for a new one.
        task_id: Id of the task in the SDK's handler.
    """
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, Task):
                yield forwarded(event, task_id)
            elif task is None:
                yield outer_task(event, task_id)
            else:
                for each in missed(task, event, task_id):
                    yield each
