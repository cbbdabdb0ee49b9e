"""Divides one future among several jobs, whose outcomes are its result.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from streamq.driver import StreamqError

ResultT = TypeVar("ResultT", contravariant=True)


class Result(Protocol[ResultT]):
    """Takes the result of a job: a future, or a share of one."""

    def done(self) -> bool:
        """Whether the result is there, or nobody waits for it any more."""

    def set_result(self, result: ResultT, /) -> None:
        """Take what the job has returned."""

    def set_exception(self, exception: StreamqError, /) -> None:
        """Take the job's error."""


class Shares:
    """The outcomes of several jobs. For one event loop.

    Args:
        count: How many jobs, at least one.

    Attributes:
        future: Resolved when all jobs have ended, with the error of each, or ``None``.
        each: The shares, one for each job.
    """

    def __init__(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[StreamqError | None]] = loop.create_future()
        self.each = [_Share(self) for _ in range(count)]
        self._left = count

    def note(self) -> None:
        """Note that one more job has ended."""
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result([share.error for share in self.each])


class _Share:
    """The result of one job among several."""

    __slots__ = ("_is_done", "_of", "error")

    def __init__(self, of: Shares) -> None:
        self._of = of
        self._is_done = False
        self.error: StreamqError | None = None

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: None, /) -> None:
        self._is_done = True
        self._of.note()

    def set_exception(self, exception: StreamqError, /) -> None:
        self.error = exception
        self.set_result(None)
