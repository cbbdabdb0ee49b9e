"""Forwards a stream, reports progress and counts the stream, from inside the generic workflow."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError
from temporalio.workflow import ActivityHandle

from streamq.temporal.activities._forward import ForwardRequest, ForwardResult, forward
from streamq.temporal.activities._summarize import StreamSummary, SummaryRequest, summarize

from ._request import StreamProgress, StreamRequest

_FORWARD_TIMEOUT = timedelta(days=3_650)  # unlimited; the heartbeat timeout notices a dead worker
_HEARTBEAT = timedelta(seconds=10)
_GRACE_SECONDS = 1.0
_CATCHING_UP_SECONDS = 600.0
_SUMMARY_TIMEOUT = timedelta(hours=1)
_SUMMARY_PATIENCE = timedelta(hours=3)


async def sum_up(stream: str) -> StreamSummary:
    """Return the counts and the digest of a stream; costs one activity.

    Raises:
        ActivityError: The stream cannot be read.
    """
    return await workflow.execute_activity(
        summarize,
        SummaryRequest(stream),
        start_to_close_timeout=_SUMMARY_TIMEOUT,
        schedule_to_close_timeout=_SUMMARY_PATIENCE,
        heartbeat_timeout=_HEARTBEAT,
    )


class Relay:
    """Forwards one stream while its producer runs.

    Args:
        stream: Name of the stream.
        request: States the target.
    """

    def __init__(self, stream: str, request: StreamRequest) -> None:
        assert request.target_workflow_id is not None
        self._stream = stream
        self._forwarder: ActivityHandle[ForwardResult] = workflow.start_activity(
            forward,
            ForwardRequest(
                stream,
                request.target_workflow_id,
                request.target_run_id,
                request.target_signal,
                window_seconds=request.window_seconds,
            ),
            start_to_close_timeout=_FORWARD_TIMEOUT,
            heartbeat_timeout=_HEARTBEAT,
        )

    async def finish(self) -> ForwardResult | None:
        """Wait until the whole stream is forwarded, after its producer has ended.

        Returns:
            The result of forwarding; ``None`` if the producer wrote no stream, or left it open.

        Raises:
            ActivityError: Forwarding failed without a retry.
            TimeoutError: Forwarding did not reach the end of the stream in time.
        """
        forwarder = self._forwarder
        await workflow.wait([forwarder], timeout=_GRACE_SECONDS)
        if not forwarder.done():
            # Either many events are left, or there are none: an activity that does not stream.
            if (await sum_up(self._stream)).state is None:
                self.stop()
                return None
            await workflow.wait([forwarder], timeout=_CATCHING_UP_SECONDS)
        if not forwarder.done():
            self.stop()
            raise TimeoutError(
                f"the stream was not forwarded within {_CATCHING_UP_SECONDS:g} s after its end"
            )
        return await forwarder

    def stop(self) -> None:
        """Stop forwarding."""
        if not self._forwarder.done():
            self._forwarder.cancel()


class ProgressReporter:
    """Sends progress signals to another workflow; a missing workflow does not fail the work.

    Args:
        request: States the workflow, and how often to send.
    """

    def __init__(self, request: StreamRequest) -> None:
        self._request = request
        self._next = 0.0
        self._sending: asyncio.Task[None] | None = None
        self._is_wanted = request.progress_workflow_id is not None

    def report(self, progress: StreamProgress) -> None:
        """Start to send the progress if the interval has passed; does not wait."""
        now = workflow.time()
        busy = self._sending is not None and not self._sending.done()
        if self._is_wanted and not busy and now >= self._next:
            self._next = now + self._request.progress_seconds
            self._sending = asyncio.create_task(self._send(progress))

    async def settle(self) -> None:
        """Wait until the current signal has been sent."""
        if self._sending is not None:
            await self._sending

    async def finish(self, progress: StreamProgress) -> None:
        """Send the final progress."""
        await self.settle()
        if self._is_wanted:
            await self._send(progress)

    async def _send(self, progress: StreamProgress) -> None:
        request = self._request
        assert request.progress_workflow_id is not None
        target = workflow.get_external_workflow_handle(request.progress_workflow_id)
        try:
            await target.signal(request.progress_signal, dataclasses.asdict(progress))
        except FailureError as exc:
            self._is_wanted = False
            workflow.logger.warning(
                "progress is no longer sent to workflow %s: %s", request.progress_workflow_id, exc
            )


def reason(failure: ActivityError | TimeoutError) -> str:
    """Return the reason of a failure as text, for the result."""
    return str((failure.cause if isinstance(failure, ActivityError) else None) or failure)
