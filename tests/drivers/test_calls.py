"""The shared parts for what is under way: calls that closing ends, and operations for many."""

from __future__ import annotations

import asyncio

import pytest

from streamq import StreamId
from streamq.driver import BackendError, Calls, ClosedError, SingleFlight, closed_error, together

STREAM = StreamId("tenant", "name")


async def stuck() -> None:
    """Never return."""
    await asyncio.Event().wait()


async def test_closing_ends_the_calls_under_way() -> None:
    """A reader that waits for minutes must not hold up the end of its process."""
    calls = Calls("toy")

    async def call() -> None:
        with calls.one(STREAM):
            await stuck()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    calls.close()
    with pytest.raises(ClosedError, match="this toy queue has been closed") as caught:
        await task
    assert caught.value.stream == str(STREAM)
    assert not task.cancelling()
    assert calls.is_closed
    with pytest.raises(ClosedError), calls.one():
        pass


async def test_a_cancellation_by_the_caller_is_passed_on() -> None:
    """A task that was cancelled must end as cancelled, even if the queue is closed as well."""
    calls = Calls("toy")

    async def call() -> None:
        with calls.one():
            await stuck()

    for closes in (False, True):
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        if closes:
            calls.close()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_gets_the_stream_of_its_call() -> None:
    """Parts of a driver that know no stream raise errors without one."""
    with pytest.raises(BackendError) as caught, Calls("toy").one(STREAM):
        raise BackendError("no", backend="toy")
    assert caught.value.stream == str(STREAM)


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
    assert await connecting.result() == 2, "it has ended, so the next caller begins anew"


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
    """Requests that go on after their call has failed would be seen by nobody."""
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
