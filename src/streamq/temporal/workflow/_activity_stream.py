"""Reads, in workflow code, the stream of an activity while that runs."""

from __future__ import annotations

import dataclasses
from collections import deque
from types import TracebackType
from typing import Any, Generic, Self, cast

from temporalio import workflow
from temporalio.exceptions import FailureError
from typing_extensions import TypeVar

from streamq._errors import ConfigurationError
from streamq._events import Event
from streamq.records._values import T
from streamq.temporal._event_json import unpack
from streamq.temporal._failure import is_refused, is_without_plugin
from streamq.temporal._serializer import PayloadSerializer
from streamq.temporal.activities._poll_request import PollResult

from ._end_stream import end_stream
from ._handover import Handover
from ._poller import Poller
from ._producers import Producer

R = TypeVar("R", default=Any)

_LEFT = "the workflow reads no further"


class ActivityStream(Generic[T, R]):
    """A streaming activity and its stream, in workflow code; see :func:`stream_activity`.

    For one task at a time. Polls are made while iterating, and only when all events of the last
    poll have been taken: a slow reader does not delay the producer, and keeps little in memory.
    """

    def __init__(
        self,
        producer: Producer,
        handover: Handover,
        serializer: PayloadSerializer[Any],
        *,
        detached: bool,
    ) -> None:
        self._producer = producer
        self._handover = handover
        self._serializer = serializer
        self._detached = detached
        self._buffer: deque[Event[Any]] = deque()
        self._offset = handover.offset
        self._cursor = handover.cursor
        self._ended = handover.ended
        self._is_seal_known = handover.ended
        self._handed_over = False
        self._is_refusal_raised = False
        self._poller: Poller | None = None
        # Before anything is started, which a mistake in an option would leave behind.
        handover.check()

    @property
    def stream(self) -> str:
        """Name of the stream."""
        return self._handover.stream

    @property
    def should_continue_as_new(self) -> bool:
        """Whether Temporal suggests it because of the history's length."""
        return workflow.info().is_continue_as_new_suggested()

    async def __aenter__(self) -> Self:
        """Start the activity."""
        await self._producer.start()
        known = self._handover
        self._poller = Poller(
            known.stream,
            known,
            producer=self._producer.future,
            producer_id=self._producer.producer_id,
            cursor=known.cursor,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for the activity if the stream was read to its end, else cancel it and wait.

        Raises:
            ActivityError: The stream belongs to another call of this workflow, and nothing has
                raised that yet.
        """
        if self._handed_over or kind is GeneratorExit:  # the latter: this worker evicts the run
            return
        at_end = self._ended and exc is None
        if at_end and self._producer.future is None:
            return  # a producer of an earlier run ends by itself
        reason = None
        if not at_end:
            reason = workflow.cancellation_reason()
            reason = _LEFT if reason is None else reason
        is_done = self._producer.future is not None and self._producer.future.done()
        failure = await self._producer.settle(cancel=not at_end)
        if failure is not None:
            await self._end(failure, None if is_done else reason)
            if exc is None and not self._is_refusal_raised and is_refused(failure):
                raise failure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
        """Return the next event.

        Raises:
            StopAsyncIteration: The stream has ended.
            ActivityError: The stream cannot be read, because events were trimmed for example; or
                the activity found no plugin on its worker, and wrote nothing; or the stream belongs
                to another call of this workflow.
        """
        refusal = self._producer.refusal
        if refusal is not None:
            self._is_refusal_raised = True
            raise refusal
        while not self._buffer:
            if self._ended:
                raise StopAsyncIteration
            await self._fill()
        event = self._buffer.popleft()
        self._offset = event.offset
        return event

    async def result(self) -> R:
        """Wait for the activity and return its result.

        Cancelling the wait cancels an activity of this run.

        Raises:
            ActivityError: The activity failed, or was cancelled.
            FailureError: The ``streamq.Produce`` of a detached activity was ended from outside.
        """
        try:
            return cast(R, await self._producer.result())
        except FailureError as exc:
            self._is_refusal_raised = self._is_refusal_raised or is_refused(exc)
            await self._end(exc, workflow.cancellation_reason())
            raise

    def handover(self) -> Handover:
        """Return where the next run continues, after the event that was taken last.

        After this call the stream belongs to the next run: leaving the block stops nothing. Only
        for a detached activity.

        Raises:
            ConfigurationError: The activity is not detached; it ends with this run.
        """
        if not self._detached:
            raise ConfigurationError(
                f"the producer of stream {self.stream} ends with this run, so that it cannot be "
                "handed over; start it with stream_activity(..., detached=True)"
            )
        self._handed_over = True
        return dataclasses.replace(
            self._handover,
            offset=self._offset,
            cursor=self._cursor if self._buffer else self._polls.cursor,
            ended=self._ended and not self._buffer,
        )

    @property
    def _polls(self) -> Poller:
        if self._poller is None:
            raise RuntimeError(
                "enter the stream first: 'async with stream_activity(...) as stream'"
            )
        return self._poller

    async def _fill(self) -> None:
        poller = self._polls
        cursor = poller.cursor
        found: PollResult = await poller.poll()
        self._cursor = cursor
        self._take(found)
        if poller.ended:
            self._ended = True
            self._is_seal_known = poller.sealed
            if not poller.sealed:
                await self._end_unsealed(poller)

    async def _end_unsealed(self, poller: Poller) -> None:
        """End the stream of a producer that ended without a seal, and deliver the new seal."""
        failure = await self._producer.settle(cancel=False)
        if failure is not None and await self._end(failure, workflow.cancellation_reason()):
            self._take(await poller.poll_after_end())

    async def _end(self, failure: FailureError, cancelled: str | None) -> bool:
        """End the stream if no seal was seen; return whether it was ended here."""
        if self._is_seal_known or (not self._offset and is_without_plugin(failure)):
            return False
        self._is_seal_known = True
        return await end_stream(self.stream, failure, cancelled=cancelled)

    def _take(self, found: PollResult) -> None:
        # A cursor in the middle of a batch, or after the seal, returns some events again.
        events = unpack(found.events, self._serializer)
        self._buffer.extend(event for event in events if event.offset > self._offset)
