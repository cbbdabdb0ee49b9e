"""The workflow's side: publishing without a signal, an update or an item in the history twice."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, overload
from weakref import WeakKeyDictionary

from temporalio import workflow
from temporalio.api.common.v1 import Payload

from ._types import (
    PublishEntry,
    PublishRequest,
    Topic,
    WorkflowStreamState,
    bind,
    to_payload,
)

T = TypeVar("T")

_ACTIVITY = "streamq.publish"
_ACTIVITY_SECONDS = 60
_BATCH_BYTES = 500_000
_PUBLISHER_TTL = timedelta(seconds=900)

# Every workflow run is an event loop of its own.
_streams: WeakKeyDictionary[asyncio.AbstractEventLoop, WorkflowStream] = WeakKeyDictionary()


class WorkflowStream:
    """Publishes from within a workflow. Make one in ``__init__`` of the workflow.

    ``publish`` returns at once. Items are sent by the activity ``streamq.publish``, one after the
    other; a workflow that returns, fails or continues as new waits until the last one has arrived.

    Args:
        prior_state: What the run before left, by :meth:`get_state`.

    Raises:
        RuntimeError: The workflow has one already.
    """

    def __init__(self, prior_state: WorkflowStreamState | None = None) -> None:
        loop = asyncio.get_running_loop()
        if loop in _streams:
            raise RuntimeError("this workflow has a WorkflowStream already; make one, in __init__")
        _streams[loop] = self
        self._sequence = prior_state.sequence if prior_state is not None else 0
        self._waiting: list[tuple[str, Payload]] = []
        self._sending: asyncio.Task[None] | None = None
        self._topic_types: dict[str, Any] = {}

    @overload
    def topic(self, name: str) -> WorkflowTopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> WorkflowTopicHandle[T]: ...

    def topic(
        self, name: str, *, type: type[T] | None = None
    ) -> WorkflowTopicHandle[T] | WorkflowTopicHandle[Any]:
        """Return a handle for publishing to a topic.

        Raises:
            RuntimeError: The topic is bound to another type.
        """
        return WorkflowTopicHandle(self, name, bind(self._topic_types, name, type))

    async def flush(self) -> None:
        """Wait until everything that was published has arrived. Not in the original."""
        while self._sending is not None:
            await asyncio.shield(self._sending)

    def get_state(self, *, publisher_ttl: timedelta = _PUBLISHER_TTL) -> WorkflowStreamState:
        """Return what the next run needs."""
        return WorkflowStreamState(self._sequence + len(self._waiting))

    def detach_pollers(self) -> None:
        """Do nothing: subscribers do not ask the workflow."""

    def truncate(self, up_to_offset: int) -> None:
        """Do nothing: no item is kept here, and streams go away with their time to live."""

    async def continue_as_new(
        self,
        build_args: Callable[[WorkflowStreamState], Sequence[Any]],
        *,
        publisher_ttl: timedelta = _PUBLISHER_TTL,
    ) -> NoReturn:
        """Wait for handlers, and continue as new with the arguments for this state."""
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(args=build_args(self.get_state(publisher_ttl=publisher_ttl)))

    def _publish_to_topic(self, topic: str, value: Any) -> None:
        self._waiting.append((topic, to_payload(value, workflow.payload_converter())))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            request = self._next_request()
            await workflow.execute_activity(
                _ACTIVITY,
                request,
                start_to_close_timeout=timedelta(seconds=_ACTIVITY_SECONDS),
                summary=f"{len(request.items)} items",
            )
        self._sending = None  # and not after an error, which whoever flushes is told

    def _next_request(self) -> PublishRequest:
        request = PublishRequest(
            publisher=f"workflow {workflow.info().first_execution_run_id}",
            first=self._sequence + 1,
        )
        room = _BATCH_BYTES
        for topic, payload in self._waiting:
            data = payload.SerializeToString()
            room -= len(data) + len(topic)
            if request.items and room < 0:
                break
            request.items.append(PublishEntry(topic, base64.b64encode(data).decode()))
        del self._waiting[: len(request.items)]
        self._sequence += len(request.items)
        return request


class WorkflowTopicHandle(Topic[T]):
    """Publishes to one topic from within a workflow; made by :meth:`WorkflowStream.topic`."""

    def __init__(self, stream: WorkflowStream, name: str, type: type[T]) -> None:
        super().__init__(name, type)
        self._stream = stream

    def publish(self, value: T | Payload) -> None:
        """Publish a value, or a payload as it is."""
        self._stream._publish_to_topic(self._name, value)


async def flush_workflow() -> None:
    """Wait until what the running workflow has published has arrived, if it publishes at all."""
    stream = _streams.get(asyncio.get_running_loop())
    if stream is not None:
        await stream.flush()
