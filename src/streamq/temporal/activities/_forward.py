"""Runs ``streamq.forward``: sends a stream to another workflow as signals."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import ConfigurationError, StreamqError
from streamq._events import Event
from streamq._retry import RetryPolicy
from streamq.opening._open import open_reader, stream_id
from streamq.reading._reader import StreamReader
from streamq.temporal._event_json import EventPacker
from streamq.temporal._failure import application_error, final_failure, is_failure_of
from streamq.temporal._input import takes
from streamq.temporal._rpc import rpc_error

from ._context import ActivityContext, activity_context, wait_without_slot
from ._poll_limits import MAX_BYTES, MAX_EVENTS, check_limits
from ._summarize import StreamSummary, Tally

FORWARD_ACTIVITY = "streamq.forward"
BATCH_SIGNAL = "streamq.batch"

_READ_SECONDS = 20.0
_LONGEST_BEAT_SECONDS = 10.0
_SIGNAL_TIMEOUT = timedelta(seconds=5)
_LIMITS = ("limit for signal", "history size exceeds limit", "history count exceeds limit")


class TargetNotFoundError(Exception):
    """Type of the failure if the target does not exist, or has ended; never raised itself."""


class SignalLimitError(Exception):
    """Type of the failure if the target has had too many signals; never raised itself."""


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """Which stream to forward, and to which workflow; plain JSON for other SDKs.

    Attributes:
        stream: Name of the stream, as :func:`stream_name` returns it.
        target_workflow_id: Id of the workflow that gets the signals; it must be running.
        target_run_id: Run of that workflow, by default the one that is running.
        target_signal: Name of the signal.
        cursor: Position after which to begin; ``None`` is the beginning.
        window_seconds: How long to collect events, counted from the last signal: the first chunk of
            a stream and one after a longer pause are sent at once.
        max_events: Most events in one signal.
        max_bytes: Most bytes of events in one signal, as JSON; a single event is sent even if it is
            larger, as long as it fits Temporal's limit of 2 MiB.
    """

    stream: str
    target_workflow_id: str
    target_run_id: str | None = None
    target_signal: str = BATCH_SIGNAL
    cursor: str | None = None
    window_seconds: float = 0.2
    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """What was forwarded.

    Attributes:
        cursor: Position after the last event that was sent.
        sealed: Whether that was the end of the stream.
        signals: Number of signals that were sent.
        summary: Counts and digest of the events; without a digest if an earlier attempt sent some
            of them, or if forwarding began after the beginning of the stream.
    """

    cursor: str | None
    sealed: bool
    signals: int
    summary: StreamSummary


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Heartbeat details, which state where the next attempt continues."""

    start: int
    cursor: str
    signals: int
    summary: StreamSummary


@activity.defn(name=FORWARD_ACTIVITY)
@takes(ForwardRequest)
async def forward(request: ForwardRequest) -> ForwardResult:
    """Send a stream to another workflow, as signals, until it is sealed.

    Each signal has one argument::

        {"stream": "agent-7/0198.../default", "start": 1, "events": [...]}

    ``events`` is a batch as :class:`EventPacker` describes it, and ``start`` the first offset that
    is forwarded. Signals arrive in order, since each is acknowledged before the next is sent.
    Heartbeats carry the position after the last signal, where the next attempt continues. Events
    that were sent after the last recorded heartbeat are sent twice; the receiver drops them by
    their offset, as :class:`StreamInbox` does.

    If forwarding fails without a retry, the target gets a batch without events, if it can:
    ``{..., "error": {"type": "TrimmedError", "message": "..."}}``.

    After cancellation it sends nothing more. It waits for the stream as long as its timeouts allow,
    so that it should be cancelled if nothing comes. It occupies an activity slot only to start.

    Raises:
        ApplicationError: Its type is the name of the streamq error; ``TargetNotFoundError``: the
            target does not exist, or has ended; ``SignalLimitError``: it has had as many signals as
            the server allows for a run (10,000 or 50 MiB by default). Neither is retried, nor is an
            argument that the server refuses (``ConfigurationError``).
    """
    context = activity_context()
    try:
        _check(request)
    except StreamqError as exc:
        raise application_error(exc) from exc
    forwarding = _Forwarding(request, context)
    return await wait_without_slot(
        forwarding.run(),
        longest_seconds=_LONGEST_BEAT_SECONDS,  # not for each signal: heartbeats are billed
        details=forwarding.details,
    )


def _check(request: ForwardRequest) -> None:
    if not request.target_workflow_id or not request.target_signal:
        raise ConfigurationError("target_workflow_id and target_signal must not be empty")
    check_limits(request.window_seconds, request.max_events, request.max_bytes)


class _Forwarding:
    """One attempt to forward a stream."""

    def __init__(self, request: ForwardRequest, context: ActivityContext) -> None:
        self._request = request
        self._context = context
        self._target: WorkflowHandle[Any, Any] = activity.client().get_workflow_handle(
            request.target_workflow_id, run_id=request.target_run_id
        )
        self._retry = RetryPolicy(deadline_seconds=context.settings.retry_seconds)
        self._checkpoint = _checkpoint(activity.info().heartbeat_details)
        self._start = self._checkpoint.start if self._checkpoint else 1
        self._sent_at = -math.inf

    def details(self) -> Sequence[Any]:
        """Return the details of a heartbeat, which state where the next attempt continues."""
        return [] if self._checkpoint is None else [dataclasses.asdict(self._checkpoint)]

    async def run(self) -> ForwardResult:
        """Forward from the last checkpoint to the seal."""
        try:
            return await self._run()
        except StreamqError as exc:
            raise await self._report(application_error(exc)) from exc
        except ApplicationError as exc:
            raise await self._report(exc) from None

    async def _run(self) -> ForwardResult:
        request, place = self._request, self._checkpoint
        stream = stream_id(request.stream, self._context.settings)
        async with open_reader(
            stream,
            from_=(place.cursor if place else request.cursor) or "beginning",
            queue=self._context.queue,
            settings=self._context.settings,
            codec=self._context.codec(stream),
            require=["replay"],  # the last heartbeat's position may be far behind
        ) as reader:
            if place is None:
                self._start = reader.offset + 1
            before = place.summary if place else None
            if before is None and reader.offset:
                before = StreamSummary()
            place = await self._forward(reader, Tally(before), place.signals if place else 0)
        return ForwardResult(place.cursor, True, place.signals, place.summary)

    async def _forward(self, reader: StreamReader, tally: Tally, signals: int) -> _Checkpoint:
        while True:
            packer, waiting = EventPacker(), await self._next(reader, math.inf)
            until = self._sent_at + self._request.window_seconds
            count = 0
            while waiting is not None:
                if not packer.add(waiting, max_bytes=self._request.max_bytes):
                    await self._send(packer)
                    signals += 1
                    packer, count = EventPacker(), 0
                    packer.add(waiting, max_bytes=self._request.max_bytes)
                tally.add(waiting)
                cursor, count = reader.cursor, count + 1
                if count >= self._request.max_events or reader.seal is not None:
                    break
                waiting = await self._next(reader, until)
            await self._send(packer)
            signals += 1
            place = self._checkpoint = _Checkpoint(self._start, cursor, signals, tally.summary())
            if reader.seal is not None:
                return place

    async def _next(self, reader: StreamReader, until: float) -> Event | None:
        """Return the next event; ``None`` if there is none until then."""
        while True:
            wait = min(max(until - time.monotonic(), 0.0), _READ_SECONDS)
            batch = await reader.read_batch(max_events=1, max_wait=wait)
            if batch:
                return batch[0]
            if time.monotonic() >= until:
                return None

    async def _send(self, packer: EventPacker) -> None:
        self._sent_at = time.monotonic()
        await self._retry.run(lambda: self._signal(events=packer.entries))

    async def _signal(self, **content: Any) -> None:
        request = self._request
        batch = {"stream": request.stream, "start": self._start, **content}
        try:
            await self._target.signal(request.target_signal, batch, rpc_timeout=_SIGNAL_TIMEOUT)
        except RPCError as exc:
            target = f"workflow {request.target_workflow_id!r}"
            if exc.status is RPCStatusCode.NOT_FOUND:
                raise final_failure(
                    TargetNotFoundError,
                    f"{target} cannot be signalled: {exc.message}; it must be started before the "
                    "stream is forwarded to it, and run until the stream has ended",
                ) from exc
            if any(limit in exc.message for limit in _LIMITS):
                raise final_failure(
                    SignalLimitError,
                    f"{target} has had too many signals: {exc.message}; it should continue as new "
                    "earlier, or use a longer window_seconds",
                ) from exc
            if exc.status is RPCStatusCode.INVALID_ARGUMENT:
                raise final_failure(
                    ConfigurationError,
                    f"{target} cannot be signalled: {exc.message}; check target_workflow_id, "
                    "target_run_id and target_signal",
                ) from exc
            raise rpc_error(exc, f"signal {target}") from exc

    async def _report(self, failure: ApplicationError) -> ApplicationError:
        """Send a failure that is not retried to the target, and return it."""
        about_target = is_failure_of(failure, TargetNotFoundError, SignalLimitError)
        if failure.non_retryable and not about_target:
            error = {"type": failure.type, "message": failure.message}
            try:
                await self._signal(events=[], error=error)
            except (StreamqError, ApplicationError) as exc:
                activity.logger.warning("the failure was not sent to the target: %s", exc)
        return failure


def _checkpoint(details: Sequence[Any]) -> _Checkpoint | None:
    if not details:
        return None
    place = _Checkpoint(**details[0])
    return dataclasses.replace(place, summary=StreamSummary(**details[0]["summary"]))
