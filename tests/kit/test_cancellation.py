"""Cancelling at every await: what swallows, loses or repeats is found."""

from __future__ import annotations

import asyncio

import pytest

from streamq.testing._cancellation import cancel_at_every_await


async def nothing() -> None:
    """Check nothing."""


async def test_every_await_is_met_early_and_late() -> None:
    """The bug that only shows when the answer and the cancellation come together is met, too."""
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
    """Taking something first and waiting afterwards is how chunks get lost."""
    left = list("abcdef")
    told: list[str] = []

    async def take() -> None:
        item = left.pop(0)
        await asyncio.sleep(0)
        told.append(item)

    async def nothing_is_lost() -> None:
        assert "".join(told) + "".join(left) == "abcdef"

    with pytest.raises(AssertionError):
        await cancel_at_every_await(take, nothing_is_lost)


async def test_swallowed_cancellation_is_found() -> None:
    """A worker that does not stop when it is told to is killed, with all that it holds."""

    async def swallow() -> None:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return

    with pytest.raises(AssertionError, match="continued all the same"):
        await cancel_at_every_await(swallow, nothing)


async def test_error_of_the_call_itself_comes_out() -> None:
    """A call that fails without being cancelled proves nothing about cancelling."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        await cancel_at_every_await(fail, nothing)
