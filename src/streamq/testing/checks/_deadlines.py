"""Ends the wait of a check after a time, and reports which call hangs, and where.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from streamq.testing._await_stacks import await_stack, call_of, lines_of
from streamq.testing._broken_promise import BrokenPromiseError

_MOST_BESIDE = 3


class within:
    """Fail if the block takes longer, with the calls that hang in it and their await stacks.

    Args:
        seconds: How long it may take.
        what: What the block does, in words.
        cause: What usually causes a failure.
    """

    def __init__(self, seconds: float, what: str, *, cause: str = "") -> None:
        self._seconds = seconds
        self._what = what
        self._cause = cause
        self._hung: list[str] = []
        self._seen = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self._task = asyncio.current_task()
        self._timer = loop.call_later(self._seconds, self._expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, exc, tb)
        except TimeoutError:
            call = self._seen.partition("(")[0] if "(" in self._seen else ""
            raise BrokenPromiseError(
                f"{self._what} waits after {self._seconds:g} s" + (f" for {call}" if call else ""),
                expected=f"it ends within {self._seconds:g} s",
                seen=self._seen,
                details=self._hung,
                cause=self._cause or _CAUSE,
            ).with_traceback(tb) from None  # of the cancellation: it leads to the line that waits

    def _expire(self) -> None:
        # Before the cancellation, which unwinds the stacks.
        assert self._task is not None
        self._seen, self._hung = hanging(self._task)
        self._timeout.reschedule(asyncio.get_running_loop().time())


def hanging(task: asyncio.Task[Any], *, beside: int = _MOST_BESIDE) -> tuple[str, list[str]]:
    """Return in words which call a task hangs in, and lines that show where.

    Args:
        task: The task that waits.
        beside: Most calls of the driver to show that other tasks have under way: the task may wait
            for one of them.
    """
    stack = await_stack(task)
    call = call_of(stack)
    lines = lines_of(stack)
    for other in sorted(asyncio.all_tasks() - {task}, key=lambda each: each.get_name()):
        places = await_stack(other)
        theirs = call_of(places)
        if theirs and theirs != call and beside > 0:
            beside -= 1
            lines += [f"{theirs} is under way in task {other.get_name()!r}:", *lines_of(places)]
    seen = f"{call} has not returned" if call else "no call of the driver; the check waits"
    return seen, lines


_CAUSE = (
    "an await without a deadline of its own (the client's default time-out is often none), a lock "
    "that a cancelled call still holds, or a wake-up that is sent before the record is stored; the "
    "last place above is where it waits"
)
