"""Cancelling a call at every single place where it can be cancelled."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_AWAITS = 500


async def cancel_at_every_await(
    make: Callable[[], Coroutine[Any, Any, object]], check: Callable[[], Awaitable[None]]
) -> None:
    """Make a call again and again, cancelling it at its first await, its second, and so on.

    Each await is met twice: cancelled as soon as the call suspends there, and when what it waits
    for has happened but the call has not yet gone on, which is where results get lost.

    Args:
        make: Makes the call; has to work again after it was cancelled.
        check: Called after each time; raises if something is lost.

    Raises:
        AssertionError: The call went on although it was cancelled.
    """
    for is_late in (False, True):
        at = 1
        while await _interrupt(make(), at, is_late):
            await check()
            at += 1
            assert at < _MOST_AWAITS, f"the call does not end within {at} awaits"
        await check()


async def _interrupt(call: Coroutine[Any, Any, object], at: int, is_late: bool) -> bool:
    """Cancel a call at its ``at``-th await; return whether it got that far."""
    awaits = 0
    was_hit = False

    def on_suspend(waited: object) -> None:
        nonlocal awaits, was_hit
        awaits += 1
        if awaits != at:
            return
        was_hit = True
        if is_late and isinstance(waited, asyncio.Future):
            # Before the task's own callback, so that the task is told both at once.
            waited.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)

    async def run() -> object:
        return await _step(call, on_suspend)

    task = asyncio.ensure_future(run())
    await asyncio.wait({task})
    if was_hit:
        assert task.cancelled(), (
            f"cancelled at its {at}. await, the call went on all the same: {task!r}"
        )
    else:
        task.result()
    return was_hit


@types.coroutine
def _step(
    call: Coroutine[Any, Any, T], on_suspend: Callable[[object], None]
) -> Generator[Any, Any, T]:
    """Drive a coroutine, telling what it waits for each time."""
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            waited = call.send(sent) if thrown is None else call.throw(thrown)
        except StopIteration as stop:
            value: T = stop.value
            return value
        on_suspend(waited)
        sent = thrown = None
        try:
            sent = yield waited
        except BaseException as exc:  # noqa: BLE001 - handed on to the coroutine
            thrown = exc
