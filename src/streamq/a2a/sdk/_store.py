"""Keeps tasks for the SDK's handler in a queue, with versions.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from a2a.server.cluster import (
    ConcurrentTaskModificationError,
    StoredTask,
    TaskVersion,
    VersionedTaskStore,
)
from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.owner_resolver import OwnerResolver, resolve_user_scope
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, Task, TaskState

from streamq._settings import Settings
from streamq.a2a._states import TERMINAL_STATES
from streamq.driver import ChunkQueue

from ._event_stream import PREFIX, version_number, version_of
from ._history import TaskHistory
from ._journal import TaskJournal
from ._listing import list_tasks

OnCancel = Callable[[Task, ServerCallContext], Awaitable[None]]
"""Is called after a task was stored as CANCELED, by whichever replica was asked to."""


class QueueTaskStore(VersionedTaskStore):
    """Tasks of the SDK's handler, in a queue that all replicas use.

    Each write is one record with what has changed, and the event of it: use it together with a
    :class:`QueueTaskEventStream` over the same queue. A write follows a version; of two that follow
    the same one, in whichever processes, the second raises ``ConcurrentTaskModificationError``.
    What :meth:`save` has returned, every replica reads. Tasks are kept for ``STREAMQ_TTL_SECONDS``
    after their last write.

    A task belongs to the owner that its first write had; another one's is unknown, and no write
    takes it over.

    Args:
        queue: An open queue, which stays open; with replay, order, and a fence.
        settings: Tenant and limits; by default those that are configured.
        owner_resolver: Returns the owner for a request; by default the user's name.
        prefix: What the names of the streams begin with. Agents that share a queue and a tenant
            need different ones.
        on_cancel: Called after a task was stored as CANCELED, such as
            :meth:`WorkflowExecutor.stop_work`: the SDK tells the executor only if the task runs on
            the replica that is asked.

    Raises:
        CapabilityError: The backend lacks a capability; the message names those that would do.
        ConfigurationError: A setting is wrong.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        settings: Settings | None = None,
        *,
        owner_resolver: OwnerResolver = resolve_user_scope,
        prefix: str = PREFIX,
        on_cancel: OnCancel | None = None,
    ) -> None:
        self._journal = TaskJournal(queue, settings, prefix)
        self._owner_of, self._on_cancel = owner_resolver, on_cancel

    async def save(
        self,
        task: Task,
        *,
        event: Event | None = None,
        prev: Task | None = None,
        prev_version: TaskVersion,
        context: ServerCallContext,
    ) -> TaskVersion:
        """Store a task, and return its new version.

        A task that becomes CANCELED overwrites one that has not ended, whatever its version.

        Raises:
            ConcurrentTaskModificationError: The version is stale; or the task that is to be
                cancelled has ended, or does not exist; or it is another owner's.
            ChunkTooLargeError: The change does not fit into a record of the backend.
            StreamqError: The backend does not answer. The write may be stored.

        Cancellation: the write is stored, or not.
        """
        if task.status.state == TaskState.TASK_STATE_CANCELED:
            found = await self._cancel(task, event, context)
            if self._on_cancel is not None:
                await self._on_cancel(task, context)
            return found
        history = await self._at(task.id, version_number(prev_version))
        owner = self._owner_of(context)
        if history is None or (history.version and history.owner != owner):
            raise ConcurrentTaskModificationError(task.id)
        return await self._append(history, task, event, owner)

    async def get(self, task_id: str, context: ServerCallContext) -> StoredTask | None:
        """Return a task with its version; ``None`` if there is none, or it is another owner's.

        Raises:
            StreamqError: The backend does not answer.
        """
        history = await self._journal.read(task_id)
        if not history.version or history.owner != self._owner_of(context):
            return None
        return StoredTask(history.task, version_of(history.version, history.position))

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return a page of the owner's tasks, the one that changed last first.

        It looks at the newest record of every task, of all owners.

        Raises:
            InvalidParamsError: The page token is none of ours.
            StreamqError: The backend does not answer.
        """
        return await list_tasks(self._journal, self._owner_of(context), params)

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Remove a task of the owner; no error if there is none.

        Raises:
            StreamqError: The backend does not answer.
        """
        if await self.get(task_id, context) is not None:
            await self._journal.delete(task_id)

    async def _at(self, task_id: str, version: int) -> TaskHistory | None:
        """Return a task if that is its version; appending finds out if it is not any more."""
        if not version:
            return TaskHistory()
        known = self._journal.known(task_id)
        if known is None or known.version != version:
            known = await self._journal.read(task_id)
        return known if known.version == version else None

    async def _cancel(
        self, task: Task, event: Event | None, context: ServerCallContext
    ) -> TaskVersion:
        owner = self._owner_of(context)
        while True:
            history = await self._journal.read(task.id)
            has_ended = history.task.status.state in TERMINAL_STATES
            if not history.version or has_ended or history.owner != owner:
                raise ConcurrentTaskModificationError(task.id)
            try:
                return await self._append(history, task, event, owner)
            except ConcurrentTaskModificationError:
                continue  # a write came between: what it stored is read again

    async def _append(
        self, history: TaskHistory, task: Task, event: Event | None, owner: str
    ) -> TaskVersion:
        await self._journal.append(task.id, history, history.entry_for(task, event, owner))
        return version_of(history.version, history.position)
