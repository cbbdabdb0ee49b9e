"""Reads what streaming activities wrote, and what their workflows failed with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import ActivityHandle, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError

from streamq import Chunk, Event, Reset, Seal, Settings
from streamq.driver import ChunkQueue
from streamq.temporal import subscribe

SOON = timedelta(milliseconds=20)


async def read_all(
    handle: WorkflowHandle[Any, Any] | ActivityHandle[Any], queue: ChunkQueue, settings: Settings
) -> list[Event]:
    """Read the default stream of a workflow or standalone activity to its end."""
    async with subscribe(handle, queue=queue, settings=settings) as events:
        return [event async for event in events]


def outline(events: list[Event]) -> list[object]:
    """Return a stream in short: values, ``RESET`` with the attempt, and the seal's state."""
    shown: list[object] = []
    for event in events:
        if isinstance(event, Chunk):
            shown.append(event.value)
        elif isinstance(event, Reset):
            shown.append(f"RESET {event.attempt}")
        elif isinstance(event, Seal):
            shown.append(event.state.name)
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    return shown


async def failure_of(handle: WorkflowHandle[Any, Any]) -> BaseException | None:
    """Return what a workflow failed with: the failure of its activity, if that is the cause."""
    with pytest.raises(WorkflowFailureError) as caught:
        await asyncio.wait_for(handle.result(), 15)
    cause = caught.value.cause
    return cause.cause if isinstance(cause, ActivityError) else cause


async def ignoring_cancellation(work: Awaitable[object]) -> None:
    """Await work to its end even if cancelled: code that Temporal's timeouts do not stop."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.shield(task)
    await task
