"""Makes the function that Temporal calls: it adds the writers and sends the chunks it yields.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

from ._given_writers import given_writers
from ._signature import MAIN, Kind, StreamingSpec
from ._wrapping import checked_result, name_of, unsuitable

_NOT_ITERABLE = "return what the generator that it wraps returns, or yield its chunks"


def runner(function: Callable[..., Any], spec: StreamingSpec) -> Callable[..., Any]:
    """Return the function that Temporal calls instead of a user's function."""
    parameters = inspect.signature(function).parameters
    names, needed = list(parameters), tuple(spec.topics(None))
    # In order of their places, so that an earlier insertion does not move a later one.
    places = [
        (names.index(each), each)
        for each in spec.writers
        if parameters[each].kind is not inspect.Parameter.KEYWORD_ONLY
    ]

    def call(args: tuple[Any, ...], kwargs: dict[str, Any], writers: dict[str, Any]) -> Any:
        given, named = list(args), {**kwargs}
        by_name = set(spec.writers)
        for place, each in places:
            if place <= len(given):
                given.insert(place, writers[each])
                by_name.discard(each)
        named.update({each: writers[each] for each in by_name})
        return function(*given, **named)

    def writers_of(kwargs: dict[str, Any]) -> dict[str, Any]:
        # Passed by a unit test that calls the function itself; else those of the worker.
        given = {each: kwargs.pop(each) for each in needed if each in kwargs}
        missing = ", ".join(f"{each}=" for each in needed if each not in given)
        if given and missing:
            raise TypeError(f"{name_of(function)} writes several streams; pass {missing} too")
        return given or given_writers()

    if spec.kind is Kind.ASYNC:

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            found = call(args, kwargs, writers_of(kwargs))
            # A wrapper that is no coroutine function itself may return the result of a cache.
            return checked_result(function, await found if inspect.isawaitable(found) else found)

    elif spec.kind is Kind.SYNC:

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with _for_a_thread(function):
                return checked_result(function, call(args, kwargs, writers_of(kwargs)))

    elif spec.kind is Kind.ASYNC_GENERATOR:

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            writers = writers_of(kwargs)
            chunks = call(args, kwargs, writers)
            if not hasattr(chunks, "__aiter__"):
                raise unsuitable(function, chunks, _NOT_ITERABLE)
            async with contextlib.AsyncExitStack() as stack:
                if hasattr(chunks, "aclose"):
                    await stack.enter_async_context(contextlib.aclosing(chunks))
                async for chunk in chunks:
                    await writers[MAIN].send_chunk(chunk)

    else:

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            writers = writers_of(kwargs)
            with _for_a_thread(function), contextlib.ExitStack() as stack:
                chunks = call(args, kwargs, writers)
                if not hasattr(chunks, "__iter__"):
                    raise unsuitable(function, chunks, _NOT_ITERABLE)
                if hasattr(chunks, "close"):
                    stack.enter_context(contextlib.closing(chunks))
                iterator = iter(chunks)
                while True:
                    try:
                        chunk = next(iterator)
                    except StopIteration as end:
                        return end.value
                    writers[MAIN].send_chunk(chunk)

    return run


class _for_a_thread:
    """Replaces the exceptions that cannot be passed from a thread to the event loop.

    A future refuses ``StopIteration``, so that the activity would never end. ``GeneratorExit``
    would close the coroutines that await the future, so that they could not seal the stream.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        if isinstance(exc, StopIteration | GeneratorExit):
            raise RuntimeError(
                f"{name_of(self._function)} raised {type(exc).__name__}, as no function that is "
                "not a generator may"
            ) from exc
