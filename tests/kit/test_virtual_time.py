"""Virtual time: waiting takes no time, and a deadlock is reported at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamq.testing import DeadlockError, VirtualTimeLoop, run_in_virtual_time


def test_sleeping_passes_exactly_the_time_asked_for() -> None:
    """A test can state times to the microsecond, and hours take no time."""

    async def sleep() -> list[float]:
        clock = asyncio.get_running_loop().time
        started = clock()
        seen = []
        for seconds in (0.001, 1.5, 86_400 * 3):
            await asyncio.sleep(seconds)
            seen.append(clock() - started)
        return seen

    assert run_in_virtual_time(sleep) == pytest.approx([0.001, 1.501, 259_201.501], abs=1e-6)


def test_things_happen_in_the_order_of_their_timers() -> None:
    """The same test runs in the same order on every machine."""

    async def race() -> list[str]:
        happened: list[str] = []

        async def after(seconds: float, what: str) -> None:
            await asyncio.sleep(seconds)
            happened.append(what)

        await asyncio.gather(after(2, "b"), after(1, "a"), after(3, "c"), after(2, "b again"))
        return happened

    assert run_in_virtual_time(race) == ["a", "b", "b again", "c"]


def test_timeouts_run_in_virtual_time() -> None:
    """Tests of deadlines are common: an hour must pass without an hour's wait."""

    async def patient() -> float:
        clock = asyncio.get_running_loop().time
        started = clock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        return clock() - started

    assert run_in_virtual_time(patient) == pytest.approx(3_600)


def test_deadlock_is_an_error_that_names_the_place() -> None:
    """A test that would hang for ever reports the place instead of running into a timeout."""

    async def waits_for_nobody() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(waits_for_nobody(), name="the other one")
        await task

    with pytest.raises(DeadlockError, match=r"the other one waits in .*Event\.wait") as caught:
        run_in_virtual_time(main)
    assert "no timer is left" in str(caught.value)


def test_cleanup_runs_after_a_deadlock() -> None:
    """The resources of a blocked test are released."""
    released = []

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            released.append(True)

    with pytest.raises(DeadlockError):
        run_in_virtual_time(stuck)
    assert released == [True]


def test_time_stands_still_while_a_thread_works() -> None:
    """A blocking call takes no virtual time, so it must not lose against a deadline."""

    async def work() -> str:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.02)
            return "done"

    assert run_in_virtual_time(work) == "done"


def test_advance_lets_time_pass_without_a_wait() -> None:
    """Tests can let the clock jump, as after the suspension of a machine."""

    async def jump() -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        fired = asyncio.Event()
        loop.call_later(100, fired.set)
        loop.advance(101)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="backwards"):
            loop.advance(-1)
        return fired.is_set()

    assert run_in_virtual_time(jump)
