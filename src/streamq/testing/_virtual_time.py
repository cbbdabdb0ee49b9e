"""An event loop whose clock jumps to the next timer: waiting takes no time, a deadlock is an error.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from ._await_stacks import await_stack, call_of

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_START_SECONDS = 1_000.0


class DeadlockError(AssertionError):
    """No task is ready and no timer is left: the loop would wait for ever."""


class _JumpingSelector(selectors.BaseSelector):
    """A selector that calls ``jump`` with the time to wait, if ``may_jump`` allows it."""

    def __init__(self, jump: Callable[[float | None], None], may_jump: Callable[[], bool]) -> None:
        self._inner = selectors.DefaultSelector()
        self._jump = jump
        self._may_jump = may_jump

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        if ready or timeout == 0:
            return ready
        if not self._may_jump():
            return self._inner.select(None)
        self._jump(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: when nothing is ready, its clock jumps to the next timer.

    The order of events depends on the timers alone and not on the machine. A test of an hour's
    silence takes microseconds. A deadlock is reported at once: if nothing is ready and no timer is
    left, ``run_until_complete`` raises :class:`DeadlockError` with the places where tasks wait.

    Code under test has to take its time from ``loop.time()``. While a job of ``run_in_executor``
    (or ``asyncio.to_thread``) is running, time stands still and the loop waits for the job. The
    loop does not wait for sockets or other threads; use it for code inside one process.
    """

    def __init__(self) -> None:
        self._now = _START_SECONDS
        self._jobs = 0
        super().__init__(_JumpingSelector(self._jump, lambda: not self._jobs))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock at once; timers that become due run in the next turn of the loop.

        Raises:
            ValueError: Time does not run backwards.
        """
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s: time does not run backwards")
        self._now += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a blocking call in a thread; virtual time stands still until it has ended."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._on_job_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait for the threads of :meth:`run_in_executor` to end."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jobs -= 1

    def _on_job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def _jump(self, timeout: float | None) -> None:
        if timeout is None:
            raise DeadlockError(_describe(asyncio.all_tasks(self)))
        self._now += timeout


def run_in_virtual_time(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Call an async function and run it to completion on a :class:`VirtualTimeLoop`.

    Raises:
        DeadlockError: It waits for an event that cannot happen.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(function())


def _describe(tasks: set[asyncio.Task[Any]]) -> str:
    lines = ["deadlock in virtual time: nothing is ready and no timer is left"]
    for task in sorted(tasks, key=lambda task: task.get_name()):
        stack = await_stack(task.get_coro())
        place, call = stack[-1] if stack else None, call_of(stack)
        where = f" in {place.function} ({place.path}:{place.line})" if place else ""
        lines.append(f"  {task.get_name()} waits{where}" + (f", within {call}" if call else ""))
    return "\n".join(lines)
