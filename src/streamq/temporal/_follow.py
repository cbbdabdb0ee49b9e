"""``stream_activity``: a workflow reads what its activity streams, with ``async for``."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypedDict, Unpack, cast, overload

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError
from typing_extensions import TypeVar

from streamq._errors import ConfigurationError
from streamq._events import Event
from streamq._values import T

from ._batch import unpack
from ._ending import end_stream
from ._failure import is_without_plugin
from ._follower import Follower, PollMode, PollOptions
from ._names import DEFAULT_TOPIC
from ._poll import MAX_BYTES, MAX_EVENTS, PollResult
from ._serializer import PayloadSerializer
from ._source import (
    ActivitySource,
    Call,
    ChildSource,
    ResumedSource,
    Source,
    check_detached,
)
from ._spec import spec_of

R = TypeVar("R", default=Any)
V = TypeVar("V")
_LEFT = "the workflow reads no further"


class StreamOptions(TypedDict, total=False):
    """Options of :func:`stream_activity`, where they are described."""

    topic: str | None
    window: timedelta
    polling: PollMode
    max_wait: timedelta
    max_events: int
    max_bytes: int
    detached: bool
    task_queue: str | None
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy | None


@dataclass(frozen=True)
class Handover:
    """Where the next run of a workflow goes on; pass it to ``workflow.continue_as_new``.

    Plain JSON. Valid for the runs of one chain.

    Attributes:
        stream: Name of the stream, and id of the workflow that produces it.
        offset: Offset of the last event that was taken.
        cursor: Where to poll; at that event or before it.
        ended: Whether there is nothing more to come.
        polling: How polls are made.
        window_seconds: How long a poll collects events.
        max_wait_seconds: How long a poll waits.
        max_events: Most events of one poll.
        max_bytes: Most bytes of one poll.
    """

    stream: str
    offset: int = 0
    cursor: str | None = None
    ended: bool = False
    polling: PollMode = "activity"
    window_seconds: float = 0.1
    max_wait_seconds: float = 60.0
    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES


class ActivityStream(Generic[T, R]):
    """A streaming activity and its stream, in workflow code; see :func:`stream_activity`.

    For one task at a time. Polls are made while iterating, and only when what the last one brought
    has been taken: a slow reader holds back nobody and keeps little in memory.
    """

    def __init__(
        self,
        source: Source,
        handover: Handover,
        serializer: PayloadSerializer[Any],
        *,
        detached: bool,
    ) -> None:
        self._source = source
        self._handover = handover
        self._serializer = serializer
        self._detached = detached
        self._buffer: deque[Event[Any]] = deque()
        self._offset = handover.offset
        self._place = handover.cursor
        self._ended = handover.ended
        self._end_is_told = handover.ended
        self._handed_over = False
        self._follower: Follower | None = None
        # Before anything is started, which a mistake in an option would leave behind.
        self._options = PollOptions(
            handover.polling,
            handover.window_seconds,
            handover.max_wait_seconds,
            handover.max_events,
            handover.max_bytes,
        )

    @property
    def stream(self) -> str:
        """Name of the stream."""
        return self._handover.stream

    @property
    def should_continue_as_new(self) -> bool:
        """Whether Temporal suggests it, for the sake of the history's length."""
        return workflow.info().is_continue_as_new_suggested()

    async def __aenter__(self) -> Self:
        """Start the activity."""
        await self._source.start()
        known = self._handover
        self._follower = Follower(
            known.stream,
            self._options,
            producer=self._source.future,
            producer_id=self._source.producer_id,
            cursor=known.cursor,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for the activity if the stream was read to its end, else cancel it and wait."""
        if self._handed_over or kind is GeneratorExit:  # the latter: this worker forgets the run
            return
        at_end = self._ended and exc is None
        if at_end and self._source.future is None:
            return  # of an earlier run: it ends by itself
        reason = None
        if not at_end:
            reason = workflow.cancellation_reason()
            reason = _LEFT if reason is None else reason
        is_done = self._source.future is not None and self._source.future.done()
        failure = await self._source.settle(cancel=not at_end)
        if failure is not None:
            await self._end(failure, None if is_done else reason)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
        """Return the next event.

        Raises:
            StopAsyncIteration: The stream has ended.
            ActivityError: The stream cannot be read: events were trimmed, say; or the activity
                found no plugin on its worker, and wrote nothing.
        """
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
            FailureError: A detached activity whose ``streamq.Produce`` was ended from outside.
        """
        try:
            return cast(R, await self._source.result())
        except FailureError as exc:
            await self._end(exc, workflow.cancellation_reason())
            raise

    def handover(self) -> Handover:
        """Return where the next run goes on, after the event that was taken last.

        From here on this stream is the next run's: leaving the block stops nothing. Only for a
        detached activity.

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
            cursor=self._place if self._buffer else self._polls.cursor,
            ended=self._ended and not self._buffer,
        )

    @property
    def _polls(self) -> Follower:
        if self._follower is None:
            raise RuntimeError(
                "enter the stream first: 'async with stream_activity(...) as stream'"
            )
        return self._follower

    async def _fill(self) -> None:
        follower = self._polls
        place = follower.cursor
        found: PollResult = await follower.poll()
        self._place = place
        self._take(found)
        if follower.ended:
            self._ended = True
            self._end_is_told = follower.sealed
            if not follower.sealed:
                await self._end_untold(follower)

    async def _end_untold(self, follower: Follower) -> None:
        """The producer is over and sealed nothing: end the stream, and tell of it."""
        failure = await self._source.settle(cancel=False)
        if failure is not None and await self._end(failure, workflow.cancellation_reason()):
            self._take(await follower.reopened())

    async def _end(self, failure: FailureError, cancelled: str | None) -> bool:
        """End the stream if its seal was not seen."""
        if self._end_is_told or (not self._offset and is_without_plugin(failure)):
            return False
        self._end_is_told = True
        return await end_stream(self.stream, failure, cancelled=cancelled)

    def _take(self, found: PollResult) -> None:
        # A cursor in the middle of a batch, and one after the seal, tell events again.
        events = unpack(found.events, self._serializer)
        self._buffer.extend(event for event in events if event.offset > self._offset)


@overload
def stream_activity(
    activity: Callable[..., Awaitable[R]],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: type[V],
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, R]: ...
@overload
def stream_activity(
    activity: Callable[..., Awaitable[R]],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[Any, R]: ...
@overload
def stream_activity(
    activity: str | Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: type[V],
    result_type: type[R],
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, R]: ...
@overload
def stream_activity(
    activity: str | Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: type[V],
    result_type: None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, Any]: ...
@overload
def stream_activity(
    activity: str | Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[Any, Any]: ...
def stream_activity(
    activity: str | Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = (),
    value_type: type | None = None,
    result_type: type | None = None,
    **options: Unpack[StreamOptions],
) -> ActivityStream[Any, Any]:
    """Start a streaming activity from a workflow and read what it streams.

    ``async with stream_activity(generate, "prompt", ...) as stream``, then ``async for event in
    stream`` gives :class:`~streamq.Chunk`, :class:`~streamq.Reset` (the activity was tried again
    and starts over) and :class:`~streamq.Seal`, numbered as for every other reader, and ``await
    stream.result()`` the activity's result or failure. Deterministic: replay repeats what the
    history tells. The workflow's worker needs :class:`StreamqPlugin`.

    Events come by the activity ``streamq.poll``, which waits for them and returns them in batches.
    The first chunk of the stream, and one after a pause longer than the window, is returned at
    once; otherwise a poll collects until ``window`` after its start; regular ones come at an even
    pace, one for each ``window`` and 20 ms.

    **Leaving the block.** After the end of the stream it waits for the activity. Before it (an
    early ``break``, an exception, cancellation of the workflow) it cancels the activity and waits
    until the stream is sealed CANCELLED. A failure that nobody asked for by ``result()`` is not
    raised. What the activity could not seal itself, because it timed out or was between two
    attempts, ``streamq.seal`` ends, so that the last event is a ``Seal``; unless the workflow
    itself will be tried again and goes on with the stream.

    **Polling** ``local``. Most polls are local activities: one history event each instead of six. A
    regular poll comes first, then local ones for 425 ms by the worker's clock or until one finds
    nothing, then a regular one again. While they run the workflow task stays open, so that signals,
    updates, queries, cancellation and commands of other tasks of the workflow wait, for 500 ms at
    most on a worker that is not overloaded. A window above 425 ms makes all polls regular.

    **Detached.** The activity is run by a child workflow, ``streamq.Produce``, which goes on while
    this workflow continues as new: ``if stream.should_continue_as_new:
    workflow.continue_as_new(stream.handover())``, and in the next run ``async with
    resume_stream(handover) as stream``. When the chain of runs ends without having cancelled it,
    the child cancels the activity.

    Args:
        activity: The activity, decorated with :func:`streaming_activity`, or its name.
        positional: Its arguments.
        args: Its arguments, instead of ``positional``.
        value_type: What ``event.value`` is decoded as, by the workflow's payload converter; by
            default what the activity's annotations say.
        result_type: What the result of an activity that is given by name is decoded as.
        options: ``topic`` (by default the activity's own, or ``default``: each call needs its own),
            ``window`` (100 ms), ``polling`` (``activity``), ``max_wait`` (60 s: how long a poll
            waits for an event), ``max_events`` (1,000) and ``max_bytes`` (512 KiB) of one poll,
            ``detached``, and ``task_queue``, the timeouts and ``retry_policy`` as for
            ``workflow.start_activity``.

    Raises:
        ConfigurationError: An option is not usable, or what a detached activity is started with is
            too large; nothing has been started. If it leaves the workflow, that fails for good.
        ApplicationError: The function is an activity, but not decorated with
            :func:`streaming_activity`.
    """
    if positional and args:
        raise ConfigurationError("pass the activity's arguments by position or as args, not both")
    detached = options.get("detached", False)
    call = _call(activity, list(args or positional), result_type, options)
    handover = Handover(
        call.stream,
        polling=options.get("polling", "activity"),
        window_seconds=options.get("window", timedelta(milliseconds=100)).total_seconds(),
        max_wait_seconds=options.get("max_wait", timedelta(seconds=60)).total_seconds(),
        max_events=options.get("max_events", MAX_EVENTS),
        max_bytes=options.get("max_bytes", MAX_BYTES),
    )
    if detached:
        check_detached(call)
    source = ChildSource(call) if detached else ActivitySource(call)
    chosen = value_type or _chunk_type(activity)
    return ActivityStream(source, handover, _serializer(chosen), detached=detached)


@overload
def resume_stream(
    handover: Handover, *, value_type: type[V], result_type: type[R]
) -> ActivityStream[V, R]: ...
@overload
def resume_stream(
    handover: Handover, *, value_type: type[V], result_type: None = ...
) -> ActivityStream[V, Any]: ...
@overload
def resume_stream(
    handover: Handover, *, value_type: None = ..., result_type: type[R]
) -> ActivityStream[Any, R]: ...
@overload
def resume_stream(
    handover: Handover, *, value_type: None = ..., result_type: None = ...
) -> ActivityStream[Any, Any]: ...
def resume_stream(
    handover: Handover, *, value_type: type | None = None, result_type: type | None = None
) -> ActivityStream[Any, Any]:
    """Go on with a stream that an earlier run of this workflow has handed over.

    The next event is the one after the last that the earlier run took. Everything else is as with
    :func:`stream_activity`. ``result()`` costs an activity, ``streamq.result``, which waits for the
    producer.

    Args:
        handover: What :meth:`ActivityStream.handover` returned.
        value_type: What ``event.value`` is decoded as.
        result_type: What the activity's result is decoded as.
    """
    source = ResumedSource(handover.stream, result_type)
    return ActivityStream(source, handover, _serializer(value_type), detached=True)


def _call(
    function: str | Callable[..., Any],
    args: list[Any],
    result_type: type | None,
    options: StreamOptions,
) -> Call:
    if isinstance(function, str):
        name, topic = function, None
    else:
        # The only way from a function to the name that the SDK gave it.
        definition = activity._Definition.must_from_callable(function)
        name = definition.name or ""
        result_type = result_type or definition.ret_type
        spec = spec_of(function)
        if spec is None:
            raise _not_streaming(name)
        topic = spec.topic
    return Call(
        function,
        name,
        args,
        options.get("topic") or topic or DEFAULT_TOPIC,
        result_type,
        options.get("task_queue"),
        options.get("schedule_to_close_timeout"),
        options.get("schedule_to_start_timeout"),
        options.get("start_to_close_timeout"),
        options.get("heartbeat_timeout"),
        options.get("retry_policy"),
    )


def _not_streaming(name: str) -> ApplicationError:
    return ApplicationError(
        f"activity {name} streams nothing: it is decorated with @activity.defn; decorate it with "
        "@streaming_activity instead, or call it with workflow.execute_activity",
        type="ConfigurationError",
        non_retryable=True,
    )


def _chunk_type(function: str | Callable[..., Any]) -> Any:
    spec = spec_of(function)
    return spec.chunk_type if spec else None


def _serializer(value_type: Any) -> PayloadSerializer[Any]:
    return PayloadSerializer(workflow.payload_converter(), value_type)
