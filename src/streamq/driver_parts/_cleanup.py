"""Runs cleanup in a task of its own, which cancellation of the caller does not reach.

Design: docs/design/closing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

R = TypeVar("R")

CANCELLED_SECONDS = 1.0
"""How long a caller that was cancelled still waits for its cleanup."""

Step: TypeAlias = Callable[[], Awaitable[object]]
"""Releases one resource. Limits its own duration, and can be repeated."""

_logger = logging.getLogger("streamq")
_running: set[asyncio.Task[None]] = set()  # the event loop itself does not keep them alive


async def close_all(*steps: Step) -> None:
    """Release resources one after the other, each of them even if another one fails.

    The steps run in a task of their own.

    Cancellation: every step runs to its end all the same. It is raised after the last step, or
    after :data:`CANCELLED_SECONDS` if that comes first; the task then goes on alone. Any number of
    cancellations has the effect of one. A cancel scope of anyio cancels again at every await.

    Raises:
        BaseException: The error of the last step that failed.
    """
    await _finished(_begin(steps))


class Closing:
    """Releases the same resources once, for all that call.

    For one event loop.

    Args:
        steps: Run in this order, each even if another one fails.
    """

    __slots__ = ("_steps", "_task")

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run the steps, or wait for those that another task has begun; see :func:`close_all`.

        After they have ended, this returns at once. If the event loop ended them, they run again.
        """
        task = self._task
        if self._steps and (task is None or task.done()):
            task = self._task = _begin(self._steps)
            task.add_done_callback(self._ended)
        if task is not None and not task.done():
            await _finished(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._steps = ()  # they often refer to the owner of this object


async def to_the_end(cleanup: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to completion even if this task is cancelled meanwhile; return its result.

    The coroutine has to limit its own duration. A cancellation that arrives meanwhile is swallowed:
    call this only where the caller is about to end in any case.
    """
    task = asyncio.create_task(cleanup)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()


def _begin(steps: tuple[Step, ...]) -> asyncio.Task[None]:
    task = asyncio.create_task(_run(steps), name="streamq-closing")
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def _run(steps: tuple[Step, ...]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for step in reversed(steps):
            stack.push_async_callback(_await, step)


async def _await(step: Step) -> None:
    await step()


async def _finished(task: asyncio.Task[None]) -> None:
    """Wait for a task; if the caller is cancelled, only for a while."""
    clock = asyncio.get_running_loop().time
    cancelled: asyncio.CancelledError | None = None
    until = 0.0
    while not task.done() and (cancelled is None or clock() < until):
        try:
            await asyncio.wait({task}, timeout=None if cancelled is None else until - clock())
        except asyncio.CancelledError as exc:
            if cancelled is None:
                cancelled, until = exc, clock() + CANCELLED_SECONDS
    if cancelled is None:
        task.result()
        return
    if task.done():
        _log_failure(task)
    else:
        task.add_done_callback(_log_failure)
    try:
        raise cancelled
    finally:
        del cancelled  # its traceback refers to this frame


def _log_failure(task: asyncio.Task[None]) -> None:
    """Log an error that no caller gets, because it was cancelled."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.warning("closing after a cancellation failed: %s: %s", type(error).__name__, error)
