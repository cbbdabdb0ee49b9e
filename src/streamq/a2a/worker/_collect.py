"""Runs ``streamq.a2a.collect``: writes the log of a task, in which all its events have one order.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from temporalio import activity

from streamq._errors import SealedError, StreamNotFoundError, StreamqError
from streamq._events import Chunk, Event
from streamq.a2a._entries import LOG_TOPIC, TOLD_TOPIC, Told
from streamq.driver import close_all
from streamq.opening._open import retry_policy
from streamq.reading._tail import read_tail
from streamq.temporal._failure import application_error
from streamq.temporal.activities._context import (
    ActivityContext,
    activity_context,
    wait_without_slot,
)
from streamq.temporal.producer._opening import stream_of_attempt
from streamq.writing._writer import StreamWriter

from ._merge import Merge
from ._writing import open_task_writer, task_reader

COLLECT_ACTIVITY = "streamq.a2a.collect"

_LONGEST_BEAT_SECONDS = 10.0
_BATCHES = 16
"""Most batches that wait for the log; a topic that is faster waits in its own stream."""


@dataclass(frozen=True, slots=True)
class CollectRequest:
    """Whose events are put into one order.

    Attributes:
        task_id: Id of the task.
        context_id: Its context.
        topics: Topics that are artifacts from the beginning; the workflow tells further ones.
    """

    task_id: str
    context_id: str
    topics: list[str] = field(default_factory=list)


@activity.defn(name=COLLECT_ACTIVITY)
async def collect(request: CollectRequest) -> int:
    """Write the log of the task that this activity's workflow is, until the workflow ends it.

    The next attempt goes on where this one was stopped, which it learns from the log. It takes an
    activity slot only to begin, and ends with the workflow.

    Returns:
        How many events the clients got.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    work = _Collecting(request, activity_context()).run()
    return await wait_without_slot(work, longest_seconds=_LONGEST_BEAT_SECONDS)


class _Collecting:
    """One attempt to write a task's log.

    It owns a task for each topic, which reads that topic's stream. A bounded queue holds what they
    read. They end, at the latest, with this attempt.
    """

    def __init__(self, request: CollectRequest, context: ActivityContext) -> None:
        self._request, self._context = request, context
        self._merge = Merge(request.task_id, request.context_id)
        self._arrived: asyncio.Queue[tuple[str, list[Event]]] = asyncio.Queue(_BATCHES)
        self._told: deque[Event] = deque()
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> int:
        """Write until the end of the task."""
        try:
            try:
                writer = await open_task_writer(self._context, LOG_TOPIC)
            except SealedError:
                return await self._restore()  # an earlier attempt ended it and was not heard
            try:
                await self._restore()
                if not self._merge.is_ended:
                    await self._collect(writer)
                await writer.finish()
            finally:
                await close_all(self._stop_reading, writer.aclose)
        except StreamqError as exc:
            raise application_error(exc) from exc
        return self._merge.generation

    async def _restore(self) -> int:
        async with await task_reader(self._context, LOG_TOPIC) as log:
            while events := await log.read_batch(max_wait=0):
                for event in events:
                    if isinstance(event, Chunk):
                        self._merge.restore(event.value)
        return self._merge.generation

    async def _collect(self, writer: StreamWriter[Any]) -> None:
        self._follow(TOLD_TOPIC)
        self._follow_all()
        while not self._merge.is_ended:
            await self._take_next(writer)
            while self._told and not self._merge.is_ended:
                await self._take_told(writer)

    async def _take_next(self, writer: StreamWriter[Any]) -> None:
        topic, events = await self._next()
        if topic == TOLD_TOPIC:
            self._told += events
            return
        for event in events:
            for entry in self._merge.take(topic, event, now=_now()):
                await writer.send_chunk(entry)

    async def _take_told(self, writer: StreamWriter[Any]) -> None:
        """Take one event of the workflow, after everything that was stored before it."""
        event = self._told[0]
        if isinstance(event, Chunk) and event.offset > self._merge.offset(TOLD_TOPIC):
            told = Told.from_json(event.value)
            for topic in [each for each in self._reading if each != TOLD_TOPIC]:
                stored = await self._stored(topic)
                while self._merge.offset(topic) < stored:
                    await self._take_next(writer)
            for entry in self._merge.tell(event.offset, told):
                await writer.send_chunk(entry)
            self._follow_all()
        self._told.popleft()

    async def _stored(self, topic: str) -> int:
        """Return the offset of the newest event that is stored of a topic."""
        stream = await stream_of_attempt(self._context, activity.info(), topic)
        retry = retry_policy(self._context.settings, self._context.queue, stream)
        try:
            return (await read_tail(self._context.queue, stream, retry)).status.offset
        except StreamNotFoundError:
            return 0

    def _follow_all(self) -> None:
        """Follow the topics that are known, after the message that comes before all they have."""
        if self._merge.offset(TOLD_TOPIC):
            for topic in (*self._request.topics, *self._merge.topics):
                self._follow(topic)

    def _follow(self, topic: str) -> None:
        if topic not in self._reading:
            self._reading[topic] = asyncio.create_task(
                self._read(topic), name=f"streamq-a2a {self._request.task_id} {topic}"
            )

    async def _read(self, topic: str) -> None:
        async with await task_reader(self._context, topic) as reader:
            while reader.seal is None:
                if events := await reader.read_batch():
                    await self._arrived.put((topic, events))

    async def _next(self) -> tuple[str, list[Event]]:
        """Return the next events of any topic, or raise what stopped a reader."""
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        arriving = asyncio.create_task(self._arrived.get())
        try:
            while not arriving.done():
                open_ones = [each for each in self._reading.values() if not each.done()]
                await asyncio.wait([arriving, *open_ones], return_when=asyncio.FIRST_COMPLETED)
                for each in self._reading.values():
                    if each.done():
                        each.result()
            return arriving.result()
        finally:
            arriving.cancel()

    async def _stop_reading(self) -> None:
        for each in self._reading.values():
            each.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
