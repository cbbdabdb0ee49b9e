"""Cancellation at every await finds calls that swallow it, lose results or repeat work."""

from __future__ import annotations

import asyncio

import pytest

from streamq.testing._cancellation import cancel_at_every_await


async def nothing() -> None:
    """Check nothing."""


async def test_every_await_is_met_early_and_late() -> None:
    """Some faults show only if result and cancellation arrive together; these are found, too."""
    starts = ends = 0
    reached: list[int] = []

    async def call() -> None:
        nonlocal starts, ends
        starts += 1
        at = 0
        try:
            await asyncio.sleep(0)
            at = 1
            await asyncio.sleep(0.001)
            at = 2
            await asyncio.sleep(0)
        finally:
            reached.append(at)
        ends += 1

    await cancel_at_every_await(call, nothing)
    assert (starts, ends) == (8, 2)
    assert reached == [0, 1, 2, 2] * 2


async def test_result_that_is_lost_with_the_cancellation_is_found() -> None:
    """A call that takes an item and then waits loses the item when it is cancelled."""
    left = list("abcdef")
    taken: list[str] = []

    async def take() -> None:
        item = left.pop(0)
        await asyncio.sleep(0)
        taken.append(item)

    async def nothing_is_lost() -> None:
        assert "".join(taken) + "".join(left) == "abcdef"

    with pytest.raises(AssertionError):
        await cancel_at_every_await(take, nothing_is_lost)


async def test_swallowed_cancellation_is_found() -> None:
    """A worker that ignores cancellation is killed, and loses its buffers."""

    async def swallow() -> None:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return

    with pytest.raises(AssertionError, match="continued all the same"):
        await cancel_at_every_await(swallow, nothing)


async def test_error_of_the_call_itself_comes_out() -> None:
    """A call that fails without cancellation proves nothing about cancellation."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        await cancel_at_every_await(fail, nothing)
