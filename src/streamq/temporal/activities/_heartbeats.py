"""Sends heartbeats while an activity waits for work of unknown length."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from temporalio import activity

_PART_OF_TIMEOUT = 1 / 3

R = TypeVar("R")

Details = Callable[[], Sequence[Any]]
"""Returns the details of the next heartbeat."""


def heartbeat_seconds(info: activity.Info, longest_seconds: float) -> float:
    """Return the interval of heartbeats: a third of the timeout, but at most ``longest_seconds``.

    An activity without a heartbeat timeout sends heartbeats too: cancellation arrives with their
    responses and in no other way.
    """
    if not info.heartbeat_timeout:
        return longest_seconds
    return min(info.heartbeat_timeout.total_seconds() * _PART_OF_TIMEOUT, longest_seconds)


async def beating(
    work: Coroutine[Any, Any, R], *, longest_seconds: float, details: Details = tuple
) -> R:
    """Await work and send a heartbeat in every interval that it takes; none if it is short.

    The activity keeps its slot: this is for work, not for waiting (:func:`wait_without_slot`).
    Cancellation cancels the work and waits for it. If the work fails, a last heartbeat carries the
    details, if there are any.
    """
    interval = heartbeat_seconds(activity.info(), longest_seconds)
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=interval))[0]:
            activity.heartbeat(*details())
        return task.result()
    except Exception:
        if last := details():
            activity.heartbeat(*last)
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
