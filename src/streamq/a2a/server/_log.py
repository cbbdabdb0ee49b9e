"""Reads the logs of tasks: what is there now, and what comes.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from temporalio.client import Client

from streamq._errors import ProducerGoneError
from streamq._events import Chunk, Seal, SealState
from streamq._settings import Settings
from streamq.a2a._entries import LOG_TOPIC
from streamq.driver import ChunkQueue
from streamq.opening._open import open_reader, stream_id
from streamq.temporal._serializer import conversion
from streamq.temporal._subscribe import subscribe

from ._directory import TaskDirectory, TaskPlace
from ._fold import TaskEvent, TaskFold

_TOLD_SECONDS = 30.0
_CACHED_TASKS = 256
_CACHED_BYTES = 32 * 1024 * 1024


class TaskLogs:
    """Reads the logs of one agent's tasks.

    It remembers, for the tasks that were asked for last, how far their logs have been folded. That
    is a cache of at most 256 tasks and 32 MiB: what is not in it is read again.

    Args:
        client: A client of the agent's namespace.
        queue: Where the logs are.
        settings: Limits and defaults.
        directory: The tasks.
    """

    def __init__(
        self, client: Client, queue: ChunkQueue, settings: Settings, directory: TaskDirectory
    ) -> None:
        self._client, self._queue, self._settings = client, queue, settings
        self._directory = directory
        self._cache: OrderedDict[str, tuple[TaskFold, str, int]] = OrderedDict()
        self._cached_bytes = 0

    async def snapshot(self, place: TaskPlace) -> tuple[TaskFold, str]:
        """Return a task as its log describes it now, and the cursor after what was read.

        The fold is the caller's own.

        Raises:
            StreamqError: The backend, or Temporal, does not answer.
        """
        fold, cursor = self._take(place)
        stream = stream_id(place.stream, self._settings)
        serializer, codec = conversion(
            self._client.data_converter, stream.name, self._client.namespace
        )
        async with open_reader(
            stream,
            from_=cursor or "beginning",
            queue=self._queue,
            settings=self._settings,
            serializer=serializer,
            codec=codec,
            require=["replay"],
        ) as reader:
            while events := await reader.read_batch(max_wait=0):
                for event in events:
                    if isinstance(event, Chunk):
                        fold.apply(event.value)
            cursor = reader.cursor
            is_sealed = reader.seal is not None
        if fold.is_empty:
            if (first := await self._directory.first_message(place)) is not None:
                fold.submitted(first)
        else:
            self._keep(place, fold, cursor)
        if place.has_ended or is_sealed:
            fold.gone(is_cancelled=place.was_cancelled)
        return fold, cursor

    async def follow(
        self, place: TaskPlace, fold: TaskFold, cursor: str, *, keep: bool
    ) -> AsyncGenerator[TaskEvent | None]:
        """Yield what comes after a cursor, and put it into the fold, until the task has ended.

        An entry that clients do not see, a message of theirs, yields ``None``. Nothing is buffered
        for a caller that is slow: it reads the log at its own pace.

        Args:
            place: The task.
            fold: The task as far as the cursor.
            cursor: Where to begin.
            keep: Whether the fold collects artifacts.

        Raises:
            StreamqError: The backend, or Temporal, does not answer.
        """
        handle: Any = self._client.get_workflow_handle(place.task_id)
        reading = subscribe(
            handle,
            LOG_TOPIC,
            from_=cursor or "beginning",
            queue=self._queue,
            settings=self._settings,
            idle_seconds=math.inf,
        )
        async with reading as events:
            try:
                async for event in events:
                    if isinstance(event, Chunk):
                        yield fold.apply(event.value, keep=keep)
                        if fold.is_terminal or fold.reply is not None:
                            return
                    elif isinstance(event, Seal):
                        cancelled = event.state is SealState.CANCELLED
                        yield fold.gone(is_cancelled=cancelled)
            except ProducerGoneError as exc:
                yield fold.gone(is_cancelled=exc.status == "CANCELED")

    async def until_told(self, place: TaskPlace, count: int) -> tuple[TaskFold, str]:
        """Return a task once its log has so much of what its workflow told, and the cursor there.

        Waits 30 seconds at most; then the task is returned as it is.

        Raises:
            StreamqError: The backend, or Temporal, does not answer.
        """
        fold, cursor = await self.snapshot(place)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOLD_SECONDS):
                while fold.told < count and not fold.is_terminal:
                    await self._await_entry(place, fold, cursor)
                    fold, cursor = await self.snapshot(place)
        return fold, cursor

    async def _await_entry(self, place: TaskPlace, fold: TaskFold, cursor: str) -> None:
        async with aclosing(self.follow(place, fold, cursor, keep=False)) as events:
            async for _ in events:
                return

    def _take(self, place: TaskPlace) -> tuple[TaskFold, str]:
        found = self._cache.pop(place.stream, None)
        if found is None:
            return TaskFold(place.task_id, place.context_id), ""
        fold, cursor, size = found
        self._cached_bytes -= size
        return fold, cursor

    def _keep(self, place: TaskPlace, fold: TaskFold, cursor: str) -> None:
        """Keep a copy, for the next one that asks."""
        kept = fold.copy()
        size = kept.size()
        self._take(place)
        self._cache[place.stream] = (kept, cursor, size)
        self._cached_bytes += size
        while len(self._cache) > _CACHED_TASKS or self._cached_bytes > _CACHED_BYTES:
            _, (_, _, dropped) = self._cache.popitem(last=False)
            self._cached_bytes -= dropped
