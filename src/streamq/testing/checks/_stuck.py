"""Ends a check whose event loop is stuck: a call never awaits, or virtual time stands still.

No deadline of the loop can end such a check, and a test run without a limit would never end.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
import types
from types import TracebackType
from typing import Self

from streamq.testing._await_stacks import WaitingPlace, await_stack, call_of, lines_of, place_of
from streamq.testing._broken_promise import BrokenPromiseError
from streamq.testing._virtual_time import VirtualTimeLoop

_LOOK_SECONDS = 0.5
_INNERMOST = 4
_IMPORTS = "<frozen importlib"
_BUSY = (
    "a loop that looks again and again and never awaits, or that awaits only what is ready already "
    "(such as a lock, or sleep(0)): wait for an event or for a pause, and look at the deadline"
)


class _StuckCheck(BaseException):  # no handler of a driver may take it for an answer
    """Unwinds the code that keeps the event loop for itself."""


class unstuck:
    """Fail if the running event loop makes no progress within the block.

    A thread asks the loop for a sign of life. It raises in the loop's thread if none comes, and
    cancels the task if the loop is alive but its virtual time stands still. Imports are progress.

    Args:
        busy_seconds: For how long, in time of the processor: a busy machine must not count.
        blocked_seconds: For how long, by the machine's clock.
    """

    def __init__(self, busy_seconds: float, blocked_seconds: float) -> None:
        self._busy_seconds = busy_seconds
        self._blocked_seconds = blocked_seconds
        self._left = threading.Event()
        self._found: tuple[str, list[str]] | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._owner = threading.get_ident()
        self._watcher = threading.Thread(target=self._watch, name="streamq kit", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        try:
            self._left.set()
            self._watcher.join()
        except _StuckCheck:  # raised while this was leaving
            self._watcher.join()
        if self._found is not None:
            seen, places = self._found
            if self._task is not None and isinstance(exc, asyncio.CancelledError):
                self._task.uncancel()
            raise BrokenPromiseError(
                "the event loop is stuck",
                expected="every call awaits what it waits for, and time goes on",
                seen=seen,
                details=places,
                cause=_BUSY,
            ) from None

    def _watch(self) -> None:
        """Look twice a second for a sign of life."""
        signs = 0

        def sign() -> None:
            nonlocal signs
            signs += 1

        last, begun = self._state(signs), _clocks()
        while not self._left.wait(_LOOK_SECONDS):
            if self._found is None:
                self._loop.call_soon_threadsafe(sign)
                now = self._state(signs)
                busy, passed = (a - b for a, b in zip(_clocks(), begun, strict=True))
                if now != last:
                    last, begun = now, _clocks()
                elif busy > self._busy_seconds or passed > self._blocked_seconds:
                    stack = _stack_of(sys._current_frames().get(self._owner))
                    if any(place.path.startswith(_IMPORTS) for place in stack):
                        begun = _clocks()
                    else:
                        self._find(stack)
            else:
                self._end()

    def _state(self, signs: int) -> float:
        return self._loop.time() if isinstance(self._loop, VirtualTimeLoop) else signs

    def _find(self, stack: list[WaitingPlace]) -> None:
        """Note what the loop's thread does, and end it at the next look."""
        stack = stack if call_of(stack) else await_stack(self._task) or stack
        call = call_of(stack)
        places = lines_of(stack if call else stack[-_INNERMOST:])
        self._found = (f"{call or 'some code'} keeps it busy", places)
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self._left.is_set():
            self._task.cancel()

    def _end(self) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._owner), ctypes.py_object(_StuckCheck)
        )


def _clocks() -> tuple[float, float]:
    """Return the time of the processor that this process took, and the machine's."""
    return time.process_time(), time.monotonic()


def _stack_of(frame: types.FrameType | None) -> list[WaitingPlace]:
    """Return the stack of a thread, the outermost call first."""
    places: list[WaitingPlace] = []
    while frame is not None:
        places.insert(0, place_of(frame, frame.f_lineno))
        frame = frame.f_back
    return places
