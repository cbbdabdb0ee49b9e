"""Opens the SDK's interfaces of its cluster mode over queues, as two replicas have them."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import (
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from pydantic import SecretStr

from streamq import Settings, load_settings
from streamq.a2a.sdk import QueueTaskEventStream, QueueTaskStore
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


@dataclasses.dataclass
class Side:
    """What one replica has.

    Attributes:
        queue: Its connection.
        settings: Its settings.
        store: The tasks.
        events: Their events.
    """

    queue: ChunkQueue
    settings: Settings
    store: QueueTaskStore
    events: QueueTaskEventStream


@asynccontextmanager
async def two_sides(backend: str, folder: Path, **settings: Any) -> AsyncIterator[list[Side]]:
    """Open two replicas with connections of their own."""
    found = load_settings(backend=backend, retry_seconds=5, **settings)
    async with AsyncExitStack() as stack:
        queues: list[ChunkQueue] = []
        if backend == "redis":
            from streamq_redis import RedisDriver, RedisSettings
            from streamq_redis.embedded import EmbeddedRedis

            server = stack.enter_context(EmbeddedRedis())
            for _ in range(2):
                options = RedisSettings(url=SecretStr(server.url))
                queues.append(await RedisDriver.open(OPTIONS, options))
        else:
            for _ in range(2):
                path = SqliteSettings(path=folder / "tasks.db")
                queues.append(await SqliteDriver.open(OPTIONS, path))
        for queue in queues:
            stack.push_async_callback(queue.aclose)
        yield [
            Side(queue, found, QueueTaskStore(queue, found), QueueTaskEventStream(queue, found))
            for queue in queues
        ]


class Named(User):
    """A user with a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return self._name


def of(name: str) -> ServerCallContext:
    """Return the context of a user's request."""
    return ServerCallContext(user=Named(name))


def new_task(text: str = "go", *, context_id: str = "context") -> Task:
    """Return a task as it begins."""
    task = Task(id=uuid.uuid4().hex, context_id=context_id)
    task.status.state = TaskState.TASK_STATE_SUBMITTED
    task.history.append(said(text))
    return task


def said(text: str) -> Message:
    """Return a message of the user."""
    return Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)])


def chunk(task: Task, text: str, *, append: bool = True, artifact: str = "a") -> Any:
    """Return an update of an artifact."""
    return TaskArtifactUpdateEvent(
        task_id=task.id,
        context_id=task.context_id,
        append=append,
        artifact=Artifact(artifact_id=artifact, parts=[Part(text=text)]),
    )


def status(task: Task, state: str, text: str = "", *, seconds: int = 0) -> TaskStatusUpdateEvent:
    """Return a status update."""
    found = TaskStatus(state=f"TASK_STATE_{state}")
    if text:
        found.message.CopyFrom(said(text))
    if seconds:
        found.timestamp.seconds = seconds
    return TaskStatusUpdateEvent(task_id=task.id, context_id=task.context_id, status=found)
