"""Stops a call at one of its awaits while other calls run: every order of two calls, one by one.

A race shows itself once in a thousand runs. Stopped at the right await it shows itself every time.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

_HOLD_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Interleaved(Generic[T]):
    """The outcome of a call that was stopped at one of its awaits.

    Attributes:
        was_held: Whether the call has reached that await; otherwise ``meanwhile`` came after it, or
            while it waited at an earlier one.
        result: What the call has returned; ``None`` if it raised.
        error: What the call has raised.
    """

    was_held: bool
    result: T | None
    error: BaseException | None

    def value(self) -> T:
        """Return what the call has returned, or raise what it has raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.result)


async def interleave(
    call: Coroutine[Any, Any, T],
    at: int,
    meanwhile: Callable[[], Awaitable[object]],
    *,
    reach_seconds: float,
) -> Interleaved[T]:
    """Stop a call at its ``at``-th await, make other calls from beginning to end, and go on.

    If the other calls wait for the one that is stopped, such as for a lock, it goes on soon.

    Args:
        call: The call.
        at: Which await, from 1.
        meanwhile: Makes the other calls.
        reach_seconds: Time within which the call reaches that await, if it does not wait earlier.

    Raises:
        Exception: What ``meanwhile`` has raised.

    Cancellation: both are cancelled, and have ended.
    """
    gate = _Gate(at)
    held = asyncio.ensure_future(gate.is_held.wait())
    first = asyncio.ensure_future(_run(call, gate))
    tasks: list[asyncio.Future[Any]] = [held, first]
    try:
        await asyncio.wait(tasks, timeout=reach_seconds, return_when=asyncio.FIRST_COMPLETED)
        was_held = gate.is_held.is_set()
        gate.closes = False  # from now on it is stopped no more
        second = asyncio.ensure_future(meanwhile())
        tasks.append(second)
        await asyncio.wait({second}, timeout=_HOLD_SECONDS)
        gate.goes_on.set()
        await asyncio.wait({first, second})
        second.result()
        error = first.exception()
        return Interleaved(was_held, None if error else first.result(), error)
    finally:
        for task in tasks:
            task.cancel()
        gate.goes_on.set()
        await asyncio.wait(tasks)
        if not first.cancelled():
            first.exception()


class _Gate:
    """Where a call stops."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.closes = True
        self.is_held = asyncio.Event()
        self.goes_on = asyncio.Event()


async def _run(call: Coroutine[Any, Any, T], gate: _Gate) -> T:
    return await _stepped(call, gate)


@types.coroutine
def _stepped(call: Coroutine[Any, Any, T], gate: _Gate) -> Generator[Any, Any, T]:
    """Drive a coroutine; keep from it, at the gate, that what it waits for has happened."""
    sent: Any = None
    thrown: BaseException | None = None
    awaits = 0
    while True:
        try:
            waited = call.send(sent) if thrown is None else call.throw(thrown)
        except StopIteration as stop:
            value: T = stop.value
            return value
        awaits += 1
        sent = thrown = None
        if awaits == gate.at and gate.closes:
            gate.is_held.set()
            try:
                yield from gate.goes_on.wait().__await__()
            except asyncio.CancelledError as exc:
                # As the task would have done: what it waits for is cancelled first.
                if not (isinstance(waited, asyncio.Future) and waited.cancel()):
                    thrown = exc
                    continue
        try:
            sent = yield waited
        except BaseException as exc:  # noqa: BLE001 - passed to the coroutine
            thrown = exc
