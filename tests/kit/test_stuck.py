"""A check whose event loop is stuck fails with the place, instead of hanging for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from streamq.testing import BrokenPromiseError, VirtualTimeLoop, run_in_virtual_time
from streamq.testing.checks._stuck import unstuck

_SECONDS = 0.6


async def _never_awaits() -> None:
    lock = asyncio.Lock()
    while True:
        async with lock:  # which is free, so that nobody else runs
            pass


async def _swallows() -> None:
    """Never await, and take what is raised meanwhile for an answer."""
    while True:
        try:
            while True:
                pass
        except Exception:  # noqa: BLE001 - as a careless driver has it
            continue


async def _in_background() -> None:
    task = asyncio.create_task(_never_awaits())
    await asyncio.sleep(0)
    await task


async def _stands_still() -> None:
    while True:  # noqa: ASYNC110 - as such a driver has it
        await asyncio.sleep(0)


# What is raised from another thread may hit a destructor, which only warns; it is raised again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("call", "loop"),
    [
        (_never_awaits, asyncio.new_event_loop),
        (_swallows, asyncio.new_event_loop),
        (_in_background, asyncio.new_event_loop),
        (_never_awaits, VirtualTimeLoop),
        (_stands_still, VirtualTimeLoop),
    ],
)
def test_stuck_check_fails_with_the_place(
    call: Callable[[], Coroutine[Any, Any, None]], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The author of a driver sees which loop goes round and round."""

    async def check() -> None:
        with unstuck(_SECONDS, 30.0):
            await call()

    with (
        asyncio.Runner(loop_factory=loop) as runner,
        pytest.raises(BrokenPromiseError, match="the event loop is stuck") as caught,
    ):
        runner.run(check())
    assert "test_stuck.py" in str(caught.value)


def test_call_that_blocks_fails_too() -> None:
    """A client that waits in the operating system takes no time of the processor."""

    async def check() -> None:
        with unstuck(30.0, _SECONDS):
            while True:
                time.sleep(0.1)  # noqa: ASYNC251 - as such a driver has it

    with pytest.raises(BrokenPromiseError, match="the event loop is stuck"):
        asyncio.run(check())


def test_check_that_only_waits_is_left_alone() -> None:
    """A check may wait for as long as it likes, as long as the loop turns."""
    threads = threading.active_count()

    async def check() -> None:
        with unstuck(_SECONDS, 30.0):
            await asyncio.sleep(2 * _SECONDS)

    asyncio.run(check())
    assert threading.active_count() == threads


def test_hours_of_virtual_time_are_no_standstill() -> None:
    """Virtual time that moves is progress, whatever the machine's clock says."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        with unstuck(_SECONDS, 30.0):
            await asyncio.sleep(36_000)

    run_in_virtual_time(check)
