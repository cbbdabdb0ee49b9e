"""``streamq.Stream``: a workflow that runs one streaming activity, startable by name."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from ._interceptor import workflow_retries
from ._names import stream_name, stream_topic
from ._poll import PollRequest, PollResult, poll
from ._request import (
    LONGEST_WINDOW_SECONDS,
    StreamProgress,
    StreamRequest,
    StreamResult,
    read_request,
)
from ._seal import SealRequest, seal

STREAM_WORKFLOW = "streamq.Stream"

_POLLS_PER_DOUBLING = 500
_FIRST_WAIT_SECONDS = 60.0
_POLL_GRACE_SECONDS = 60.0
_SEAL_GRACE_SECONDS = 1.0
_POLL_HEARTBEAT = timedelta(seconds=10)
_SEAL_TIMEOUT = timedelta(seconds=10)
_COUNTING_EVENTS = 100_000
_RECENT_EVENTS = 100
_RECENT_BYTES = 262_144  # a query's answer has Temporal's payload limit


@workflow.defn(name=STREAM_WORKFLOW)
class StreamWorkflow:
    """Runs a streaming activity and, with delivery ``poll``, follows its stream meanwhile.

    The workflow fails with the activity's failure. Its cancellation is passed on to the activity
    and waited for, so that the stream is sealed CANCELLED before the workflow ends. What the
    activity could not seal itself, because it timed out or was between two attempts, the workflow
    ends with one more activity, ``streamq.seal``, unless the workflow will be retried.

    **History with** ``poll``. The window starts with ``window_seconds`` and doubles after every 500
    polls, up to 15 minutes, so that a run stays below Temporal's 51,200 events for weeks of
    streaming, at the price of coarser progress. Once Temporal suggests continue-as-new (about 4 MiB
    or 4,096 events) events no longer pass through the history: ``progress`` goes on to count them,
    ``recent`` stays as it is, and ``carries_values`` says so. The stream itself, and its readers
    outside the workflow, are not affected. Continue-as-new is not done.
    """

    def __init__(self) -> None:
        self._stream = ""
        self._chunks = self._bytes = self._attempt = self._resets = self._polls = 0
        self._sealed = False
        self._cursor: str | None = None
        self._carries_values = False
        self._error: str | None = None
        self._recent: deque[tuple[dict[str, Any], int]] = deque()
        self._recent_bytes = 0

    @workflow.query
    def progress(self) -> StreamProgress:
        """How far the stream has been followed."""
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
        """The newest events that passed through the workflow: at most 100 or 256 KiB."""
        return [event for event, _ in self._recent]

    @workflow.run
    async def run(self, request: dict[str, Any] | StreamRequest) -> StreamResult:
        """Run the activity and return its result.

        Args:
            request: What to run. Temporal hands it over as plain data, read here, so that a wrong
                or mistyped field fails the workflow instead of blocking it or being ignored.
        """
        info = workflow.info()
        request = read_request(request)
        self._stream = stream_name(info.workflow_id, info.first_execution_run_id, request.topic)
        with stream_topic(request.topic):
            producer: ActivityHandle[Any] = workflow.start_activity(
                request.activity,
                args=request.args,
                task_queue=request.task_queue,
                start_to_close_timeout=timedelta(seconds=request.start_to_close_seconds),
                heartbeat_timeout=timedelta(seconds=request.heartbeat_seconds),
                retry_policy=RetryPolicy(maximum_attempts=request.max_attempts),
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        try:
            return await self._deliver(request, producer)
        except ActivityError as exc:
            await self._seal(exc)
            raise

    async def _deliver(self, request: StreamRequest, producer: ActivityHandle[Any]) -> StreamResult:
        if request.delivery == "none":
            return StreamResult(await producer, self._stream)
        self._carries_values = True
        follower = asyncio.create_task(self._follow(request, producer))
        try:
            result = await producer
            await follower
        finally:
            follower.cancel()
        return StreamResult(
            result, self._stream, self._chunks, self._bytes, self._resets, self._error
        )

    async def _seal(self, failure: ActivityError) -> None:
        """End the stream if the producer could not: it timed out, or was between two attempts."""
        reason, cause = workflow.cancellation_reason(), failure.cause or failure
        if reason is not None:
            ending = SealRequest(self._stream, "CANCELLED", reason or "cancelled")
        elif workflow_retries() or _belongs_to_another(cause):
            return
        elif isinstance(cause, ApplicationError):
            name = cause.type or type(cause).__name__
            ending = SealRequest(self._stream, "ERROR", cause.message, name)
        else:
            ending = SealRequest(self._stream, "ERROR", str(cause), type(cause).__name__)
        try:
            await workflow.execute_activity(seal, ending, schedule_to_close_timeout=_SEAL_TIMEOUT)
        except ActivityError as exc:
            workflow.logger.warning("stream %s has no ending: %s", self._stream, exc.cause)

    async def _follow(self, request: StreamRequest, producer: ActivityHandle[Any]) -> None:
        while not self._sealed:
            if self._carries_values and workflow.info().is_continue_as_new_suggested():
                self._carries_values = False
            over = producer.done()
            try:
                found = await self._poll(request, producer)
            except ActivityError as exc:
                # The work must not be broken by its display.
                self._error = str(exc.cause or exc)
                workflow.logger.warning("following stream %s stopped: %s", self._stream, exc.cause)
                return
            self._polls += 1
            self._cursor = found.cursor
            self._sealed = found.sealed
            if found.resets:
                self._chunks = self._bytes = 0
                self._resets += found.resets
            self._chunks += found.chunks
            self._bytes += found.bytes
            self._attempt = found.attempt or self._attempt
            self._remember(found.events)
            if over and not found.count:
                return  # the activity has ended and wrote no (further) stream

    def _remember(self, events: list[dict[str, Any]]) -> None:
        recent = self._recent
        for event in events[-_RECENT_EVENTS:]:
            size = len(json.dumps(event))
            recent.append((event, size))
            self._recent_bytes += size
        while len(recent) > _RECENT_EVENTS or (
            len(recent) > 1 and self._recent_bytes > _RECENT_BYTES
        ):
            self._recent_bytes -= recent.popleft()[1]

    async def _poll(self, request: StreamRequest, producer: ActivityHandle[Any]) -> PollResult:
        polling = self._start_poll(request, over=producer.done())
        try:
            if not producer.done():
                await workflow.wait([polling, producer], return_when=asyncio.FIRST_COMPLETED)
                if not polling.done():
                    # The seal is stored before the activity completes, so this ends at once; unless
                    # the activity wrote no stream.
                    await workflow.wait([polling], timeout=_SEAL_GRACE_SECONDS)
                    if not polling.done():
                        polling.cancel()
                        return await self._start_poll(request, over=True)
            return await polling
        finally:
            if not polling.done():
                polling.cancel()

    def _start_poll(self, request: StreamRequest, *, over: bool) -> ActivityHandle[PollResult]:
        growth = 2 ** min(self._polls // _POLLS_PER_DOUBLING, 32)
        window = request.window_seconds
        if growth > 1:
            window = min(max(window, 0.1) * growth, max(window, LONGEST_WINDOW_SECONDS))
        wait = max(min(_FIRST_WAIT_SECONDS * growth, LONGEST_WINDOW_SECONDS), window)
        if over:
            wait = window = 0.0
        return workflow.start_activity(
            poll,
            PollRequest(
                self._stream,
                self._cursor,
                max_wait_seconds=wait,
                window_seconds=window,
                max_events=1_000 if self._carries_values else _COUNTING_EVENTS,
                values=self._carries_values,
            ),
            start_to_close_timeout=timedelta(seconds=wait + window + _POLL_GRACE_SECONDS),
            schedule_to_close_timeout=timedelta(seconds=_POLL_GRACE_SECONDS) if over else None,
            heartbeat_timeout=_POLL_HEARTBEAT,
        )


def _belongs_to_another(cause: BaseException) -> bool:
    """Whether the producer failed because its stream is somebody else's, who will end it."""
    return isinstance(cause, ApplicationError) and cause.type in ("FencedError", "SealedError")
