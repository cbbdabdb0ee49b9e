"""Publishes from workflow code, by an activity: without signals, updates or repeated items."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, overload
from weakref import WeakKeyDictionary

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError

from ._items import (
    PublishEntry,
    PublishRequest,
    Topic,
    WorkflowStreamState,
    bind,
    to_payload,
)
from ._protocol import PATCH, PUBLISH_SIGNAL, PublishInput
from ._sending import BATCH_BYTES, check_size, send, take_request

T = TypeVar("T")

_PUBLISHER_TTL = timedelta(seconds=900)

# Every workflow run is an event loop of its own.
_streams: WeakKeyDictionary[asyncio.AbstractEventLoop, WorkflowStream] = WeakKeyDictionary()


class WorkflowStream:
    """Publishes from within a workflow. Create one in ``__init__`` of the workflow.

    ``publish`` returns at once. The activity ``streamq.publish`` sends the items, one call after
    the other. A workflow that returns or fails waits until the last item has arrived; one that
    continues as new passes the items that have not arrived to the next run. Once sending has failed
    without a retry, because the worker lacks the plugin for example, ``publish`` and ``flush``
    raise the failure from then on. They raise once if an item that came by signal was too large.

    Args:
        prior_state: State of the previous run, returned by :meth:`get_state`.

    Raises:
        RuntimeError: The workflow has one already.
    """

    def __init__(self, prior_state: WorkflowStreamState | None = None) -> None:
        loop = asyncio.get_running_loop()
        if loop in _streams:
            raise RuntimeError("this workflow has a WorkflowStream already; make one, in __init__")
        _streams[loop] = self
        # One publisher for each run: a retried or reset run may publish other items.
        self._publisher = f"workflow {workflow.info().run_id}"
        self._published = self._taken = 0
        self._handed_over: int | None = None
        self._inherited: list[PublishRequest] = list(prior_state.pending) if prior_state else []
        self._waiting: list[PublishEntry] = []
        self._current: PublishRequest | None = None
        self._sending: asyncio.Task[None] | None = None
        self._topic_types: dict[str, Any] = {}
        self._failure: ApplicationError | None = None
        self._sequences: dict[str, int] = dict(prior_state.sequences) if prior_state else {}
        self._last_seen = dict.fromkeys(self._sequences, workflow.now().timestamp())
        if prior_state:
            self._last_seen |= prior_state.last_seen
        if self._inherited:
            self._sending = asyncio.create_task(self._send())
        # Integrations look for it, too: where it is, the workflow takes what they publish.
        workflow.set_signal_handler(PUBLISH_SIGNAL, self._on_publish)

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
        """Wait until all published items have arrived. The original has no such method."""
        while self._sending is not None:
            await asyncio.shield(self._sending)
        self._raise_failure()

    def get_state(self, *, publisher_ttl: timedelta = _PUBLISHER_TTL) -> WorkflowStreamState:
        """Return the items that have not arrived yet, for the next run.

        If they are too large for a state, the end of this run waits for them, as without a state.

        Args:
            publisher_ttl: After this time without a batch, a publisher that sends signals is
                forgotten; a repeat of its newest batch would then be published twice. It has to
                exceed the ``max_retry_duration`` of publishers.
        """
        pending = [*([self._current] if self._current else []), *self._inherited]
        if self._waiting:
            pending.append(PublishRequest(self._publisher, self._taken + 1, list(self._waiting)))
        is_large = sum(each.size() for each in pending) > BATCH_BYTES
        self._handed_over = None if is_large else self._published
        since = (workflow.now() - publisher_ttl).timestamp()
        last_seen = {each: seen for each, seen in self._last_seen.items() if seen > since}
        sequences = {each: self._sequences[each] for each in last_seen}
        return WorkflowStreamState([] if is_large else pending, sequences, last_seen)

    @property
    def is_handed_over(self) -> bool:
        """Whether the state that was returned last has all items that have not arrived."""
        return self._handed_over == self._published

    def detach_pollers(self) -> None:
        """Do nothing: subscribers do not poll the workflow."""

    def truncate(self, up_to_offset: int) -> None:
        """Do nothing: the workflow stores no items, and streams expire with their time to live."""

    async def continue_as_new(
        self,
        build_args: Callable[[WorkflowStreamState], Sequence[Any]],
        *,
        publisher_ttl: timedelta = _PUBLISHER_TTL,
    ) -> NoReturn:
        """Wait for handlers, and continue as new with the arguments built for the state."""
        await workflow.wait_condition(workflow.all_handlers_finished)
        state = self.get_state(publisher_ttl=publisher_ttl)
        while not self.is_handed_over:
            await self.flush()
            await workflow.wait_condition(workflow.all_handlers_finished)
            state = self.get_state(publisher_ttl=publisher_ttl)
        workflow.continue_as_new(args=build_args(state))

    def _on_publish(self, batch: PublishInput) -> None:
        """Take a batch of a publisher that sends it through Temporal; a repeat is dropped.

        A publisher does so if it runs on a worker, or in a process, that does not route it. It
        raises nothing: the next ``flush`` or ``publish`` of the workflow does.
        """
        if not workflow.patched(PATCH):
            return  # this execution began when the signal was not taken
        if batch.publisher_id:
            if batch.sequence <= self._sequences.get(batch.publisher_id, 0):
                return
            self._sequences[batch.publisher_id] = batch.sequence
            self._last_seen[batch.publisher_id] = workflow.now().timestamp()
        for entry in batch.items:
            try:
                check_size(entry)
            except ApplicationError as exc:  # which would fail the workflow at once
                workflow.logger.warning("what a publisher has sent is lost: %s", exc)
                self._failure = self._failure or exc
            else:
                self._add(entry)

    def _publish_to_topic(self, topic: str, value: Any) -> None:
        payload = to_payload(value, workflow.payload_converter())
        entry = PublishEntry(topic, base64.b64encode(payload.SerializeToString()).decode())
        check_size(entry)
        self._add(entry)
        if self._sending is not None and self._sending.done():
            self._sending.result()  # raises: nothing more will be sent
        self._raise_failure()

    def _add(self, entry: PublishEntry) -> None:
        self._waiting.append(entry)
        self._published += 1
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    def _raise_failure(self) -> None:
        """Raise, once, that an item of another publisher is lost: the workflow decides."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _send(self) -> None:
        while self._inherited or self._waiting:
            request = self._inherited.pop(0) if self._inherited else self._next_request()
            self._current = request
            await send(request)
            self._current = None
        self._sending = None  # not after an error, which flush() raises

    def _next_request(self) -> PublishRequest:
        request = take_request(self._publisher, self._taken + 1, self._waiting)
        self._taken += len(request.items)
        return request


class WorkflowTopicHandle(Topic[T]):
    """Publishes to one topic from within a workflow; made by :meth:`WorkflowStream.topic`."""

    def __init__(self, stream: WorkflowStream, name: str, type: type[T]) -> None:
        super().__init__(name, type)
        self._stream = stream

    def publish(self, value: T | Payload) -> None:
        """Publish a value, or a payload as it is."""
        self._stream._publish_to_topic(self._name, value)


async def flush_workflow(*, continues: bool = False) -> None:
    """Wait until the items that the running workflow has published have arrived.

    It does not wait if the workflow continues as new and passes them on: a signal that came in the
    meantime would belong to this run, and the arguments of the next run are built already.
    """
    stream = _streams.get(asyncio.get_running_loop())
    if stream is not None and not (continues and stream.is_handed_over):
        await stream.flush()
