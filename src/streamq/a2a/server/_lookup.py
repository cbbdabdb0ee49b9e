"""Finds the task that a request names, if its caller may see it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.server.context import ServerCallContext
from a2a.utils.errors import TaskNotFoundError

from streamq._events import shown
from streamq.access import Action

from ._access import Access
from ._access_caller import Caller
from ._access_request import is_trusted
from ._agent import Agent
from ._directory import TaskDirectory, TaskPlace
from ._extensions import activated, check_required, requested
from ._fold import TaskFold
from ._log import TaskLogs
from ._push_directory import PushDirectory
from ._resources import Resources

_LONGEST_SHOWN = 100  # an error is logged, and an id of no task may have any length and any line


class Lookup:
    """The tasks of one agent, for all operations, and their owners.

    Args:
        agent: The agent.
        resources: What they read from.
        access: Says who sends a request, and what it may do.
    """

    def __init__(self, agent: Agent, resources: Resources, access: Access) -> None:
        self.agent, self._resources, self._access = agent, resources, access

    async def directory(self) -> TaskDirectory:
        """Return the tasks in Temporal.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return await self._resources.directory()

    async def logs(self) -> TaskLogs:
        """Return the logs of tasks.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return await self._resources.logs()

    async def push(self) -> PushDirectory:
        """Return where push notifications of tasks go.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return await self._resources.push()

    async def caller(self, tenant: str, context: ServerCallContext) -> Caller:
        """Return who sends a request, with whose tasks it may see (``scope``).

        Args:
            tenant: The tenant that its body names.
            context: Its context.

        Raises:
            InvalidParamsError: Path and body name different tenants.
            AccessError: It is not permitted.
            ExtensionSupportRequiredError: It does not activate an extension that is required.
        """
        caller = await self._access.caller(tenant, context)
        if not is_trusted(context):
            check_required(self.agent, requested(context))
        return caller

    def extensions(self, context: ServerCallContext) -> list[str]:
        """Return the extensions that a request activates."""
        return activated(self.agent, requested(context))

    async def place(
        self, task_id: str, tenant: str, context: ServerCallContext, *actions: Action
    ) -> TaskPlace:
        """Return where a task is that the caller may read.

        Args:
            task_id: Its id.
            tenant: The tenant that the request names.
            context: Context of the request.
            actions: What else the caller has to be permitted to do with it.

        Raises:
            TaskNotFoundError: There is none that the caller may know of.
            AccessError: It may not do this with it.
            StreamqError: Temporal does not answer.
        """
        caller = await self.caller(tenant, context)
        found = None
        if caller.names_own_tenant:
            found = await (await self.directory()).find(caller.scope, task_id)
        if found is None:
            raise TaskNotFoundError(f"Task {shown(task_id[:_LONGEST_SHOWN])} not found")
        await caller.check(found, *actions, Action.READ)
        return found

    async def task(
        self, task_id: str, tenant: str, context: ServerCallContext, *actions: Action
    ) -> tuple[TaskPlace, TaskFold, str]:
        """Return a task: where it is, how its log describes it now, and the cursor after that.

        Args:
            task_id: Its id.
            tenant: The tenant that the request names.
            context: Context of the request.
            actions: As for :meth:`place`.

        Raises:
            TaskNotFoundError: There is none that the caller may know of, or a message was the
                answer.
            AccessError: The caller may not do this with it.
            StreamqError: Temporal or the backend does not answer.
        """
        place = await self.place(task_id, tenant, context, *actions)
        return place, *await self.fold(place)

    async def fold(self, place: TaskPlace) -> tuple[TaskFold, str]:
        """Return a task as its log describes it now, and the cursor after that.

        Raises:
            TaskNotFoundError: A message was the answer, and no task has come of it.
            StreamqError: The backend or Temporal does not answer.
        """
        fold, cursor = await (await self.logs()).snapshot(place)
        if fold.reply is not None:
            raise TaskNotFoundError(f"Task {place.task_id} not found")
        return fold, cursor
