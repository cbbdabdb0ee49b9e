"""Connects a replica to Temporal and to the queue, when it is first used.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from temporalio.client import Client

from streamq._errors import ClosedError
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.driver_parts._single_flight import SingleFlight
from streamq.opening._open import open_queue
from streamq.temporal._connect import connect

from ._agent import Agent
from ._directory import TaskDirectory
from ._log import TaskLogs
from ._push_directory import PushDirectory


def server_logger() -> logging.Logger:
    """Return the logger of what serves clients."""
    return logging.getLogger("streamq.a2a")


@dataclass(frozen=True, slots=True)
class _Open:
    """The connections of a replica that are open.

    Attributes:
        queue: The queue.
        owned: The same, if it was opened here.
        directory: The tasks in Temporal.
        logs: Their logs.
        push: Where their push notifications go.
    """

    queue: ChunkQueue
    owned: ChunkQueue | None
    directory: TaskDirectory
    logs: TaskLogs
    push: PushDirectory


class Resources:
    """The connections of one replica, in one event loop.

    Args:
        agent: The agent.
        client: A client of its namespace; by default one is connected as configured.
        queue: An open queue, which stays open; by default one is opened as configured.
        settings: Settings to use; by default those that are configured.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        client: Client | None = None,
        queue: ChunkQueue | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._agent, self._client, self._queue = agent, client, queue
        self.settings = settings or load_settings()
        """The settings in use."""
        self._opened: _Open | None = None
        self._opening: SingleFlight[_Open] = SingleFlight(
            self._open, closed=lambda: ClosedError("this agent's server is closed")
        )

    async def directory(self) -> TaskDirectory:
        """Return the tasks of the agent in Temporal.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return (await self._all()).directory

    async def logs(self) -> TaskLogs:
        """Return the logs of the agent's tasks.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return (await self._all()).logs

    async def push(self) -> PushDirectory:
        """Return where push notifications of the agent's tasks go.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return (await self._all()).push

    async def open(self) -> ChunkQueue:
        """Return the queue.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return (await self._all()).queue

    async def open_for_the_past(self) -> ChunkQueue:
        """Return the queue: there is one for everything.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        return await self.open()

    async def aclose(self) -> None:
        """Close the queue, if it was opened here. Idempotent."""
        self._opening.close()
        await self._opening.gone()
        opened, self._opened = self._opened, None
        if opened is not None and opened.owned is not None:
            await calling.close(opened.owned)

    async def _all(self) -> _Open:
        return self._opened or await self._opening.result()

    async def _open(self) -> _Open:
        settings = self.settings
        client = self._client or await connect(settings)
        owned = None if self._queue is not None else await open_queue(settings)
        queue = self._queue or owned
        assert queue is not None
        directory = TaskDirectory(self._agent, client)
        logs = TaskLogs(client, queue, settings, directory)
        push = PushDirectory(self._agent, client, settings)
        self._opened = _Open(queue, owned, directory, logs, push)
        return self._opened
