"""Operations that many tasks need, and operations side by side."""

from __future__ import annotations

import asyncio

import pytest

from streamq.driver import BackendError, ClosedError, SingleFlight, closed_error, together


async def stuck() -> None:
    """Never return."""
    await asyncio.Event().wait()


async def test_one_operation_serves_all_that_wait() -> None:
    """A hundred streams that begin at once must not open a hundred connections."""
    started = 0

    async def connect() -> int:
        nonlocal started
        started += 1
        await asyncio.sleep(0)
        return started

    connecting = SingleFlight(connect, closed=lambda: closed_error("toy"))
    assert await together(connecting.result() for _ in range(5)) == [1] * 5
    assert await connecting.result() == 2, "it has ended, so the next caller begins another one"


async def test_cancelling_one_waiter_does_not_disturb_the_others() -> None:
    """One reader that gives up must not cost another one its connection."""
    gate = asyncio.Event()

    async def connect() -> str:
        await gate.wait()
        return "connected"

    connecting = SingleFlight(connect, closed=lambda: closed_error("toy"))
    gone, stays = (asyncio.create_task(connecting.result()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    gate.set()
    assert await stays == "connected"


async def test_closing_ends_an_operation_for_good() -> None:
    """Connecting to a server that does not answer must not outlive the queue."""
    connecting = SingleFlight(stuck, closed=lambda: closed_error("toy"))
    waiting = asyncio.create_task(connecting.result())
    await asyncio.sleep(0)
    connecting.close()
    with pytest.raises(ClosedError):
        await waiting
    await connecting.gone()
    with pytest.raises(ClosedError):
        await connecting.result()


async def test_an_error_ends_the_calls_beside_it() -> None:
    """No task would see the end of requests that go on after their call has failed."""
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await stuck()
        finally:
            ended.set()

    async def fail() -> None:
        raise BackendError("no")

    with pytest.raises(BackendError):
        await together([endless(), fail()])
    assert ended.is_set()
