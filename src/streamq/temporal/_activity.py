"""``@streaming_activity``: an activity whose output can be seen while it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from temporalio import activity

from streamq._errors import ConfigurationError
from streamq._writer import OnFull, OnRetry, StreamWriter

from ._attempt import run_attempt
from ._names import check_topic

_PARAMETER = "stream"

A = TypeVar("A", contravariant=True)
B = TypeVar("B", contravariant=True)
C = TypeVar("C", contravariant=True)
R = TypeVar("R")
RCo = TypeVar("RCo", covariant=True)
P = ParamSpec("P")


class _Keyword0(Protocol[RCo]):
    def __call__(self, *, stream: StreamWriter) -> Awaitable[RCo]: ...


class _Keyword1(Protocol[A, RCo]):
    def __call__(self, a: A, /, *, stream: StreamWriter) -> Awaitable[RCo]: ...


class _Keyword2(Protocol[A, B, RCo]):
    def __call__(self, a: A, b: B, /, *, stream: StreamWriter) -> Awaitable[RCo]: ...


class _Keyword3(Protocol[A, B, C, RCo]):
    def __call__(self, a: A, b: B, c: C, /, *, stream: StreamWriter) -> Awaitable[RCo]: ...


class _Decorator(Protocol):
    """Takes ``stream`` out of a signature, for type checkers.

    Known are the first place, the last of up to four (a method's ``self`` counts) and keyword-only.
    With ``stream`` elsewhere the arguments are not checked.
    """

    @overload
    def __call__(
        self, function: Callable[Concatenate[StreamWriter, P], Awaitable[R]], /
    ) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __call__(
        self, function: Callable[[A, StreamWriter], Awaitable[R]], /
    ) -> Callable[[A], Awaitable[R]]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, StreamWriter], Awaitable[R]], /
    ) -> Callable[[A, B], Awaitable[R]]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, C, StreamWriter], Awaitable[R]], /
    ) -> Callable[[A, B, C], Awaitable[R]]: ...
    @overload
    def __call__(self, function: _Keyword0[R], /) -> Callable[[], Awaitable[R]]: ...
    @overload
    def __call__(self, function: _Keyword1[A, R], /) -> Callable[[A], Awaitable[R]]: ...
    @overload
    def __call__(self, function: _Keyword2[A, B, R], /) -> Callable[[A, B], Awaitable[R]]: ...
    @overload
    def __call__(self, function: _Keyword3[A, B, C, R], /) -> Callable[[A, B, C], Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[..., Awaitable[R]], /) -> Callable[..., Awaitable[R]]: ...


def _decorate(
    function: Callable[..., Awaitable[Any]],
    name: str | None,
    topic: str | None,
    on_retry: OnRetry,
    on_full: OnFull,
) -> Callable[..., Awaitable[Any]]:
    parameters = _check(function)
    place = list(parameters).index(_PARAMETER)
    keyword_only = parameters[_PARAMETER].kind is inspect.Parameter.KEYWORD_ONLY

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        def call(writer: StreamWriter) -> Awaitable[Any]:
            if keyword_only or len(args) < place:
                return function(*args, **{**kwargs, _PARAMETER: writer})
            return function(*args[:place], writer, *args[place:], **kwargs)

        return await run_attempt(call, topic=topic, on_retry=on_retry, on_full=on_full)

    # Temporal converts payloads by the signature and the annotations; it must not see the writer.
    shown = [parameter for key, parameter in parameters.items() if key != _PARAMETER]
    signature = inspect.signature(function).replace(parameters=shown)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {k: v for k, v in function.__annotations__.items() if k != _PARAMETER}
    return activity.defn(name=name or function.__name__)(run)


def _check(function: Callable[..., Awaitable[Any]]) -> dict[str, inspect.Parameter]:
    shown = getattr(function, "__qualname__", repr(function))
    if not inspect.isfunction(function):
        raise TypeError(f"@streaming_activity decorates functions and methods, not {shown}")
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{shown} is an async generator; @streaming_activity takes 'async def' functions that "
            "call stream.send_chunk (generators come in a later release)"
        )
    if not inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{shown} is not 'async def'; declare it so, and call blocking code with "
            "asyncio.to_thread (synchronous streaming activities come in a later release)"
        )
    parameters = dict(inspect.signature(function).parameters)
    found = parameters.get(_PARAMETER)
    if found is None or found.kind in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ):
        raise TypeError(f"{shown} needs a parameter 'stream: StreamWriter' to send chunks with")
    return parameters


@overload
def streaming_activity(
    function: Callable[Concatenate[StreamWriter, P], Awaitable[R]], /
) -> Callable[P, Awaitable[R]]: ...
@overload
def streaming_activity(
    function: Callable[[A, StreamWriter], Awaitable[R]], /
) -> Callable[[A], Awaitable[R]]: ...
@overload
def streaming_activity(
    function: Callable[[A, B, StreamWriter], Awaitable[R]], /
) -> Callable[[A, B], Awaitable[R]]: ...
@overload
def streaming_activity(
    function: Callable[[A, B, C, StreamWriter], Awaitable[R]], /
) -> Callable[[A, B, C], Awaitable[R]]: ...
@overload
def streaming_activity(function: _Keyword0[R], /) -> Callable[[], Awaitable[R]]: ...
@overload
def streaming_activity(function: _Keyword1[A, R], /) -> Callable[[A], Awaitable[R]]: ...
@overload
def streaming_activity(function: _Keyword2[A, B, R], /) -> Callable[[A, B], Awaitable[R]]: ...
@overload
def streaming_activity(function: _Keyword3[A, B, C, R], /) -> Callable[[A, B, C], Awaitable[R]]: ...
@overload
def streaming_activity(function: Callable[..., Awaitable[R]], /) -> Callable[..., Awaitable[R]]: ...
@overload
def streaming_activity(
    *,
    name: str | None = None,
    topic: str | None = None,
    on_retry: OnRetry = OnRetry.RESTART,
    on_full: OnFull = OnFull.BLOCK,
) -> _Decorator: ...
def streaming_activity(
    function: Callable[..., Awaitable[Any]] | None = None,
    /,
    *,
    name: str | None = None,
    topic: str | None = None,
    on_retry: OnRetry = OnRetry.RESTART,
    on_full: OnFull = OnFull.BLOCK,
) -> Any:
    """Make an ``async def`` function an activity that streams.

    The function has a parameter ``stream``, anywhere, and gets a :class:`~streamq.StreamWriter` in
    it. Temporal does not see that parameter: ``workflow.execute_activity`` passes the others. The
    worker needs :class:`StreamqPlugin`.

    How the stream ends follows how the attempt ends:

    * Returning seals END, before the activity completes. If that cannot be stored the attempt
      fails, and Temporal tries again.
    * Raising seals ERROR if Temporal will not try again (not retryable, attempts or time used up).
      Otherwise the stream stays open for the next attempt, which readers see as a ``Reset``; or as
      nothing at all with ``OnRetry.RESUME`` and ``stream.position``, or with ``OnRetry.REPLAY`` and
      the same chunks again (other ones are a ``ReplayError``, which is final).
    * Cancellation seals CANCELLED when it was requested or the workflow has ended. Shutdown of the
      worker, a timeout, pause and reset leave the stream open.
    * A superseded attempt (``FencedError``) stops and seals nothing.
    * If an earlier attempt sealed the stream and its worker died before Temporal knew, the function
      runs once more for its result, with a writer whose chunks go nowhere.

    Errors of streamq that leave the function become ``ApplicationError`` with the class name as
    type. Heartbeats with the durable position are sent by themselves; give the activity a
    ``heartbeat_timeout``, since cancellation and the loss of a worker are noticed only through it.

    Args:
        function: The function; left out when options are given.
        name: The activity's name, by default the function's.
        topic: Which of the workflow's streams to write; :func:`stream_topic` in the workflow wins.
            Two calls in one workflow need two topics.
        on_retry: What readers see of the next attempt.
        on_full: What ``send_chunk`` does while the backend is slower than the function.

    Raises:
        TypeError: The function is not ``async def`` or has no parameter ``stream``.
        ConfigurationError: The topic is not usable, or an option is no member of its enum.
    """
    if topic is not None:
        check_topic(topic)
    if not isinstance(on_retry, OnRetry):
        raise ConfigurationError(f"on_retry {on_retry!r} is not a member of OnRetry")
    if not isinstance(on_full, OnFull):
        raise ConfigurationError(f"on_full {on_full!r} is not a member of OnFull")

    def decorator(found: Callable[..., Awaitable[Any]], /) -> Callable[..., Awaitable[Any]]:
        return _decorate(found, name, topic, on_retry, on_full)

    return decorator if function is None else decorator(function)
