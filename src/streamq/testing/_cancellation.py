"""Cancels a call at every await at which it can be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, NoReturn, TypeVar

from ._await_stacks import WaitingPlace, await_stack, call_of, lines_of
from ._broken_promise import BrokenPromiseError
from ._shown import shown

T = TypeVar("T")

_MOST_AWAITS = 500
_LONGEST_SECONDS = 60.0


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
        BrokenPromiseError: The call continued although it was cancelled, or does not end.
    """
    for is_late in (False,) if insists else (False, True):
        at = 1
        while await interrupt(make(), at, is_late=is_late, insists=insists):
            await check()
            at += 1
            if at == _MOST_AWAITS:
                await _fail_endless(make())
        await check()


async def interrupt(
    call: Coroutine[Any, Any, object], at: int, *, is_late: bool = False, insists: bool = False
) -> bool:
    """Cancel a call at its ``at``-th await; return whether it reached that await.

    If this is cancelled, the call is cancelled as well, again and again if it ``insists``.

    Raises:
        BrokenPromiseError: The call continued although it was cancelled, or does not end.
    """
    awaits = 0
    was_hit = False
    stack: list[WaitingPlace] = []

    def on_suspend(waited: object) -> None:
        nonlocal awaits, was_hit
        awaits += 1
        if not (awaits == at or (insists and at < awaits < at + _MOST_AWAITS)):
            return
        if not was_hit:
            stack[:] = await_stack(call)
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
        await asyncio.wait({task}, timeout=_LONGEST_SECONDS)
    except asyncio.CancelledError:
        for _ in range(_MOST_AWAITS if insists else 1):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({task})
        raise
    if not task.done():
        await _fail_hanging(task, call, f" that was cancelled at its await {at}" if was_hit else "")
    if was_hit and not task.cancelled():
        error = task.exception()
        raise BrokenPromiseError(
            f"{call_of(stack) or 'a call'} was cancelled, and continued all the same",
            expected=f"CancelledError leaves the call at await {at}, where it stood",
            seen=f"it raised {shown(error)}" if error else f"it returned {shown(task.result())}",
            details=["it was cancelled here:", *lines_of(stack)],
            cause="CancelledError is caught (a bare except, BaseException, or the client's own "
            "handling of time-outs), or becomes another error; let it through after the cleanup",
        ) from error
    if not was_hit:
        task.result()
    return was_hit


async def _fail_hanging(
    task: asyncio.Task[object], call: Coroutine[Any, Any, object], how: str
) -> NoReturn:
    """Fail because of a call that does not end, with the place where it waits."""
    stack = await_stack(call)
    task.cancel()
    await asyncio.wait({task}, timeout=1.0)
    raise BrokenPromiseError(
        f"{call_of(stack) or 'a call'}{how}: still waiting after {_LONGEST_SECONDS:g} s",
        expected="a call that is cancelled ends" if how else "the call ends",
        seen="it waits on",
        details=["it waits here:", *lines_of(stack)],
        cause="CancelledError is caught and the wait begun again, a cleanup waits without a "
        "deadline, or an earlier call that was cancelled has kept a lock",
    )


async def _fail_endless(call: Coroutine[Any, Any, object]) -> NoReturn:
    """Fail because of a call that suspends again and again, with the places where it does."""
    awaits = 0
    places: Counter[WaitingPlace] = Counter()

    def on_suspend(_: object) -> None:
        nonlocal awaits
        awaits += 1
        if awaits > _MOST_AWAITS:
            raise _EnoughSeen
        stack = await_stack(call)
        of_the_driver = [place for place in stack if place.call]
        places.update(of_the_driver[-1:] or stack[-1:])

    with contextlib.suppress(_EnoughSeen):
        await step(call, on_suspend)
    call.close()
    name = call_of(each for each, _ in places.most_common(1)) or "a call"
    raise BrokenPromiseError(
        f"{name} was cancelled at {_MOST_AWAITS} awaits, one after the other",
        expected=f"one call suspends at fewer than {_MOST_AWAITS} awaits",
        seen=f"it suspended {awaits:,} times, most often here:",
        details=[f"{count:,} times {place}" for place, count in places.most_common(3)],
        cause="the call polls in a loop with a short sleep (wait for an event, or longer), retries "
        "by itself, or each call that is cancelled leaves work for the next one",
    )


class _EnoughSeen(Exception):
    """Ends a call that is only observed."""


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
