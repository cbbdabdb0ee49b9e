"""Delivers the events of tasks to every replica of the SDK's handler, from a queue.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from a2a.server.cluster import TaskEventStream, TaskVersion, VersionedEvent

from streamq._errors import ConfigurationError
from streamq._settings import Settings
from streamq.driver import START, ChunkQueue

from ._journal import TaskJournal

PREFIX = "a2a-task/"


class QueueTaskEventStream(TaskEventStream):
    """Events of the tasks that a :class:`QueueTaskStore` over the same queue stores.

    Every subscriber, on whichever replica, gets each event after its version once, in the order of
    the versions. It is woken by the queue and asks nobody in intervals.

    Args:
        queue: An open queue, which stays open; with replay, order, and a fence.
        settings: Tenant and limits; by default those that are configured.
        prefix: The same as that of the store.

    Raises:
        CapabilityError: The backend lacks a capability; the message names those that would do.
        ConfigurationError: A setting is wrong.
    """

    def __init__(
        self, queue: ChunkQueue, settings: Settings | None = None, *, prefix: str = PREFIX
    ) -> None:
        self._journal = TaskJournal(queue, settings, prefix)

    async def publish(self, task_id: str, event: VersionedEvent) -> None:
        """Do nothing: the store has stored the event, with the task."""

    async def subscribe(
        self, task_id: str, *, after: TaskVersion
    ) -> AsyncGenerator[VersionedEvent, None]:
        """Yield the events of a task that are newer than a version, without end.

        A task that does not exist yet is waited for.

        Raises:
            StreamqError: The backend stayed away, or a record is damaged.

        Cancellation: ends the subscription; close the generator if you leave it early.
        """
        known, position = _parts(after)
        async with aclosing(self._journal.follow(task_id, position)) as entries:
            async for each in entries:
                if each.version <= known:
                    continue
                event = each.entry.event
                if each.entry.is_task_event:
                    event = (await self._journal.read_until(task_id, each.version)).task
                if event is not None:
                    yield VersionedEvent(event, version_of(each.version, each.position))

    async def destroy(self, task_id: str) -> None:
        """Do nothing: what is stored expires by itself."""


def version_of(number: int, position: str) -> TaskVersion:
    """Return a version: its number, by which versions are ordered, and where reading goes on."""
    return TaskVersion(f"{number:016d} {position}")


def version_number(version: TaskVersion) -> int:
    """Return the number of a version; 0 for the missing one.

    Raises:
        ConfigurationError: It is another store's.
    """
    return _parts(version)[0]


def _parts(version: TaskVersion) -> tuple[int, str]:
    if version.is_missing:
        return 0, START
    value = version._value  # as the SDK's own stores do
    number, _, position = str(value).partition(" ")
    if not isinstance(value, str) or not number.isdecimal() or not position:
        raise ConfigurationError(
            f"{version!r} is not a version of a QueueTaskStore; use QueueTaskStore and "
            "QueueTaskEventStream together"
        )
    return int(number), position
