"""Follows a stream inside a workflow, poll by poll, until it ends."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from streamq.temporal._failure import is_without_plugin
from streamq.temporal.activities._poll_request import (
    POLL_ACTIVITY,
    PollRequest,
    PollResult,
    without_defaults,
)

from ._poll_options import PollOptions

LOCAL_BUDGET_MS = 425
"""How long local polls may keep one workflow task open, by the times that they report."""

LOCAL_BUDGET_BYTES = 400_000
"""How much local polls may return in one workflow task before a regular one is made.

Their results go to the server in one message, and a message above 4 MiB ends the workflow. The last
result may have a whole payload of 2 MiB, and other streams of the workflow add theirs.
"""

_LOCAL_OVERHEAD_MS = 5  # to start the first local activity, which no poll can report
_POLL_GRACE_SECONDS = 60.0
_SLOT_GRACE = timedelta(minutes=10)  # long producers may occupy all slots
_SEAL_GRACE_SECONDS = 1.0
_POLL_HEARTBEAT = timedelta(seconds=10)
_LOCAL_TIMEOUT = timedelta(seconds=5)
_ONCE = RetryPolicy(maximum_attempts=1)


class Poller:
    """Polls one stream from workflow code: deterministic, one poll at a time.

    Call :meth:`poll` until :attr:`ended`. The stream has ended when it was sealed, or when its
    producer has ended and a later poll found nothing. ``options`` may be replaced between two
    polls. A cancelled call changes nothing.

    Args:
        stream: Name of the stream.
        options: How to poll.
        producer: The activity or child workflow that writes the stream, if this run started it.
        producer_id: Else the id of the workflow that writes it. A poll that finds nothing checks
            whether that has ended.
        cursor: Position after which to begin.
        values: Whether polls return events or only count them.

    Attributes:
        options: How to poll.
        values: Whether polls return events; may be changed between two polls.
        cursor: The position after the last poll.
        sealed: Whether the seal was found.
        ended: Whether no event will follow.
        polls: How many polls succeeded.
    """

    def __init__(
        self,
        stream: str,
        options: PollOptions,
        *,
        producer: asyncio.Future[Any] | None = None,
        producer_id: str | None = None,
        cursor: str | None = None,
        values: bool = True,
    ) -> None:
        self.options = options
        self.values = values
        self.cursor = cursor
        self.sealed = False
        self.ended = False
        self.polls = 0
        self._stream = stream
        self._producer = producer
        self._producer_id = producer_id
        self._producer_over = False
        # The first poll is a regular one: it ends the workflow task, which starts the producer.
        self._local_ms = 0
        self._local_bytes = 0
        self._local_since: int | None = None
        self._polled_ms: int | None = None

    @property
    def has_producer_ended(self) -> bool:
        """Whether the producer is known to have ended."""
        return self._producer_over or (self._producer is not None and self._producer.done())

    async def poll(self) -> PollResult:
        """Poll once.

        Returns:
            The events that were found, if any.

        Raises:
            ActivityError: The poll failed without a retry, because events were trimmed for example.
                Or the producer failed because its worker has no plugin.
        """
        over = self.has_producer_ended
        self._refuse_without_plugin()
        result = None if over else await self._poll_locally()
        if result is None:
            result = await self._poll(over)
            self._local_ms = LOCAL_BUDGET_MS if result.count else 0
            self._local_bytes = LOCAL_BUDGET_BYTES
            self._local_since = None
        self.polls += 1
        self._polled_ms = result.clock_ms
        self.cursor = result.cursor
        self.sealed = result.sealed
        self._producer_over = self._producer_over or result.producer_over
        self.ended = result.sealed or (over and not result.count and not result.hidden)
        return result

    async def poll_after_end(self) -> PollResult:
        """Poll once more after the end, for a seal that was stored in the meantime."""
        result = await self._start(0.0, 0.0)
        self.cursor, self.sealed = result.cursor, result.sealed
        return result

    async def _poll_locally(self) -> PollResult | None:
        window_ms = self.options.window_seconds * 1_000
        if self.options.polling != "local" or self._local_ms <= max(window_ms, 1):
            return None
        try:
            result: PollResult = await workflow.execute_local_activity(
                POLL_ACTIVITY,
                self._request(self._local_ms / 1_000, self.options.window_seconds),
                result_type=PollResult,
                start_to_close_timeout=_LOCAL_TIMEOUT,
                retry_policy=_ONCE,
            )
        except ActivityError as exc:
            if is_cancelled_exception(exc):
                raise
            workflow.logger.debug("local poll of %s failed: %s", self._stream, exc.cause)
            return None  # a regular poll follows, which succeeds or fails without a retry
        # By the worker's clock as it is recorded in history, so that replay computes the same.
        # Another worker has another clock: a negative time ends local polling.
        if self._local_since is None:
            self._local_since = result.clock_ms - result.elapsed_ms - _LOCAL_OVERHEAD_MS
        spent = result.clock_ms - self._local_since
        self._local_ms = LOCAL_BUDGET_MS - spent if result.count and spent >= 0 else 0
        self._local_bytes -= len(json.dumps(result.events))
        if self._local_bytes <= 0:
            self._local_ms = 0
        return result

    async def _poll(self, over: bool) -> PollResult:
        if over:
            return await self._start(0.0, 0.0)
        polling = self._start(self.options.max_wait_seconds, self.options.window_seconds)
        producer = self._producer
        if producer is None:
            return await polling
        try:
            await workflow.wait([polling, producer], return_when=asyncio.FIRST_COMPLETED)
            if not polling.done():
                self._refuse_without_plugin()
                # The seal is stored before the activity completes, so that the poll ends at once,
                # unless the activity wrote no stream.
                await workflow.wait([polling], timeout=_SEAL_GRACE_SECONDS)
                if not polling.done():
                    polling.cancel()
                    return await self._start(0.0, 0.0)
            return await polling
        finally:
            if not polling.done():
                polling.cancel()

    def _refuse_without_plugin(self) -> None:
        """Raise the failure of a producer without the plugin: polls would be retried for ever."""
        producer = self._producer
        if producer is None or not producer.done() or producer.cancelled():
            return
        failure = producer.exception()
        if failure is not None and is_without_plugin(failure):
            raise failure

    def _start(self, wait: float, window: float) -> workflow.ActivityHandle[PollResult]:
        at_once = not wait and not window
        wait = max(wait, window)
        grace = timedelta(seconds=wait + window + _POLL_GRACE_SECONDS)
        return workflow.start_activity(
            POLL_ACTIVITY,
            self._request(wait, window, self._polled_ms if window else None),
            result_type=PollResult,
            start_to_close_timeout=grace,
            schedule_to_close_timeout=grace + _SLOT_GRACE if at_once else None,
            heartbeat_timeout=_POLL_HEARTBEAT,
        )

    def _request(self, wait: float, window: float, polled_ms: int | None = None) -> dict[str, Any]:
        options = self.options
        request = PollRequest(
            self._stream,
            self.cursor,
            max_wait_seconds=round(wait, 3),
            window_seconds=round(window, 3),
            polled_ms=polled_ms,
            max_events=options.max_events,
            max_bytes=options.max_bytes,
            values=self.values,
            producer=self._producer_id,
        )
        return without_defaults(request)
