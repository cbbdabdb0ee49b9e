"""Defines ``@streaming_activity``, which makes a function an activity that streams."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from temporalio import activity

from streamq._errors import ConfigurationError
from streamq.temporal._names import check_topic
from streamq.writing._policies import OnFull, OnRetry

from ._decorator_types import typed
from ._running import runner
from ._signature import (
    ATTRIBUTE,
    StreamingSpec,
    annotations_of,
    chunk_type_of,
    kind_of,
    result_type_of,
    writer_parameters,
)
from ._wrapping import bound_keywords, check_callable, name_of


def _decorate(
    function: Callable[..., Any],
    name: str | None,
    topic: str | None,
    on_retry: OnRetry,
    on_full: OnFull,
) -> Callable[..., Any]:
    check_callable(function)
    kind = kind_of(function)
    writers = writer_parameters(function, kind)
    spec = StreamingSpec(kind, writers, topic, on_retry, on_full, chunk_type_of(function, kind))
    run = runner(function, spec)
    # Temporal converts payloads by the signature and the annotations, so that writers are removed.
    signature = inspect.signature(function)
    hidden = {*writers, *bound_keywords(function)}
    shown_parameters = [p for key, p in signature.parameters.items() if key not in hidden]
    result = result_type_of(function, kind)
    hints = annotations_of(function)
    run.__annotations__ = {k: v for k, v in hints.items() if k not in {*hidden, "return"}}
    if result is not inspect.Parameter.empty:
        run.__annotations__["return"] = result
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=shown_parameters, return_annotation=result
    )
    setattr(run, ATTRIBUTE, spec)
    return activity.defn(name=name or name_of(function))(run)


@typed
def streaming_activity(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    topic: str | None = None,
    on_retry: OnRetry = OnRetry.RESTART,
    on_full: OnFull = OnFull.BLOCK,
) -> Any:
    """Make a function or method, a partial or a callable object an activity that streams.

    The function may have one of four kinds:

    * ``async def`` with a parameter ``stream: StreamWriter[T]``, in any place;
    * ``def`` with ``stream: BlockingStreamWriter[T]``, run in the worker's thread pool
      (``Worker(activity_executor=ThreadPoolExecutor(...))``), with the same methods unawaited;
    * an async generator that yields its chunks; the activity's result is ``None``;
    * a generator in a thread that yields its chunks; the activity's result is its return value.

    Decorators below this one are looked through if they use ``functools.wraps``: what they wrap
    decides about the kind. A function that returns a coroutine or a generator instead of running it
    fails with a ``ConfigurationError`` that names it, and is not retried.

    A generator may have a parameter ``stream`` as well, to read ``stream.position`` for example.
    Every further parameter annotated as a writer is another stream of the workflow. Its topic is
    the parameter's name (``{topic}.{name}`` if the main topic is not the default one).

    Temporal does not see the writers: ``workflow.execute_activity`` passes the other arguments. The
    worker needs :class:`StreamqPlugin`. A unit test runs it with :func:`streamq.testing.record`, or
    calls the function itself with ``stream=``.

    Values are encoded by the client's data converter, and records by its payload codec.

    The streams end as the attempt ends:

    * A return seals END before the activity completes. If the seal cannot be stored the attempt
      fails, and Temporal retries.
    * An exception of any class (``SystemExit`` and exception groups too) seals ERROR if Temporal
      will not retry: the failure is not retryable, or attempts or time are used up. Otherwise the
      stream stays open for the next attempt. Readers see that as a ``Reset``. With
      ``OnRetry.RESUME`` and ``stream.position`` they see nothing of it, nor with ``OnRetry.REPLAY``
      if the same chunks are sent again; others raise a ``ReplayError``, which is final.
    * A result or a failure that Temporal will not store, because it cannot be encoded or is too
      large, is treated as an exception before anything is sealed. The function must not call
      ``activity.raise_complete_async()``: that is a ``ConfigurationError``.
    * Cancellation seals CANCELLED if it was requested or the workflow has ended. Shutdown of the
      worker and a reset are failures, of which another attempt may follow. A timeout and a pause
      leave the stream open. In a thread Temporal raises the cancellation, and so does the method of
      the writer that is waiting.
    * A superseded attempt (``FencedError``) stops and seals nothing. In a thread the next call to
      the writer raises it.
    * If an earlier attempt sealed the stream and its worker died before Temporal had the result,
      the function runs once more for its result, with a writer that discards its chunks.

    Errors of streamq that leave the function become ``ApplicationError`` with the class name as
    type. Heartbeats with the durable position are sent automatically, together with the details of
    the function's last ``activity.heartbeat``; ``activity.info().heartbeat_details`` of the next
    attempt has only the latter. Set a ``heartbeat_timeout`` for the activity: without it the loss
    of a worker is not noticed before ``start_to_close_timeout``.

    Args:
        function: The function; left out when options are given.
        name: The activity's name, by default the function's.
        topic: Which of the workflow's streams to write; :func:`stream_topic` in the workflow takes
            precedence. Two calls in one workflow need two topics.
        on_retry: What readers see of the next attempt.
        on_full: What ``send_chunk`` does while the backend is slower than the function.

    Raises:
        TypeError: The function neither has a writer nor yields, or has a writer of the other kind.
        ConfigurationError: The topic is not usable, or an option is no member of its enum.
    """
    if topic is not None:
        check_topic(topic)
    if not isinstance(on_retry, OnRetry):
        raise ConfigurationError(f"on_retry {on_retry!r} is not a member of OnRetry")
    if not isinstance(on_full, OnFull):
        raise ConfigurationError(f"on_full {on_full!r} is not a member of OnFull")

    def decorator(found: Callable[..., Any], /) -> Callable[..., Any]:
        return _decorate(found, name, topic, on_retry, on_full)

    return decorator if function is None else decorator(function)
