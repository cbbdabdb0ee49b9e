"""Finds the task that a request names, if its caller may see it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.server.context import ServerCallContext
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError

from ._agent import Agent
from ._directory import TaskDirectory, TaskPlace
from ._fold import TaskFold
from ._log import TaskLogs
from ._resources import Resources
from ._scope import Scope


class Lookup:
    """What the operations of one agent have in common: its tasks, and whose they are.

    Args:
        agent: The agent.
        resources: What they read from.
    """

    def __init__(self, agent: Agent, resources: Resources) -> None:
        self.agent, self._resources = agent, resources

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

    def scope(self, tenant: str, context: ServerCallContext) -> Scope:
        """Return whose tasks a request may see.

        Raises:
            InvalidParamsError: Path and request name different tenants.
        """
        if tenant and context.tenant and tenant != context.tenant:
            raise InvalidParamsError("The path and the request name different tenants")
        user = context.user.user_name if context.user.is_authenticated else ""
        return Scope(self.agent.agent_name, context.tenant or tenant, user)

    async def place(self, task_id: str, tenant: str, context: ServerCallContext) -> TaskPlace:
        """Return where a task is.

        Raises:
            TaskNotFoundError: There is none that the caller may see.
            StreamqError: Temporal does not answer.
        """
        found = await (await self.directory()).find(self.scope(tenant, context), task_id)
        if found is None:
            raise TaskNotFoundError(f"Task {task_id} not found")
        return found

    async def task(
        self, task_id: str, tenant: str, context: ServerCallContext
    ) -> tuple[TaskPlace, TaskFold, str]:
        """Return a task: where it is, how its log describes it now, and the cursor after that.

        Raises:
            TaskNotFoundError: There is none that the caller may see, or a message was the answer.
            StreamqError: Temporal or the backend does not answer.
        """
        place = await self.place(task_id, tenant, context)
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
