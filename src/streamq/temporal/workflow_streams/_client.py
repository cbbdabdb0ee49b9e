"""Publishes in batches and subscribes, in activities and other processes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar, overload

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import describe, open_queue, open_reader
from streamq.temporal._closing import ClosingWatch
from streamq.temporal._names import stream_name
from streamq.temporal._targets import WorkflowTarget
from streamq.temporal.activities._context import current
from streamq.temporal.activities._owner import stream_owner_of

from ._items import TOPIC, Numbered, Topic, WorkflowStreamItem, bind, to_payload
from ._protocol import PublishedBatch
from ._publication import publishing
from ._reading import read_items
from ._shared_log import SharedLog

T = TypeVar("T")

_BATCH_INTERVAL = timedelta(seconds=2)
_MAX_RETRY = timedelta(seconds=600)
_COOLDOWN = timedelta(milliseconds=100)


class WorkflowStreamClient:
    """Publishes to the log of a workflow and subscribes to it.

    As in the original, ``async with`` sends batches in the background and the rest at its end; a
    batch that was sent twice is delivered once.

    Args:
        handle: The workflow; its run id, if it has one, selects the chain of that run.
        client: Client whose data converter is used, by default that of the handle.
        batch_interval: Longest time that an item waits to be sent.
        max_batch_size: Number of waiting items that are sent at once.
        max_retry_duration: How long a batch is retried while the backend is unreachable.
        queue: An open queue to use; the original has no such argument. By default that of the
            plugin within an activity, else one that is opened as configured.
        settings: Limits; by default those that are configured.
    """

    def __init__(
        self,
        handle: WorkflowHandle[Any, Any],
        *,
        client: Client | None = None,
        batch_interval: timedelta = _BATCH_INTERVAL,
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = _MAX_RETRY,
        queue: ChunkQueue | None = None,
        settings: Settings | None = None,
    ) -> None:
        context = current.get()
        self._handle = handle
        self._client: Client = client or handle._client
        self._batch_interval = batch_interval
        self._max_batch_size = max_batch_size
        self._max_retry_duration = max_retry_duration
        self._queue = queue or (context.queue if context else None)
        self._settings = settings or (context.settings if context else load_settings())
        self._publisher = uuid.uuid4().hex
        self._number = 0
        self._buffer: list[tuple[str, Any]] = []
        self._pending: list[Numbered] | None = None
        self._pending_since = 0.0
        self._wakeup = asyncio.Event()
        self._lock = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._log: SharedLog | None = None
        self._opened: ChunkQueue | None = None
        self._topic_types: dict[str, Any] = {}

    @classmethod
    def create(
        cls,
        client: Client,
        workflow_id: str,
        *,
        batch_interval: timedelta = _BATCH_INTERVAL,
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = _MAX_RETRY,
        queue: ChunkQueue | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """Return a client for a workflow by its id."""
        return cls(
            client.get_workflow_handle(workflow_id),
            client=client,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
            queue=queue,
            settings=settings,
        )

    @classmethod
    def from_within_activity(
        cls,
        *,
        batch_interval: timedelta = _BATCH_INTERVAL,
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = _MAX_RETRY,
    ) -> Self:
        """Return a client for the workflow that scheduled the running activity.

        Raises:
            RuntimeError: No workflow scheduled it.
        """
        workflow_id = activity.info().workflow_id
        if workflow_id is None:
            raise RuntimeError(
                "from_within_activity needs an activity that a workflow has scheduled; use "
                "WorkflowStreamClient.create(activity.client(), workflow_id)"
            )
        return cls.create(
            activity.client(),
            workflow_id,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
        )

    async def __aenter__(self) -> Self:
        self._flusher = asyncio.create_task(self._run(), name="streamq-workflow-streams")
        return self

    async def __aexit__(self, *exc: object) -> None:
        flusher, self._flusher = self._flusher, None
        try:
            if flusher is not None:
                flusher.cancel()
                await asyncio.wait({flusher})
                if not flusher.cancelled():
                    flusher.result()  # raises the error that ended it
            await self._flush_all()
        finally:
            await close_all(self._release)

    @overload
    def topic(self, name: str) -> TopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> TopicHandle[T]: ...

    def topic(self, name: str, *, type: type[T] | None = None) -> TopicHandle[T] | TopicHandle[Any]:
        """Return a handle for a topic.

        Raises:
            RuntimeError: The topic is bound to another type.
        """
        return TopicHandle(self, name, bind(self._topic_types, name, type))

    async def flush(self) -> None:
        """Send the waiting items, and return when the backend has stored them.

        Raises:
            TimeoutError: A batch could not be sent within ``max_retry_duration``; it is dropped.
            StreamqError: The backend refuses it, or is unreachable; the batch is kept.
        """
        try:
            await self._flush_all()
        finally:
            if self._flusher is None:
                await close_all(self._release)

    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: type[T],
        poll_cooldown: timedelta = ...,
    ) -> AsyncIterator[WorkflowStreamItem[T]]: ...
    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: None = None,
        poll_cooldown: timedelta = ...,
    ) -> AsyncIterator[WorkflowStreamItem[Any]]: ...

    async def subscribe(
        self,
        topics: str | list[str] | None = None,
        from_offset: int = 0,
        *,
        result_type: type | None = None,
        poll_cooldown: timedelta = _COOLDOWN,
    ) -> AsyncIterator[WorkflowStreamItem[Any]]:
        """Iterate over items until the workflow has ended and all of them have been returned.

        Args:
            topics: Topics of the items; none means all.
            from_offset: Offset to begin at. Items that are no longer stored are skipped.
            result_type: Type to which values are decoded.
            poll_cooldown: Has no effect here.

        Raises:
            StreamNotFoundError: There is no such workflow, or the stream has been deleted.
        """
        if result_type is Payload:
            raise RuntimeError("result_type=Payload cannot be decoded; use result_type=RawValue")
        wanted = {topics} if isinstance(topics, str) else set(topics or ())
        first = await self._first_run_id()
        converter = self._converter.payload_converter
        reading = open_reader(
            stream_name(self._handle.id, first, TOPIC),
            queue=self._queue,
            settings=self._settings,
            gaps_as_events=True,
        )
        async with reading as reader:
            closing = ClosingWatch(self._client, self._handle.id)
            closed = asyncio.create_task(closing.wait_chain(first))
            try:
                found = read_items(
                    reader,
                    closing,
                    closed,
                    self._converter.payload_codec,
                    patience_seconds=self._settings.idle_seconds,
                )
                async with contextlib.aclosing(found) as items:
                    async for offset, item in items:
                        if offset < from_offset or (wanted and item.topic not in wanted):
                            continue
                        data = (
                            converter.from_payload(item.payload)
                            if result_type is None
                            else converter.from_payload(item.payload, result_type)
                        )
                        yield WorkflowStreamItem(item.topic, data, offset)
            finally:
                await close_all(partial(_end, closed))

    async def get_offset(self) -> int:
        """Return the offset of the next item."""
        name = stream_name(self._handle.id, await self._first_run_id(), TOPIC)
        async with contextlib.AsyncExitStack() as stack:
            queue = self._queue or self._opened
            if queue is None:
                queue = await stack.enter_async_context(open_queue(self._settings))
            try:
                return (await describe(name, queue=queue, settings=self._settings)).offset
            except StreamNotFoundError:
                return 0

    # -- private -------------------------------------------------------------------------------

    @property
    def _converter(self) -> DataConverter:
        return self._client.data_converter

    def _publish_to_topic(self, topic: str, value: Any, *, force_flush: bool = False) -> None:
        self._buffer.append((topic, value))
        is_full = self._max_batch_size is not None and len(self._buffer) >= self._max_batch_size
        if force_flush or is_full:
            self._wakeup.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._batch_interval.total_seconds()):
                    await self._wakeup.wait()
            self._wakeup.clear()
            try:
                await self._flush()
            except StreamqError as exc:
                if not exc.retryable:
                    raise

    async def _flush_all(self) -> None:
        while self._pending is not None or self._buffer:
            await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            if self._pending is None:
                if not self._buffer:
                    return
                self._pending = self._take()
                self._pending_since = time.monotonic()
            elif time.monotonic() - self._pending_since > self._max_retry_duration.total_seconds():
                self._pending = None
                raise TimeoutError(
                    f"a batch could not be sent within {self._max_retry_duration}; it is dropped, "
                    "and part of it may have arrived"
                )
            await self._store(self._pending)
            self._pending = None

    async def _store(self, items: list[Numbered]) -> None:
        publication = publishing.get()
        if publication is not None and publication.takes(self._handle.id, self._handle.run_id):
            pairs = [(each.topic, each.payload) for each in items]
            await publication.write_batch(PublishedBatch(self._publisher, items[0].number, pairs))
            return
        if self._log is None:
            self._log = await self._open_log()
        codec = self._converter.payload_codec
        await self._log.write([await each.encode(codec) for each in items])

    def _take(self) -> list[Numbered]:
        # Items that cannot be converted stay in the buffer, so that none is lost.
        converter = self._converter.payload_converter
        taken = [
            Numbered(topic, to_payload(value, converter), self._publisher, number)
            for number, (topic, value) in enumerate(self._buffer, self._number + 1)
        ]
        del self._buffer[: len(taken)]
        self._number += len(taken)
        return taken

    async def _open_log(self) -> SharedLog:
        name = stream_name(self._handle.id, await self._first_run_id(), TOPIC)
        if self._queue is None and self._opened is None:
            self._opened = await open_queue(self._settings)
        queue = self._queue or self._opened
        assert queue is not None
        return SharedLog(queue, self._settings, name)

    async def _release(self) -> None:
        log, self._log = self._log, None
        opened, self._opened = self._opened, None
        try:
            if log is not None:
                await log.aclose()
        finally:
            if opened is not None:
                await calling.close(opened)

    async def _first_run_id(self) -> str:
        context = current.get()
        origin = context.origin if context is not None else None
        if origin is not None and activity.in_activity():
            info = activity.info()
            if info.workflow_id == self._handle.id == (origin.workflow_id or info.workflow_id):
                _, first = await stream_owner_of(info, origin, self._client, self._settings)
                return first
        target = WorkflowTarget(self._handle)
        target.client = self._client
        found, _ = await target.find(self._settings, start_seconds=0.0)
        return found.run_id


async def _end(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.wait({task})


class TopicHandle(Topic[T]):
    """One topic of a workflow's log; made by :meth:`WorkflowStreamClient.topic`."""

    def __init__(self, client: WorkflowStreamClient, name: str, type: type[T]) -> None:
        super().__init__(name, type)
        self._client = client

    def publish(self, value: T | Payload, *, force_flush: bool = False) -> None:
        """Add a value to the next batch; with ``force_flush`` that is sent at once."""
        self._client._publish_to_topic(self._name, value, force_flush=force_flush)

    async def subscribe(
        self, from_offset: int = 0, *, poll_cooldown: timedelta = _COOLDOWN
    ) -> AsyncIterator[WorkflowStreamItem[T]]:
        """Iterate over the topic's items."""
        async for item in self._client.subscribe(
            [self._name], from_offset, result_type=self._type, poll_cooldown=poll_cooldown
        ):
            yield item
