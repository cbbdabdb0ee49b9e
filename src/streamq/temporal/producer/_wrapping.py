"""Looks through decorators, partials and callable objects at the function that they wrap.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from temporalio.exceptions import ApplicationError

from streamq._errors import ConfigurationError
from streamq.temporal._failure import final_failure


def check_callable(function: Any) -> None:
    """Check that something can be decorated.

    Raises:
        TypeError: It is a class, a static or class method that is not bound yet, or no callable.
    """
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        raise TypeError(
            f"@streaming_activity decorates {name_of(function)}, which is a {kind} already; put "
            f"@{kind} above @streaming_activity"
        )
    if inspect.isclass(function) or not callable(function):
        shown = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"@streaming_activity decorates functions, methods, partials and callable objects, "
            f"not {shown}"
        )


def layers_of(function: Any) -> Iterator[Any]:
    """Return a callable and what it wraps, from the outermost to the innermost."""
    seen: set[int] = set()
    while id(function) not in seen:
        seen.add(id(function))
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif not inspect.isroutine(function):
            function = function.__call__


def name_of(function: Any) -> str:
    """Return the name of a callable: that of the function, or of the object's class."""
    for each in layers_of(function):
        if inspect.isroutine(each) and each.__name__ != "__call__":
            return each.__name__
    return type(function).__name__


def bound_keywords(function: Any) -> set[str]:
    """Return the arguments that partials have set by name."""
    partials = (each for each in layers_of(function) if isinstance(each, functools.partial))
    return {name for each in partials for name in each.keywords}


def place_of(function: Any) -> str:
    """Return where the outermost layer is defined, for messages: its own name, and its line."""
    for each in layers_of(function):
        code = getattr(each, "__code__", None)
        if code is not None:
            return f"{code.co_qualname!r} (line {code.co_firstlineno} of {code.co_filename})"
    return repr(name_of(function))


def checked_result(function: Callable[..., Any], result: Any) -> Any:
    """Return the result of a call, unless it shows that nothing has run.

    Raises:
        ApplicationError: It is a coroutine, a generator or another awaitable; not retryable.
    """
    if not (inspect.isawaitable(result) or inspect.isgenerator(result)) and not inspect.isasyncgen(
        result
    ):
        return result
    if inspect.isgenerator(result) or inspect.iscoroutine(result):
        with contextlib.suppress(Exception):
            result.close()  # so that Python does not warn of it
    if inspect.isawaitable(result):
        remedy = (
            "await it where it is called. A decorator that hides an 'async def' has to be one "
            "itself, or to use functools.wraps"
        )
    else:
        remedy = (
            "yield its chunks. A decorator that hides a generator has to be one itself, or to use "
            "functools.wraps"
        )
    raise unsuitable(function, result, remedy)


def unsuitable(function: Callable[..., Any], result: Any, remedy: str) -> ApplicationError:
    """Return the failure of a wrapper that returned something else than its kind promises."""
    inner = getattr(result, "__qualname__", "")
    shown = type(result).__name__ + (f" of {inner!r}" if inner else "")
    return final_failure(
        ConfigurationError,
        f"{place_of(function)} returned a {shown}, which has not run and cannot be a result: "
        f"{remedy}",
    )
