"""Starts a streaming activity from a workflow, or resumes one, and returns its stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from typing_extensions import TypeVar

from streamq._errors import ConfigurationError
from streamq.temporal._failure import final_failure
from streamq.temporal._names import DEFAULT_TOPIC
from streamq.temporal._serializer import PayloadSerializer
from streamq.temporal.producer._signature import spec_of

from ._activity_stream import ActivityStream
from ._handover import Handover
from ._poll_options import PollMode, PollOptions
from ._producer_call import ProducerCall, check_detached
from ._producers import ActivityProducer, ChildProducer, ResumedProducer
from ._stream_topic import chosen_topic

_TOPIC_PATCH = "streamq-chosen-topic"
"""Marks histories in which a call takes the topic of the block around it."""

if TYPE_CHECKING:
    from streamq.temporal.producer._activity_types import StreamingActivity

R = TypeVar("R", default=Any)
V = TypeVar("V")


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


@overload
def stream_activity(
    activity: StreamingActivity[..., Awaitable[R], Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: type[V],
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, R]: ...
@overload
def stream_activity(
    activity: StreamingActivity[..., R, Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: type[V],
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, R]: ...
@overload
def stream_activity(
    activity: StreamingActivity[..., Awaitable[R], object],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[Any, R]: ...
@overload
def stream_activity(
    activity: StreamingActivity[..., Awaitable[R], V],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, R]: ...
@overload
def stream_activity(
    activity: StreamingActivity[..., R, object],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[Any, R]: ...
@overload
def stream_activity(
    activity: StreamingActivity[..., R, V],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: type | None = ...,
    **options: Unpack[StreamOptions],
) -> ActivityStream[V, R]: ...
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
    result_type: type[R],
    **options: Unpack[StreamOptions],
) -> ActivityStream[Any, R]: ...
@overload
def stream_activity(
    activity: str | Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    value_type: None = ...,
    result_type: None = ...,
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

    In ``async with stream_activity(generate, "prompt", ...) as stream``, ``async for event in
    stream`` returns :class:`~streamq.Chunk`, :class:`~streamq.Reset` (the activity was retried and
    starts over) and :class:`~streamq.Seal`, numbered as for every other reader, and ``await
    stream.result()`` the activity's result or failure. It is deterministic: replay returns the same
    events from history. The workflow's worker needs :class:`StreamqPlugin`.

    Events come from the activity ``streamq.poll``, which waits for them and returns them in
    batches. The first chunk of the stream, and one after a pause longer than the window, is
    returned at once. Otherwise a poll collects until ``window`` after its start; regular polls come
    at an even pace, one for each ``window`` and 20 ms.

    **Leaving the block.** After the end of the stream it waits for the activity. Before the end (an
    early ``break``, an exception, cancellation of the workflow) it cancels the activity and waits
    until the stream is sealed CANCELLED. A failure is raised only by ``result()``; but if another
    call of the workflow writes the stream, or has ended it, so that the activity wrote nothing,
    iterating or leaving the block raises that. If the activity could not seal its stream, because
    it timed out or was between two attempts, ``streamq.seal`` ends it, so that the last event is a
    ``Seal``; unless the workflow itself will be retried and continues the stream.

    **Polling** ``local``. Most polls are local activities: one history event each instead of six. A
    regular poll comes first, then local ones for 425 ms by the worker's clock or until one finds
    nothing, then a regular one again. While they run the workflow task stays open, so that signals,
    updates, queries, cancellation and commands of other tasks of the workflow wait, at most 500 ms
    on a worker that is not overloaded. With a window above 425 ms all polls are regular.

    **Detached.** A child workflow, ``streamq.Produce``, runs the activity and continues while this
    workflow continues as new: ``if stream.should_continue_as_new:
    workflow.continue_as_new(stream.handover())``, and in the next run ``async with
    resume_stream(handover) as stream``. When the chain of runs ends without having cancelled it,
    the child cancels the activity.

    Args:
        activity: The activity, decorated with :func:`streaming_activity`, or its name.
        positional: Its arguments.
        args: Its arguments, instead of ``positional``.
        value_type: Type to which the workflow's payload converter decodes ``event.value``. By
            default that of the activity's annotations; a value that does not fit that one is
            decoded as if there were none.
        result_type: Type of the result, for an activity that is given by name.
        options: ``topic`` (by default that of an enclosing :func:`stream_topic`, else the
            activity's own, else ``default``: each call needs its own),
            ``window`` (100 ms), ``polling`` (``activity``), ``max_wait`` (60 s: how long a poll
            waits for an event), ``max_events`` (1,000) and ``max_bytes`` (512 KiB) of one poll,
            ``detached``, and ``task_queue``, the timeouts and ``retry_policy`` as for
            ``workflow.start_activity``.

    Raises:
        ConfigurationError: An option is not usable, or the arguments of a detached activity are too
            large; nothing has been started. If it leaves the workflow, that fails without a retry.
        ApplicationError: The function is an activity, but not decorated with
            :func:`streaming_activity`.
    """
    if positional and args:
        raise ConfigurationError("pass the activity's arguments by position or as args, not both")
    detached = options.get("detached", False)
    call = _call(activity, list(args or positional), result_type, options)
    handover = _begin_handover(call.stream, options)
    if detached:
        check_detached(call)
    producer = ChildProducer(call) if detached else ActivityProducer(call)
    serializer = _serializer(value_type)
    if value_type is None:
        serializer = _serializer(_chunk_type(activity), is_inferred=True)
    return ActivityStream(producer, handover, serializer, detached=detached)


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
    """Resume a stream that an earlier run of this workflow has handed over.

    The next event is the one after the last that the earlier run took. All else is as with
    :func:`stream_activity`. ``result()`` costs an activity, ``streamq.result``, which waits for the
    producer.

    Args:
        handover: What :meth:`ActivityStream.handover` returned.
        value_type: Type to which ``event.value`` is decoded.
        result_type: Type to which the activity's result is decoded.
    """
    producer = ResumedProducer(handover.stream, result_type)
    return ActivityStream(producer, handover, _serializer(value_type), detached=True)


def _begin_handover(stream: str, options: StreamOptions) -> Handover:
    names = {each.name for each in dataclasses.fields(PollOptions)}
    chosen: dict[str, Any] = {key: value for key, value in options.items() if key in names}
    if "window" in options:
        chosen["window_seconds"] = options["window"].total_seconds()
    if "max_wait" in options:
        chosen["max_wait_seconds"] = options["max_wait"].total_seconds()
    return Handover(stream, **chosen)


def _call(
    function: str | Callable[..., Any],
    args: list[Any],
    result_type: type | None,
    options: StreamOptions,
) -> ProducerCall:
    if isinstance(function, str):
        name, topic = function, None
    else:
        # No public function of the SDK returns the activity name of a function.
        definition = activity._Definition.must_from_callable(function)
        name = definition.name or ""
        result_type = result_type or definition.ret_type
        spec = spec_of(function)
        if spec is None:
            raise _not_streaming(name)
        topic = spec.topic
    return ProducerCall(
        function,
        name,
        args,
        options.get("topic") or _topic_of_block() or topic or DEFAULT_TOPIC,
        result_type,
        options.get("task_queue"),
        options.get("schedule_to_close_timeout"),
        options.get("schedule_to_start_timeout"),
        options.get("start_to_close_timeout"),
        options.get("heartbeat_timeout"),
        options.get("retry_policy"),
    )


def _topic_of_block() -> str | None:
    chosen = chosen_topic()
    return chosen if chosen is not None and workflow.patched(_TOPIC_PATCH) else None


def _not_streaming(name: str) -> ApplicationError:
    return final_failure(
        ConfigurationError,
        f"activity {name} streams nothing: it is decorated with @activity.defn; decorate it with "
        "@streaming_activity instead, or call it with workflow.execute_activity",
    )


def _chunk_type(function: str | Callable[..., Any]) -> Any:
    spec = spec_of(function)
    return spec.chunk_type if spec else None


def _serializer(value_type: Any, *, is_inferred: bool = False) -> PayloadSerializer[Any]:
    return PayloadSerializer(workflow.payload_converter(), value_type, is_inferred=is_inferred)
