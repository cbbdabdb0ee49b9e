"""Defines ``streamq.Stream``: a workflow that runs one streaming activity by its name."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from streamq._errors import ConfigurationError
from streamq.records._json_form import is_deeper
from streamq.temporal._event_json import MAX_DEPTH, unpack
from streamq.temporal._input import invalid_request
from streamq.temporal.activities._poll_limits import MAX_EVENTS, MAX_WAIT_SECONDS, WINDOW_SECONDS
from streamq.temporal.activities._poll_request import PollResult
from streamq.temporal.activities._summarize import StreamSummary
from streamq.temporal.workflow._end_stream import end_stream
from streamq.temporal.workflow._poll_options import PollOptions
from streamq.temporal.workflow._poller import Poller
from streamq.temporal.workflow._producer_call import ProducerCall, check_detached
from streamq.temporal.workflow._producers import (
    ActivityProducer,
    ChildProducer,
    Producer,
    ResumedProducer,
)

from ._delivery import ProgressReporter, Relay, reason, sum_up
from ._request import (
    LONGEST_WINDOW_SECONDS,
    StreamProgress,
    StreamRequest,
    StreamResult,
    StreamState,
    read_request,
    read_state,
)

STREAM_WORKFLOW = "streamq.Stream"

_POLLS_PER_DOUBLING = 500
_COUNTING_EVENTS = 100_000
_RECENT_EVENTS = 100
_RECENT_BYTES = 262_144  # a query's answer has Temporal's payload limit


@workflow.defn(name=STREAM_WORKFLOW)
class StreamWorkflow:
    """Runs a streaming activity and delivers its stream: ``none``, ``poll`` or ``signal``.

    The workflow fails with the activity's failure. Its cancellation is passed on to the activity
    and waited for, so that the stream is sealed CANCELLED before the workflow ends. If the activity
    could not seal its stream, because it timed out or was between two attempts, the workflow ends
    it with one more activity, ``streamq.seal``, unless the workflow will be retried. A failure to
    follow, forward or count the stream does not fail the workflow: ``error`` in the result states
    it.

    **History with** ``poll``. The activity runs in a workflow of its own, ``streamq.Produce``. This
    workflow continues as new when Temporal suggests it (about 4 MiB or 4,096 events), with its
    counts and ``recent``, while the producer runs.

    If not ``detached``, the window starts with ``window_seconds`` and doubles after every 500
    polls, up to 15 minutes, so that a run stays below Temporal's 51,200 events for weeks of
    streaming, at the price of coarser progress. Once Temporal suggests continue-as-new, events no
    longer pass through the history: ``progress`` still counts them, ``recent`` does not change any
    more, and ``carries_values`` is false. The stream itself, and its readers outside the workflow,
    are not affected.
    """

    def __init__(self) -> None:
        self._stream = ""
        self._chunks = self._bytes = self._attempt = self._resets = 0
        self._sealed = False
        self._cursor: str | None = None
        self._carries_values = False
        self._error: str | None = None
        self._recent: deque[tuple[dict[str, Any], int]] = deque()
        self._recent_bytes = 0

    @workflow.query
    def progress(self) -> StreamProgress:
        """Answer how far the stream has been followed."""
        return StreamProgress(
            self._stream,
            self._chunks,
            self._bytes,
            self._attempt,
            self._resets,
            self._sealed,
            self._cursor,
            self._carries_values,
            self._error,
        )

    @workflow.query
    def recent(self) -> list[dict[str, Any]]:
        """Answer the newest events that passed through the workflow: at most 100, or 256 KiB."""
        return [event for event, _ in self._recent]

    @workflow.run
    async def run(self, request: Any = None, state: Any = None) -> StreamResult:
        """Run the activity and return its result.

        Args:
            request: A :class:`StreamRequest`. Temporal passes it as plain data, which is checked
                here, so that a wrong or mistyped field fails the workflow instead of blocking it or
                being ignored.
            state: State of an earlier run; for this workflow's own use.
        """
        checked, restored = read_request(request), read_state(state)
        call = _call(checked)
        self._stream = call.stream
        reporter = ProgressReporter(checked)
        try:
            if checked.delivery == "signal":
                outcome: StreamResult | StreamState = await self._forward(checked, call)
            elif checked.delivery == "poll":
                outcome = await self._poll(checked, call, restored, reporter)
            else:
                outcome = await self._result(checked, await self._produce(call), None)
        except (Exception, asyncio.CancelledError):
            await reporter.finish(self.progress())
            raise
        if isinstance(outcome, StreamState):
            await reporter.settle()
            workflow.continue_as_new(
                args=[request, outcome], retry_policy=workflow.info().retry_policy
            )
        await reporter.finish(self.progress())
        return outcome

    async def _produce(self, call: ProducerCall) -> Any:
        producer = ActivityProducer(call)
        await producer.start()
        try:
            return await producer.result()
        except FailureError as exc:
            await self._end(exc)
            raise

    async def _forward(self, request: StreamRequest, call: ProducerCall) -> StreamResult:
        producer = ActivityProducer(call)
        await producer.start()
        relay = Relay(self._stream, request)
        result, failure = None, None
        try:
            result = await producer.result()
        except FailureError as exc:
            failure = exc
            if not await self._end(exc):
                relay.stop()
                raise
        summary = None
        try:
            forwarded = await relay.finish()
            summary = forwarded.summary if forwarded else None
        except (ActivityError, TimeoutError) as exc:
            self._fail("forwarding", exc)
        if failure is not None:
            raise failure
        return await self._result(request, result, summary)

    async def _poll(
        self,
        request: StreamRequest,
        call: ProducerCall,
        state: StreamState | None,
        reporter: ProgressReporter,
    ) -> StreamResult | StreamState:
        """Follow the stream; return a state if the next run must continue it."""
        self._restore(state)
        self._carries_values = True
        # A retried workflow gets the state that the failed run began with, but starts a producer.
        producer: Producer
        if state is not None and workflow.info().attempt == 1:
            producer = ResumedProducer(self._stream, None)
        else:
            producer = ChildProducer(call) if request.detached else ActivityProducer(call)
        await producer.start()
        # Awaited from the beginning, to notice a producer that ends without a seal.
        completion = asyncio.create_task(producer.result())
        completion.add_done_callback(_mark_retrieved)
        poller = Poller(
            self._stream, self._options(request, 0), producer=completion, cursor=self._cursor
        )
        failure: BaseException | None = None
        try:
            if not await self._follow(request, poller, reporter):
                return self._state()
            result = await completion
        except (FailureError, asyncio.CancelledError) as exc:
            failure = exc
            if is_cancelled_exception(exc) and workflow.cancellation_reason() is not None:
                failure = await producer.settle(cancel=True)
                if failure is None:  # it had completed before the cancellation
                    result = await producer.result()
        if failure is not None:
            if await self._end(failure) and not poller.sealed:
                await self._drain(poller)
            raise failure  # not in the handler: that would change its cause
        return await self._result(request, result, None)

    async def _follow(
        self, request: StreamRequest, poller: Poller, reporter: ProgressReporter
    ) -> bool:
        """Follow the stream; return whether its end was reached, or false to continue as new."""
        while not poller.ended:
            if workflow.info().is_continue_as_new_suggested():
                if request.detached:
                    return False
                self._carries_values = False
            poller.options = self._options(request, poller.polls)
            poller.values = self._carries_values
            try:
                found = await poller.poll()
            except ActivityError as exc:
                if is_cancelled_exception(exc):
                    raise
                self._fail("following", exc)
                break
            self._count(found)
            if found.count:
                reporter.report(self.progress())
        return True

    async def _drain(self, poller: Poller) -> None:
        """Count the events up to a seal that was stored in the meantime."""
        try:
            while not self._sealed:
                found = await poller.poll_after_end()
                if not found.count:
                    break
                self._count(found)
        except ActivityError as exc:
            self._fail("following", exc)

    async def _end(self, failure: BaseException) -> bool:
        return await end_stream(self._stream, failure, cancelled=workflow.cancellation_reason())

    async def _result(
        self, request: StreamRequest, result: Any, summary: StreamSummary | None
    ) -> StreamResult:
        if request.summary and (summary is None or summary.digest is None):
            try:
                summary = await sum_up(self._stream)
            except ActivityError as exc:
                self._fail("summing up", exc)
        if summary is not None:
            self._chunks, self._bytes = summary.chunks, summary.bytes
            self._attempt, self._resets = summary.attempts, summary.resets
            self._sealed = summary.state is not None
        elif request.delivery != "poll":
            return StreamResult(result, self._stream, error=self._error)
        return StreamResult(
            result,
            self._stream,
            self._chunks,
            self._bytes,
            self._attempt,
            self._resets,
            summary.digest if summary and request.summary else None,
            self._error,
        )

    def _fail(self, what: str, failure: ActivityError | TimeoutError) -> None:
        """Record why the stream is no longer delivered; that does not fail the workflow."""
        self._error = f"{what} stopped: {reason(failure)}"
        workflow.logger.warning("stream %s: %s", self._stream, self._error)

    def _options(self, request: StreamRequest, polls: int) -> PollOptions:
        growth = 1 if request.detached else 2 ** min(polls // _POLLS_PER_DOUBLING, 32)
        window = request.window_seconds
        if growth > 1:
            window = min(max(window, WINDOW_SECONDS) * growth, max(window, LONGEST_WINDOW_SECONDS))
        return PollOptions(
            window_seconds=window,
            max_wait_seconds=max(min(MAX_WAIT_SECONDS * growth, LONGEST_WINDOW_SECONDS), window),
            max_events=MAX_EVENTS if self._carries_values else _COUNTING_EVENTS,
        )

    def _count(self, found: PollResult) -> None:
        self._cursor = found.cursor
        self._sealed = found.sealed
        if found.resets:
            self._chunks = self._bytes = 0
            self._resets += found.resets
        self._chunks += found.chunks
        self._bytes += found.bytes
        self._attempt = found.attempt or self._attempt
        self._remember([event.to_dict() for event in unpack(found.events)[-_RECENT_EVENTS:]])

    def _remember(self, events: list[dict[str, Any]]) -> None:
        recent = self._recent
        for event in events:
            if is_deeper(event, MAX_DEPTH):
                continue  # the answer of a query, and the next run's input, could not be converted
            size = len(json.dumps(event))
            recent.append((event, size))
            self._recent_bytes += size
        while len(recent) > _RECENT_EVENTS or self._recent_bytes > _RECENT_BYTES:
            self._recent_bytes -= recent.popleft()[1]

    def _state(self) -> StreamState:
        return StreamState(
            self._cursor, self._chunks, self._bytes, self._attempt, self._resets, self.recent()
        )

    def _restore(self, state: StreamState | None) -> None:
        if state is None:
            return
        self._cursor = state.cursor
        self._chunks, self._bytes = state.chunks, state.bytes
        self._attempt, self._resets = state.attempt, state.resets
        self._remember(state.recent)


def _call(request: StreamRequest) -> ProducerCall:
    call = ProducerCall(
        request.activity,
        request.activity,
        request.args,
        request.topic,
        None,
        request.task_queue,
        None,
        None,
        timedelta(seconds=request.start_to_close_seconds),
        timedelta(seconds=request.heartbeat_seconds),
        RetryPolicy(maximum_attempts=request.max_attempts),
    )
    if request.delivery == "poll" and request.detached:
        try:
            check_detached(call)
        except ConfigurationError as exc:
            raise invalid_request(str(exc)) from None
    return call


def _mark_retrieved(completion: asyncio.Task[Any]) -> None:
    """Mark a failure as retrieved: asyncio would report it if the run continues as new."""
    if not completion.cancelled():
        completion.exception()
