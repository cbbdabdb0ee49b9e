"""Runs an operation once for all tasks that need its result.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one operation for all tasks that need its result at the same time, such as connecting.

    For one event loop.

    Args:
        operation: Begins the operation.
        closed: Returns the error to raise once closed.
    """

    __slots__ = ("_closed", "_is_closed", "_operation", "_task")

    def __init__(
        self, operation: Callable[[], Coroutine[Any, Any, T]], *, closed: Callable[[], Exception]
    ) -> None:
        self._operation = operation
        self._closed = closed
        self._is_closed = False
        self._task: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """Return the result of the operation under way; begin one if there is none.

        An error is raised to every task that waits; the next call begins the operation again.

        Cancellation: ends the wait and not the operation, which others may need.

        Raises:
            Exception: The error of the operation, or of ``closed`` after :meth:`close`.
        """
        if self._is_closed:
            raise self._closed()
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.ensure_future(self._operation())
            task.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._is_closed and task.cancelled():
                raise self._closed() from None
            raise

    def close(self) -> None:
        """Cancel the operation and refuse to begin it again. Idempotent."""
        if not self._is_closed and self._task is not None:
            self._task.cancel()  # once: a second time would disturb how it ends
        self._is_closed = True

    async def gone(self) -> None:
        """Wait until no operation is under way; cancelling only stops the wait."""
        if self._task is not None:
            await asyncio.wait({self._task})


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark an error as seen, in case no task waits any more."""
    if not task.cancelled():
        task.exception()
