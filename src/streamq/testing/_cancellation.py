"""Cancels a call at every await at which it can be cancelled."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_AWAITS = 500


async def cancel_at_every_await(
    make: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[], Awaitable[None]],
    *,
    insists: bool = False,
) -> None:
    """Repeat a call, and cancel it at its first await, its second, and so on.

    Each await is tried twice. First the call is cancelled as soon as it suspends there. Then it is
    cancelled when the awaited event has happened but the call has not resumed; results are lost
    most easily at that point.

    Args:
        make: Makes the call; has to work again after it was cancelled.
        check: Called after each cancellation; raises if something is lost.
        insists: Try each await once instead, and then cancel the call again at every later await,
            as a cancel scope of anyio does.

    Raises:
        AssertionError: The call continued although it was cancelled.
    """
    for is_late in (False,) if insists else (False, True):
        at = 1
        while await interrupt(make(), at, is_late=is_late, insists=insists):
            await check()
            at += 1
            assert at < _MOST_AWAITS, f"the call does not end within {at} awaits"
        await check()


async def interrupt(
    call: Coroutine[Any, Any, object], at: int, *, is_late: bool = False, insists: bool = False
) -> bool:
    """Cancel a call at its ``at``-th await; return whether it reached that await.

    If this is cancelled, the call is cancelled as well, again and again if it ``insists``.
    """
    awaits = 0
    was_hit = False

    def on_suspend(waited: object) -> None:
        nonlocal awaits, was_hit
        awaits += 1
        if not (awaits == at or (insists and at < awaits < at + _MOST_AWAITS)):
            return
        was_hit = True
        if is_late and isinstance(waited, asyncio.Future):
            # Added before the task's own callback: the task gets result and cancellation at once.
            waited.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)

    async def run() -> object:
        return await step(call, on_suspend)

    task = asyncio.ensure_future(run())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        for _ in range(_MOST_AWAITS if insists else 1):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({task})
        raise
    if was_hit:
        assert task.cancelled(), (
            f"the call was cancelled at its {at}. await, and continued all the same: {task!r}"
        )
    else:
        task.result()
    return was_hit


async def count_awaits(call: Coroutine[Any, Any, object]) -> int:
    """Run a call to its end, and return how often it suspended."""
    awaits = 0

    def on_suspend(_: object) -> None:
        nonlocal awaits
        awaits += 1

    await step(call, on_suspend)
    return awaits


@types.coroutine
def step(
    call: Coroutine[Any, Any, T], on_suspend: Callable[[object], None]
) -> Generator[Any, Any, T]:
    """Drive a coroutine, and report each thing that it waits for."""
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
        except BaseException as exc:  # noqa: BLE001 - passed to the coroutine
            thrown = exc
