"""Defines activities that run without a workflow, starts them and waits for their progress."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.exceptions import ApplicationError

from streamq import Event, Seal, StreamWriter
from streamq.temporal import streaming_activity

QUICK = timedelta(milliseconds=20)


async def begin(
    client: Client, task_queue: str, function: Callable[..., Any] | str, *args: object, **given: Any
) -> ActivityHandle[Any]:
    """Start an activity by its name, with an id of its own unless one is given."""
    name = function if isinstance(function, str) else function.__name__
    options: dict[str, Any] = {
        "id": f"act/{uuid.uuid4().hex}",
        "start_to_close_timeout": timedelta(seconds=20),
    }
    return await client.start_activity(name, args=args, task_queue=task_queue, **(options | given))


async def cause_of(handle: ActivityHandle[Any]) -> BaseException:
    """Return what an activity failed with."""
    with pytest.raises(ActivityFailureError) as caught:
        await asyncio.wait_for(handle.result(), 15)
    cause = caught.value.cause
    assert cause is not None
    return cause


def broken(message: str, *, for_good: bool = False) -> ApplicationError:
    """Return a failure that is retried at once, unless it is for good."""
    return ApplicationError(message, type="Broken", non_retryable=for_good, next_retry_delay=QUICK)


@streaming_activity
async def say(stream: StreamWriter[str], text: str) -> str:
    await stream.send_chunk(text)
    return text.upper()


@streaming_activity
async def wait(stream: StreamWriter[str]) -> None:
    """Send one chunk and work until it is cancelled."""
    await stream.send_chunk("one")
    await asyncio.Event().wait()


def seal_of(events: list[Event]) -> tuple[str, str, str]:
    seal = events[-1]
    assert isinstance(seal, Seal)
    return seal.state.name, seal.error_type, seal.message
