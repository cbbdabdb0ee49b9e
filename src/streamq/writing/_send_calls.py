"""Represents calls of ``send_chunk``: those that are done at once, and those that have to wait.

A coroutine does nothing until it is awaited. A callback that cannot await would therefore lose its
chunk in silence. So the call itself accepts the chunk if there is room, and returns ``ACCEPTED``,
which may be awaited, made a task, or dropped. Without room it returns a :class:`SendCall`; the
writer counts those that nobody has begun to await.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class SendCalls:
    """Counts the calls of one writer that wait for room and were never awaited."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._not_begun: set[int] = set()
        self._forgotten = 0

    def add(self) -> int:
        """Add a call; return its number."""
        number = next(self._numbers)
        self._not_begun.add(number)
        return number

    def begin(self, number: int) -> None:
        """Mark a call as awaited, or as cancelled before it was."""
        self._not_begun.discard(number)

    def forget(self, number: int) -> None:
        """Count a call that nobody can await any more; only its count is kept."""
        self._not_begun.discard(number)
        self._forgotten += 1

    async def never_begun(self) -> int:
        """Return how many calls were made so far and never awaited.

        A task begins in the loop's next iteration, which is waited for.
        """
        made = set(self._not_begun)
        if made:
            await asyncio.sleep(0)
        return self._forgotten + len(made & self._not_begun)


class SendCall(Coroutine[Any, Any, None]):
    """A call of ``send_chunk`` that waits for room once it is awaited."""

    def __init__(self, accepting: Coroutine[Any, Any, None], calls: SendCalls) -> None:
        self._accepting = accepting
        self._calls = calls
        self._has_begun = False
        self._number = calls.add()

    def __await__(self) -> Generator[Any, Any, None]:
        self._begin()
        return self._accepting.__await__()

    def send(self, value: Any) -> Any:
        """Continue; a task calls it."""
        self._begin()
        return self._accepting.send(value)

    def throw(
        self,
        kind: Any,
        error: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        """Raise an error, for example the cancellation of a task that has not begun."""
        self._begin()
        if error is None and traceback is None:
            return self._accepting.throw(kind)
        return self._accepting.throw(kind, error, traceback)

    def close(self) -> None:
        """End without accepting the chunk."""
        self._begin()
        self._accepting.close()

    def __del__(self) -> None:
        if not self._has_begun:
            self._calls.forget(self._number)

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._calls.begin(self._number)


def marked_coroutine_function(method: F) -> F:
    """Make libraries that look for coroutine functions await the calls of a method.

    ``asyncio.iscoroutinefunction`` finds the mark in every version of Python, and
    ``inspect.iscoroutinefunction`` from 3.12 on.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(method)
    else:
        method._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return method


_ENDED: Any = iter(())  # an iterator at its end: all calls may share it


class _Accepted(Coroutine[Any, Any, None]):
    """A call whose chunk is accepted; it has no state, so that all calls share one."""

    def __await__(self) -> Generator[Any, Any, None]:
        return _ENDED  # type: ignore[no-any-return]

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(
        self,
        kind: Any,
        error: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        raise error if isinstance(error, BaseException) else kind

    def close(self) -> None:
        pass


ACCEPTED: Coroutine[Any, Any, None] = _Accepted()
"""Returned by a call that has accepted its chunk; awaiting it does nothing."""
